"""Tasks survive crashes, stalls and restarts of the master and of the worker."""

import signal
from collections.abc import Iterator

import pytest

from tests.docker_engine import Engine
from tests.e2e.jobs import DockerFleet
from tests.e2e.masters import started_master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e


# Longer than the start of a process on a busy machine.
LEASE_FLAGS = ("--heartbeat-interval", "0.5s", "--inactivity-timeout", "8s")


@pytest.fixture
def fleet(processes: Processes, docker_engine: Engine) -> Iterator[DockerFleet]:
    master = started_master(processes, *LEASE_FLAGS)
    fleet = DockerFleet(processes, master, docker_engine)
    yield fleet
    fleet.close()
    master.close()
    master.assert_no_errors()


COUNT = ("sh", "-c", "for i in $(seq 1 30); do echo $i; sleep 0.1; done")
COUNTED = "".join(f"{number}\n" for number in range(1, 31))


def test_containers_survive_a_master_crash(fleet: DockerFleet) -> None:
    fleet.worker("keep-1")
    task_id = fleet.jobs.submit(*COUNT)
    fleet.jobs.when(task_id, "running")
    container_id = fleet.container_id("keep-1", task_id)
    fleet.master.web_process().kill()
    eventually(fleet.master.is_healthy, 20.0)
    task = fleet.jobs.ended(task_id)
    assert (task["status"], len(task["attempts"])) == ("completed", 1)
    assert task["attempts"][0]["container_id"] == container_id
    assert fleet.jobs.log(task_id) == COUNTED


def test_containers_survive_a_worker_crash(fleet: DockerFleet) -> None:
    worker = fleet.worker("adopt-1")
    running, short = fleet.jobs.submit(*COUNT), fleet.jobs.submit("sh", "-c", "echo soon; sleep 0.5; exit 5")
    for task_id in (running, short):
        fleet.jobs.when(task_id, "running")
    container_id = fleet.container_id("adopt-1", running)
    worker.send(signal.SIGKILL)
    worker.wait()
    eventually(lambda: {c.status for c in fleet.containers("adopt-1", short)} == {"exited"})
    fleet.worker("adopt-1")
    long, away = fleet.jobs.ended(running), fleet.jobs.ended(short)
    assert (long["status"], long["attempts"][0]["container_id"]) == ("completed", container_id)
    assert fleet.jobs.log(running) == COUNTED
    assert (away["exit_code"], len(away["attempts"]), fleet.jobs.log(short)) == (5, 1, "soon\n")
    eventually(lambda: not fleet.containers("adopt-1"))


def test_containers_survive_a_worker_restart(fleet: DockerFleet) -> None:
    worker = fleet.worker("stop-1")
    task_id = fleet.jobs.submit(*COUNT)
    fleet.jobs.when(task_id, "running")
    container_id = fleet.container_id("stop-1", task_id)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    fleet.worker("stop-1")
    task = fleet.jobs.ended(task_id)
    assert (task["status"], task["attempts"][0]["container_id"]) == ("completed", container_id)
    assert fleet.jobs.log(task_id) == COUNTED


def test_task_of_a_lost_worker_is_retried_elsewhere(fleet: DockerFleet) -> None:
    lost = fleet.worker("lost-1")
    retried = fleet.jobs.submit("sleep", "15", max_retries=1)
    given_up = fleet.jobs.submit("sleep", "300")
    for task_id in (retried, given_up):
        fleet.jobs.when(task_id, "running")
    fleet.worker("other-1")
    lost.send(signal.SIGSTOP)
    failed = fleet.jobs.ended(given_up)
    assert (failed["status"], failed["reason"]) == ("failed", "worker_lost")
    eventually(lambda: fleet.jobs.get(retried)["worker_id"] == "other-1", 30.0)
    elsewhere = fleet.jobs.get(retried)
    assert elsewhere["attempts"][0]["status"] == "lost"
    assert fleet.containers("lost-1", retried)
    lost.send(signal.SIGCONT)
    eventually(lambda: not fleet.containers("lost-1"), 20.0)
    assert fleet.jobs.ended(retried)["status"] == "completed"


def test_lost_containers_are_removed_when_the_worker_returns(fleet: DockerFleet) -> None:
    worker = fleet.worker("gone-1")
    task_id = fleet.jobs.submit("sleep", "300")
    fleet.jobs.when(task_id, "running")
    worker.send(signal.SIGKILL)
    worker.wait()
    failed = fleet.jobs.ended(task_id)
    assert (failed["status"], failed["reason"]) == ("failed", "worker_lost")
    assert fleet.containers("gone-1", task_id)
    fleet.worker("gone-1")
    eventually(lambda: not fleet.containers("gone-1"), 20.0)
