"""Tasks from submit to exit code, with a real master, real workers and a real Docker Engine."""

from collections.abc import Iterator

import pytest

from tests.docker_engine import Engine
from tests.e2e.jobs import Site
from tests.e2e.masters import Master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def site(shared_processes: Processes, shared_master: Master, docker_engine: Engine) -> Iterator[Site]:
    site = Site(shared_processes, shared_master, docker_engine)
    site.worker("dock-1")
    yield site
    site.close()


def test_task_from_submit_to_exit_code(site: Site) -> None:
    task_id = site.jobs.submit("sh", "-c", "for i in 1 2 3; do echo line $i; sleep 0.3; done; exit 7")
    site.jobs.when(task_id, "running")
    events = list(site.jobs.follow(task_id))
    text = "".join(data["logs"] for kind, data in events if kind == "message")
    assert text == "line 1\nline 2\nline 3\n"
    kind, end = events[-1]
    assert (kind, end["status"], end["exit_code"], end["oom_killed"]) == ("end", "failed", 7, False)
    task = site.jobs.get(task_id)
    assert (task["status"], task["exit_code"], task["worker_id"]) == ("failed", 7, "dock-1")
    assert task["attempts"][0]["status"] == "failed"
    assert site.jobs.log(task_id) == text


def test_log_can_be_followed_before_the_container_exists(site: Site) -> None:
    task_id = site.jobs.submit("echo", "at last", constraints={"worker_id": "dock-late"})
    events = site.jobs.follow(task_id)
    late = site.worker("dock-late")
    seen = list(events)
    assert "".join(data["logs"] for kind, data in seen if kind == "message") == "at last\n"
    assert seen[-1][1]["status"] == "completed"
    late.kill_all()


def test_cancelled_task_is_removed_from_docker(site: Site) -> None:
    task_id = site.jobs.submit("sleep", "1000")
    site.jobs.when(task_id, "running")
    assert [container.status for container in site.containers("dock-1", task_id)] == ["running"]
    assert site.jobs.cancel(task_id).status_code == 202
    task = site.jobs.ended(task_id)
    assert (task["status"], task["reason"]) == ("cancelled", "cancelled")
    eventually(lambda: not site.containers("dock-1", task_id))
    assert site.jobs.cancel(task_id).status_code == 409


def test_out_of_memory_fails_the_task(site: Site) -> None:
    task_id = site.jobs.submit("sh", "-c", "x=$(head -c 200m /dev/zero | tr '\\0' x); echo ${#x}", memory_required=16)
    task = site.jobs.ended(task_id)
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
def test_impossible_task_fails_with_a_reason(site: Site, fields: dict[str, object], reason: str) -> None:
    task = site.jobs.ended(site.jobs.submit(**fields))
    assert task["status"] == "failed"
    assert task["reason"].startswith(reason), task
    assert task["error"]


def test_retry_is_another_attempt(site: Site) -> None:
    task = site.jobs.ended(site.jobs.submit("sh", "-c", "exit 3", max_retries=1))
    assert [attempt["attempt"] for attempt in task["attempts"]] == [1, 2]
    assert (task["status"], task["exit_code"]) == ("failed", 3)


def test_task_that_fits_nowhere_is_queued_with_a_reason(site: Site) -> None:
    task_id = site.jobs.submit("true", cpu_required=1000)
    task = site.jobs.get(task_id)
    assert task["status"] == "queued"
    assert "1000 CPU cores" in task["queue_reason"]
    assert site.jobs.cancel(task_id).status_code == 202
    assert site.jobs.status(task_id) == "cancelled"


def test_drained_worker_gets_no_new_tasks(site: Site) -> None:
    running = site.jobs.submit("sleep", "2")
    site.jobs.when(running, "running")
    response = site.jobs.post("/api/workers/dock-1/drain", {"reason": "new disks"})
    assert response.status_code in {200, 204}, response.text
    waiting = site.jobs.submit("true")
    assert "new disks" in site.jobs.get(waiting)["queue_reason"]
    assert site.jobs.ended(running)["status"] == "completed"
    assert site.jobs.status(waiting) == "queued"
    assert not site.may_run_tasks("dock-1")
    site.jobs.post("/api/workers/dock-1/undrain", {})
    assert site.jobs.ended(waiting)["status"] == "completed"


def test_task_usage_is_in_telemetry_and_metrics(site: Site) -> None:
    task_id = site.jobs.submit("sh", "-c", "while :; do :; done", timeout_seconds=60)
    site.jobs.when(task_id, "running")
    eventually(lambda: site.master.sample("fleetpulse_worker_task_cpu_usage_ratio", task_id, "dock-1") > 0.01, 30.0)
    tasks = site.master.json("/telemetry/dock-1")["running_tasks"]
    assert [task["task_id"] for task in tasks] == [task_id]
    assert site.master.sample("fleetpulse_worker_task_memory_used_bytes", task_id, "dock-1") > 0
    assert site.master.sample("fleetpulse_worker_allocated_cpu_cores", "dock-1") == 0.1
    assert site.master.sample("fleetpulse_tasks", "running") == 1.0
    site.jobs.cancel(task_id)
    site.jobs.ended(task_id)


def test_worker_without_docker_reports_why_it_gets_no_tasks(site: Site, shared_processes: Processes) -> None:
    bare = shared_processes.worker(
        site.master.target, "--worker-id", "no-docker", name="bare", DOCKER_HOST="unix:///nowhere/docker.sock"
    )
    eventually(lambda: site.master.workers().get("no-docker"))
    task_id = site.jobs.submit("true", constraints={"worker_id": "no-docker"})
    assert "Docker" in site.jobs.get(task_id)["queue_reason"]
    assert site.master.sample("fleetpulse_worker_schedulable", "no-docker") == 0.0
    site.jobs.cancel(task_id)
    bare.kill_all()
