"""Tasks of a master over REST, and their containers on a Docker Engine."""

import json
from collections.abc import Iterator
from typing import Any

import requests
from docker.models.containers import Container

from tests.docker_engine import Engine
from tests.e2e.masters import Master, MasterClient
from tests.e2e.processes import Processes, RunningProcess
from tests.e2e.waiting import eventually

TERMINAL = {"completed", "failed", "cancelled"}
TIMEOUT_SECONDS = 40.0


class Jobs:
    """Tasks of one master."""

    def __init__(self, client: MasterClient, image: str) -> None:
        self._client = client
        self._image = image

    def submit(self, *command: str, **fields: Any) -> str:
        """Submits a small task and returns its id."""
        body = {"docker_image": self._image, "cpu_required": 0.1, "memory_required": 32, **fields}
        if command:
            body["command"] = list(command)
        response = self.post("/api/tasks", body)
        assert response.status_code == 201, response.text
        return str(response.json()["task_id"])

    def post(self, path: str, body: Any, **headers: str) -> requests.Response:
        return self._client.session.post(self._client.url + path, json=body, headers=headers, timeout=10)

    def cancel(self, task_id: str) -> requests.Response:
        return self._client.session.delete(f"{self._client.url}/api/tasks/{task_id}", timeout=10)

    def get(self, task_id: str) -> Any:
        return self._client.json(f"/api/tasks/{task_id}")

    def status(self, task_id: str) -> str:
        return str(self.get(task_id)["status"])

    def when(self, task_id: str, *statuses: str) -> Any:
        """Waits until the task has one of these statuses."""
        return eventually(lambda: task if (task := self.get(task_id))["status"] in statuses else None, TIMEOUT_SECONDS)

    def ended(self, task_id: str) -> Any:
        """Waits until the task has ended."""
        return self.when(task_id, *TERMINAL)

    def log(self, task_id: str) -> str:
        response = self._client.get(f"/api/tasks/{task_id}/logs?format=text")
        assert response.status_code == 200, response.text
        return response.text

    def follow(self, task_id: str, **headers: str) -> Iterator[tuple[str, Any]]:
        """The server-sent events of the task's log: kind and data."""
        with self._client.session.get(
            f"{self._client.url}/api/tasks/{task_id}/logs?follow=true", stream=True, headers=headers, timeout=30
        ) as response:
            assert response.status_code == 200, response.text
            kind = "message"
            for line in response.iter_lines(chunk_size=1, decode_unicode=True):
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    yield kind, json.loads(value)
                elif not line:
                    kind = "message"


class DockerFleet:
    """A master, its tasks, and workers on one Docker Engine, each with a folder of its own."""

    def __init__(self, processes: Processes, master: Master, engine: Engine) -> None:
        self.master = master
        self.engine = engine
        self.jobs = Jobs(master, engine.image)
        self._processes = processes
        self._worker_ids: set[str] = set()

    def worker(self, worker_id: str, *flags: str, target: str | None = None, **env: str) -> RunningProcess:
        """Starts a worker and waits until it is schedulable."""
        self._worker_ids.add(worker_id)
        folder = self._processes.folder / worker_id
        worker = self._processes.worker(
            target or self.master.target, "--worker-id", worker_id, "--data-dir", str(folder), *flags,
            name=worker_id, **self.engine.env, **env,
        )  # fmt: skip
        eventually(lambda: self.may_run_tasks(worker_id), TIMEOUT_SECONDS)
        return worker

    def may_run_tasks(self, worker_id: str) -> bool:
        return self.master.sample("fleetpulse_worker_schedulable", worker_id) == 1.0

    def containers(self, worker_id: str, task_id: str | None = None) -> list[Container]:
        """The worker's containers, running or not; only those of ``task_id`` if given."""
        containers = self.engine.containers(worker_id)
        return [c for c in containers if task_id is None or c.labels.get("fleetpulse.task_id") == task_id]

    def container_id(self, worker_id: str, task_id: str) -> str:
        """The id of the one container of the task."""
        (container,) = self.containers(worker_id, task_id)
        return str(container.id)

    def close(self) -> None:
        for worker_id in self._worker_ids:
            self.engine.remove_containers(worker_id)
