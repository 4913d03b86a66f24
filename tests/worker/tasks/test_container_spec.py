"""worker.tasks.container_spec: requests of a hostile master, and defaults of the policy."""

import math
from typing import Any

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.policy import TaskPolicy
from fleetpulse.worker.tasks.container_spec import RequestRefused, container_spec
from tests.worker.tasks.fake_master import start_request

SECRET = "hunter2-never-shown"


def request_with(**changes: Any) -> pb.StartTask:
    request = start_request("t", "busybox", "true")
    for name, value in changes.items():
        request.ClearField(name)  # type: ignore[arg-type]  # any field's name
        request.MergeFrom(pb.StartTask(**{name: value}))
    return request


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"docker_image": "--privileged"}, "docker_image"),
        ({"docker_image": "busybox --privileged"}, "docker_image"),
        ({"docker_image": ""}, "docker_image"),
        ({"docker_image": "../../etc/passwd"}, "docker_image"),
        ({"docker_image": "a" * 64}, "docker_image"),
        ({"docker_image": "sha256:" + "a" * 64}, "docker_image"),
        ({"env": {"A=B": "c"}}, "env"),
        ({"env": {"": "c"}}, "env"),
        ({"env": {"A\nLD_PRELOAD": "c"}}, "env"),
        ({"env": {"NVIDIA_VISIBLE_DEVICES": "all"}}, "env"),
        ({"env": {"NVIDIA_DRIVER_CAPABILITIES": "all"}}, "env"),
        ({"env": {"AMD_VISIBLE_DEVICES": "all"}}, "env"),
        ({"env": {"A": "\0"}}, "command"),
        ({"command": ["a\0b"]}, "command"),
        ({"cpu_cores": 0.0}, "cpu_cores"),
        ({"cpu_cores": -1.0}, "cpu_cores"),
        ({"cpu_cores": math.nan}, "cpu_cores"),
        ({"cpu_cores": math.inf}, "max_cpu_cores"),
        ({"memory_bytes": 0}, "memory_bytes"),
        ({"memory_bytes": 2**63}, "max_memory_mib"),
        ({"gpu_uuids": ["all"]}, "gpu_uuids"),
        ({"gpu_uuids": ["0"]}, "gpu_uuids"),
        ({"gpu_uuids": ["/dev/sda"]}, "gpu_uuids"),
        ({"gpu_uuids": [f"GPU-{n}" for n in range(65)]}, "gpu_uuids"),
        ({"user": "root; reboot"}, "user"),
        ({"user": "4294967296"}, "user"),
        ({"user": "1:2:3"}, "user"),
        ({"network": 3}, "network"),
        ({"id": pb.AttemptId(task_id="../x", attempt=1)}, "id"),
        ({"id": pb.AttemptId(task_id="t", attempt=0)}, "id"),
        ({"command": ["x" * 300_000]}, "max_command_bytes"),
        ({"env": {"A": "x" * 300_000}}, "max_env_bytes"),
        ({"env": {f"A{n}": "" for n in range(1001)}}, "max_env_entries"),
    ],
)
def test_invalid_request_is_refused(changes: dict[str, Any], rule: str) -> None:
    request = request_with(**{"env": {"TOKEN": SECRET}, **changes})
    with pytest.raises(RequestRefused, match=f"by its rule {rule}: ") as caught:
        container_spec(request, TaskPolicy())
    assert caught.value.reason == ("image_invalid" if rule == "docker_image" else "policy_refused")
    assert SECRET not in str(caught.value)


def test_missing_fields_get_the_policy_defaults() -> None:
    plain = container_spec(request_with(), TaskPolicy())
    assert (plain.read_only, plain.user, plain.network, plain.pids_limit) == (None, None, None, 1024)
    policy = TaskPolicy(read_only_root="default", user="7:8", networks=("none",), max_pids=9)
    strict = container_spec(request_with(), policy)
    assert (strict.read_only, strict.user, strict.network, strict.pids_limit) == (True, "7:8", "none", 9)


def test_requested_fields_are_kept() -> None:
    spec = container_spec(request_with(read_only=True, user="5", network=pb.NETWORK_NONE), TaskPolicy())
    assert (spec.read_only, spec.user, spec.network) == (True, "5", "none")


def test_refusal_names_every_violated_rule() -> None:
    policy = TaskPolicy(images=("ghcr.io/**",), networks=("none",), read_only_root="forced")
    with pytest.raises(
        RequestRefused, match=r"by its rule images, read_only_root, networks: docker_image is docker\.io/"
    ):
        container_spec(request_with(read_only=False, network=pb.NETWORK_BRIDGE), policy)


def test_repr_hides_env_values() -> None:
    spec = container_spec(request_with(env={"TOKEN": SECRET}), TaskPolicy())
    assert spec.env == {"TOKEN": SECRET}
    assert SECRET not in repr(spec)
    assert "TOKEN" in repr(spec)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("0123456789ab", "docker.io/library/0123456789ab:latest"),
        ("busybox", "docker.io/library/busybox:latest"),
        ("ghcr.io/team/app:1.0", "ghcr.io/team/app:1.0"),
    ],
)
def test_image_name_is_normalised(image: str, expected: str) -> None:
    assert container_spec(request_with(docker_image=image), TaskPolicy()).image == expected
