"""A real worker with a hostile master, on real gRPC and a real Docker Engine."""

import json
from pathlib import Path
from typing import Any

import pytest

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.tasks.container_spec import AttemptKey
from tests.docker_engine import Engine
from tests.worker.docker_engine.test_worker_process import worker_at
from tests.worker.scripted import run
from tests.worker.tasks.fake_master import start_request, until

pytestmark = pytest.mark.e2e

SOCKET = "/var/run/docker.sock"

# Attacks are refused; the others run in a container without privileges.
ATTACKS: dict[str, dict[str, Any]] = {
    "privileged image": {"docker_image": "--privileged"},
    "mount by image": {"docker_image": f"-v{SOCKET}:{SOCKET}"},
    "options in image": {"docker_image": "busybox --privileged --pid=host"},
    "host network": {"network": 3},
    "all GPUs": {"gpu_uuids": ["all"]},
    "a device as GPU": {"gpu_uuids": ["/dev/sda"]},
    "no memory limit": {"memory_bytes": 0},
    "no CPU limit": {"cpu_cores": 0.0},
    "oversized command": {"command": ["sleep"] + ["x" * 1000] * 500},
    "variables in a name": {"env": {"A=1\nPATH": "/evil"}},
    "another image": {"docker_image": "docker.io/evil/miner:1"},
    "escape by id": {"id": pb.AttemptId(task_id="../../escape", attempt=1)},
    "a user with a command": {"user": "root;id"},
}
HARMLESS: dict[str, dict[str, Any]] = {
    "path": {"env": {"PATH": f"/evil:{SOCKET}", "LD_PRELOAD": "/evil.so", "DOCKER_HOST": f"unix://{SOCKET}"}},
    "privileged by environment": {"env": {"PRIVILEGED": "true", "SECURITY_OPT": "seccomp=unconfined"}},
    "privileged by command": {"command": ["sleep", "1000", "--privileged", "-v", f"{SOCKET}:{SOCKET}"]},
    "privileged by name": {"name": "--privileged\nfleetpulse.worker_id=other"},
    "root": {"user": "0:0", "read_only": False},
    "labels and fields of another version": {},
}
UNKNOWN_FIELDS = bytes.fromhex("a2060a70726976696c65676564") + b"\xa8\x06\x01"
"""Field 100 is the string ``privileged``, field 101 is true."""


def hostile_request(task_id: str, image: str, changes: dict[str, Any]) -> pb.StartTask:
    request = start_request(task_id, image, "/bin/busybox", "sleep", "1000")
    for name, value in changes.items():
        request.ClearField(name)  # type: ignore[arg-type]  # any field's name
        request.MergeFrom(pb.StartTask(**{name: value}))
    request.MergeFromString(UNKNOWN_FIELDS)
    return request


def policy_file(folder: Path, image: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(f'images = ["docker.io/library/{image.partition(":")[0]}"]\nmax_pids = 77\nmax_memory_mib = 64\n')
    return path


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_refused_request_creates_no_container(name: str, docker_engine: Engine, worker_id: str, tmp_path: Path) -> None:
    async def test() -> None:
        policy = policy_file(tmp_path, docker_engine.image)
        async with worker_at(docker_engine, worker_id, tmp_path, "--task-policy", str(policy)) as (master, worker):
            request = hostile_request("t", docker_engine.image, ATTACKS[name])
            await master.send(request)
            end = await master.wait_for_end(AttemptKey.of(request.id))
            assert end.phase == pb.ATTEMPT_PHASE_FAILED
            assert end.reason in {"policy_refused", "image_invalid"}
            assert end.message.startswith("this worker refuses it by its rule ")
            assert not end.container_id
            assert docker_engine.containers(worker_id) == []
            assert worker.process.poll() is None

    run(test())


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_container_has_no_privileges(name: str, docker_engine: Engine, worker_id: str, tmp_path: Path) -> None:
    async def test() -> None:
        policy = policy_file(tmp_path, docker_engine.image)
        async with worker_at(docker_engine, worker_id, tmp_path, "--task-policy", str(policy)) as (master, _):
            request = hostile_request("t", docker_engine.image, HARMLESS[name])
            await master.send(request)
            await until(lambda: master.phases(AttemptKey.of(request.id))[-1:] in (["running"], ["failed"]))
            (container,) = docker_engine.containers(worker_id)
            assert_unprivileged(container.attrs)
            assert container.labels["fleetpulse.worker_id"] == worker_id

    run(test())


def test_requested_confinement_is_applied(docker_engine: Engine, worker_id: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with worker_at(docker_engine, worker_id, tmp_path) as (master, _):
            changes = {
                "read_only": True, "user": "4321:1234", "network": pb.NETWORK_NONE,
                "command": ["sh", "-c", "id; ls /sys/class/net; touch /here; cat /proc/self/status; sleep 1000"],
            }  # fmt: skip
            request = hostile_request("t", docker_engine.image, changes)
            key = AttemptKey.of(request.id)
            await master.send(request)
            await until(lambda: b"Seccomp:" in master.logs.get(key, b""))
            (container,) = docker_engine.containers(worker_id)
            assert_unprivileged(container.attrs)
            host = container.attrs["HostConfig"]
            assert (host["ReadonlyRootfs"], container.attrs["Config"]["User"]) == (True, "4321:1234")
            assert host["NetworkMode"] == "none"
            log = master.logs[key].decode()
            assert "uid=4321 gid=1234" in log
            assert "Read-only file system" in log
            lines = log.splitlines()
            assert "lo" in lines
            assert not [line for line in lines if line.startswith("eth")]
            # From the kernel: no capabilities, no new privileges, a filter of system calls.
            status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
            assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
            assert status["NoNewPrivs"] == "1"
            assert status["Seccomp"] == ("2" if has_seccomp(docker_engine) else "0")

    run(test())


def test_start_task_has_no_field_for_privileges() -> None:
    words = {field.name for field in pb.StartTask.DESCRIPTOR.fields}
    assert words == {
        *("id", "docker_image", "command", "env", "cpu_cores", "memory_bytes", "gpu_uuids", "timeout_seconds"),
        *("log_limit_bytes", "name", "read_only", "user", "network"),
    }
    assert pb.Network.keys() == ["NETWORK_UNSPECIFIED", "NETWORK_NONE", "NETWORK_BRIDGE"]


def has_seccomp(engine: Engine) -> bool:
    with engine.client() as client:
        return any("seccomp" in option for option in client.info()["SecurityOptions"])


def assert_unprivileged(details: dict[str, Any]) -> None:
    """``details`` from ``docker inspect``."""
    host = details["HostConfig"]
    assert host["Privileged"] is False
    assert host["CapAdd"] in (None, [])
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]  # and Docker's default seccomp profile
    assert not details["Mounts"]
    for field in ("Binds", "Mounts", "Devices", "DeviceCgroupRules", "VolumesFrom", "Links", "Tmpfs", "GroupAdd"):
        assert not host.get(field), field
    assert not host.get("DeviceRequests")
    assert host["NetworkMode"] in {"default", "fleetpulse-tasks", "none"}
    assert host["IpcMode"] in {"", "private", "shareable"}
    for namespace in ("PidMode", "UTSMode", "UsernsMode"):
        assert host[namespace] == "", namespace
    assert 0 < host["Memory"] == host["MemorySwap"]
    assert host["NanoCpus"] > 0
    assert 0 < host["PidsLimit"] <= 1024
    assert host["MaskedPaths"]
    assert host["ReadonlyPaths"]
    assert SOCKET not in json.dumps([details["Mounts"], host["Binds"], details["Config"].get("Volumes")])
    assert host["RestartPolicy"]["Name"] in {"", "no"}
