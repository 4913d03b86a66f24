"""Task requests for tests."""

from typing import Any

from fleetpulse.master.tasks.request import TaskRequest, request_from


def task_request(docker_image: str = "busybox", **fields: Any) -> TaskRequest:
    """Not validated; fields that are not given have their defaults."""
    return request_from({"docker_image": docker_image, **fields})
