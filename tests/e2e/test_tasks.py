"""Tasks from submit to exit code, with a real master, real workers and a real Docker Engine."""

from collections.abc import Iterator

import pytest

from tests.docker_engine import Engine
from tests.e2e.jobs import DockerFleet
from tests.e2e.masters import Master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def fleet(shared_processes: Processes, shared_master: Master, docker_engine: Engine) -> Iterator[DockerFleet]:
    fleet = DockerFleet(shared_processes, shared_master, docker_engine)
    fleet.worker("dock-1")
    yield fleet
    fleet.close()


def test_task_from_submit_to_exit_code(fleet: DockerFleet) -> None:
    task_id = fleet.jobs.submit("sh", "-c", "for i in 1 2 3; do echo line $i; sleep 0.3; done; exit 7")
    fleet.jobs.when(task_id, "running")
    events = list(fleet.jobs.follow(task_id))
    text = "".join(data["logs"] for kind, data in events if kind == "message")
    assert text == "line 1\nline 2\nline 3\n"
    kind, end = events[-1]
    assert (kind, end["status"], end["exit_code"], end["oom_killed"]) == ("end", "failed", 7, False)
    task = fleet.jobs.get(task_id)
    assert (task["status"], task["exit_code"], task["worker_id"]) == ("failed", 7, "dock-1")
    assert task["attempts"][0]["status"] == "failed"
    assert fleet.jobs.log(task_id) == text


def test_log_can_be_followed_before_the_container_exists(fleet: DockerFleet) -> None:
    task_id = fleet.jobs.submit("echo", "at last", constraints={"worker_id": "dock-late"})
    events = fleet.jobs.follow(task_id)
    late = fleet.worker("dock-late")
    seen = list(events)
    assert "".join(data["logs"] for kind, data in seen if kind == "message") == "at last\n"
    assert seen[-1][1]["status"] == "completed"
    late.kill_all()


def test_cancelled_task_is_removed_from_docker(fleet: DockerFleet) -> None:
    task_id = fleet.jobs.submit("sleep", "1000")
    fleet.jobs.when(task_id, "running")
    assert [container.status for container in fleet.containers("dock-1", task_id)] == ["running"]
    assert fleet.jobs.cancel(task_id).status_code == 202
    task = fleet.jobs.ended(task_id)
    assert (task["status"], task["reason"]) == ("cancelled", "cancelled")
    eventually(lambda: not fleet.containers("dock-1", task_id))
    assert fleet.jobs.cancel(task_id).status_code == 409


def test_out_of_memory_fails_the_task(fleet: DockerFleet) -> None:
    # The container outlives the kill: an engine may lose the event of one that ends at once.
    script = "dd if=/dev/zero of=/dev/null bs=200M count=1; code=$?; sleep 1; exit $code"
    task_id = fleet.jobs.submit("sh", "-c", script, memory_required=16)
    task = fleet.jobs.ended(task_id)
    assert (task["status"], task["oom_killed"], task["reason"]) == ("failed", True, "out_of_memory")
    assert "memory" in task["error"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"docker_image": "registry.invalid/nothing:1"}, "image"),
        ({"command": ["no-such-program"]}, "command_not_found"),
        ({"command": ["sleep", "100"], "timeout_seconds": 1}, "timeout"),
    ],
)
def test_impossible_task_fails_with_a_reason(fleet: DockerFleet, fields: dict[str, object], reason: str) -> None:
    task = fleet.jobs.ended(fleet.jobs.submit(**fields))
    assert task["status"] == "failed"
    assert task["reason"].startswith(reason), task
    assert task["error"]


def test_retry_is_another_attempt(fleet: DockerFleet) -> None:
    task = fleet.jobs.ended(fleet.jobs.submit("sh", "-c", "exit 3", max_retries=1))
    assert [attempt["attempt"] for attempt in task["attempts"]] == [1, 2]
    assert (task["status"], task["exit_code"]) == ("failed", 3)


def test_task_that_fits_nowhere_is_queued_with_a_reason(fleet: DockerFleet) -> None:
    task_id = fleet.jobs.submit("true", cpu_required=1000)
    task = fleet.jobs.get(task_id)
    assert task["status"] == "queued"
    assert "1000 CPU cores" in task["queue_reason"]
    assert fleet.jobs.cancel(task_id).status_code == 202
    assert fleet.jobs.status(task_id) == "cancelled"


def test_drained_worker_gets_no_new_tasks(fleet: DockerFleet) -> None:
    running = fleet.jobs.submit("sleep", "2")
    fleet.jobs.when(running, "running")
    response = fleet.jobs.post("/api/workers/dock-1/drain", {"reason": "new disks"})
    assert response.status_code in {200, 204}, response.text
    waiting = fleet.jobs.submit("true")
    assert "new disks" in fleet.jobs.get(waiting)["queue_reason"]
    assert fleet.jobs.ended(running)["status"] == "completed"
    assert fleet.jobs.status(waiting) == "queued"
    assert not fleet.may_run_tasks("dock-1")
    fleet.jobs.post("/api/workers/dock-1/undrain", {})
    assert fleet.jobs.ended(waiting)["status"] == "completed"


def test_task_usage_is_in_telemetry_and_metrics(fleet: DockerFleet) -> None:
    task_id = fleet.jobs.submit("sh", "-c", "while :; do :; done", timeout_seconds=60)
    fleet.jobs.when(task_id, "running")
    eventually(lambda: fleet.master.sample("fleetpulse_worker_task_cpu_usage_ratio", task_id, "dock-1") > 0.01, 30.0)
    tasks = fleet.master.json("/telemetry/dock-1")["running_tasks"]
    assert [task["task_id"] for task in tasks] == [task_id]
    assert fleet.master.sample("fleetpulse_worker_task_memory_used_bytes", task_id, "dock-1") > 0
    assert fleet.master.sample("fleetpulse_worker_allocated_cpu_cores", "dock-1") == 0.1
    assert fleet.master.sample("fleetpulse_tasks", "running") == 1.0
    fleet.jobs.cancel(task_id)
    fleet.jobs.ended(task_id)


def test_worker_without_docker_reports_why_it_gets_no_tasks(fleet: DockerFleet, shared_processes: Processes) -> None:
    bare = shared_processes.worker(
        fleet.master.target, "--worker-id", "no-docker", name="bare", DOCKER_HOST="unix:///nowhere/docker.sock"
    )
    eventually(lambda: fleet.master.workers().get("no-docker"))
    task_id = fleet.jobs.submit("true", constraints={"worker_id": "no-docker"})
    assert "Docker" in fleet.jobs.get(task_id)["queue_reason"]
    assert fleet.master.sample("fleetpulse_worker_schedulable", "no-docker") == 0.0
    fleet.jobs.cancel(task_id)
    bare.kill_all()
