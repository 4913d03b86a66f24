"""Task policies of the master and of the worker, and invalid policy files."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker_engine import Engine
from tests.e2e.jobs import DockerFleet
from tests.e2e.masters import FAST_LEASE_FLAGS, started_master
from tests.e2e.processes import FLEETPULSE, Processes
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

MASTERS_POLICY = """\
images = ["docker.io/library/*"]
read_only_root = "default"
max_cpu_cores = 4
max_env_bytes = 100
"""
WORKERS_POLICY = """\
user = "4321:4321"
networks = ["none"]
max_memory_mib = 64
max_pids = 50
"""


@pytest.fixture(scope="module")
def fleet(shared_processes: Processes, docker_engine: Engine) -> Iterator[DockerFleet]:
    for name, policy in (("master.toml", MASTERS_POLICY), ("worker.toml", WORKERS_POLICY)):
        (shared_processes.folder / name).write_text(policy)
    master = started_master(shared_processes, *FAST_LEASE_FLAGS, "--task-policy", "master.toml")
    fleet = DockerFleet(shared_processes, master, docker_engine)
    fleet.worker("strict", FLEETPULSE_TASK_POLICY="worker.toml")
    yield fleet
    fleet.close()
    master.close()
    master.assert_no_errors()


def test_master_refusal_names_the_rule(fleet: DockerFleet) -> None:
    body = {"docker_image": "ghcr.io/evil/app", "cpu_required": 5, "env": {"TOKEN": "hunter2" * 20}, "network": "none"}
    response = fleet.jobs.post("/api/tasks", body)
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["errors"] == [
        {
            "field": "docker_image",
            "message": "is ghcr.io/evil/app:latest, which is not allowed; allowed are: docker.io/library/* "
            "(the task policy's rule images)",
        },
        {"field": "env", "message": "must be at most 100 bytes in all, not 145 (the task policy's rule max_env_bytes)"},
        {
            "field": "cpu_required",
            "message": "must be at most 4 cores, not 5 (the task policy's rule max_cpu_cores)",
        },
    ]
    assert "hunter2" not in response.text


@pytest.mark.parametrize(
    ("field", "value"), [("network", "host"), ("user", "root:x:y"), ("read_only", "yes"), ("privileged", True)]
)
def test_unknown_task_fields_are_refused(fleet: DockerFleet, field: str, value: object) -> None:
    response = fleet.jobs.post("/api/tasks", {"docker_image": fleet.engine.image, field: value})
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]


def test_worker_refusal_names_the_rule(fleet: DockerFleet) -> None:
    ended = fleet.jobs.ended(fleet.jobs.submit("true", memory_required=128, network="bridge", user="0"))
    assert (ended["status"], ended["reason"]) == ("failed", "policy_refused")
    assert ended["error"].startswith("this worker refuses it by its rule max_memory_mib, networks, user: ")
    assert "network must be one of: none" in ended["error"]
    assert (ended["exit_code"], ended["attempts"][0]["container_id"]) == (None, None)
    assert fleet.containers("strict") == []


def test_master_and_worker_policies_combine(fleet: DockerFleet) -> None:
    task_id = fleet.jobs.submit("sh", "-c", "id; touch /x; sleep 1000")
    task = fleet.jobs.when(task_id, "running")
    assert (task["read_only"], task["user"], task["network"]) == (True, None, None)
    (container,) = fleet.containers("strict", task_id)
    host = container.attrs["HostConfig"]
    assert (host["ReadonlyRootfs"], host["NetworkMode"], host["PidsLimit"]) == (True, "none", 50)
    assert container.attrs["Config"]["User"] == "4321:4321"
    eventually(lambda: "Read-only" in fleet.jobs.log(task_id))
    fleet.jobs.cancel(task_id)
    fleet.jobs.ended(task_id)
    log = fleet.jobs.log(task_id)
    assert "uid=4321 gid=4321" in log
    assert "Read-only file system" in log


@pytest.mark.parametrize("command", ["master", "worker"])
def test_invalid_policy_file_prevents_the_start(command: str, processes: Processes) -> None:
    (processes.folder / "policy.toml").write_text("max_pids = 5\nnetworks = ['host']\n")
    ports = ("--http-port", "0", "--grpc-port", "0") if command == "master" else ()
    ended = processes.run(sys.executable, "-m", f"fleetpulse.{command}", *ports, "--task-policy", "policy.toml")
    assert ended.code == 2
    assert ended.error_line() == "task policy policy.toml: line 2: networks: expected a list of: none, bridge"


def test_registry_config_readable_by_others_prevents_the_start(processes: Processes) -> None:
    path = processes.folder / "config.json"
    path.write_text('{"auths": {}}')
    path.chmod(0o644)
    ended = processes.run(sys.executable, "-m", "fleetpulse.worker", FLEETPULSE_REGISTRY_CONFIG="config.json")
    assert ended.code == 2
    assert ended.error_line() == (
        "registry config config.json: others may read it (mode 0644); run: chmod 600 config.json"
    )


def test_up_passes_policy_and_registry_config(processes: Processes) -> None:
    (processes.folder / "policy.toml").write_text("nonsense = 1\n")
    ended = processes.run(FLEETPULSE, "up", "--http-port", "0", "--grpc-port", "0", "--task-policy", "policy.toml")
    assert ended.code == 2
    assert "line 1: 'nonsense' is not known" in ended.error_line()
    key: Path = processes.folder / "none"
    ended = processes.run(FLEETPULSE, "up", "--http-port", "0", "--grpc-port", "0", "--secret-key-file", str(key))
    assert ended.code == 2
    assert f"the secret key file {key} is not there" in ended.error_line()
