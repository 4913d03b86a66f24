"""Tasks survive crashes, stalls and restarts of the master and of the worker."""

import signal
from collections.abc import Iterator

import pytest

from tests.docker_engine import Engine
from tests.e2e.jobs import Site
from tests.e2e.masters import started_master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e


# Longer than the start of a process on a busy machine.
LEASE_FLAGS = ("--heartbeat-interval", "0.5s", "--inactivity-timeout", "8s")


@pytest.fixture
def site(processes: Processes, docker_engine: Engine) -> Iterator[Site]:
    master = started_master(processes, *LEASE_FLAGS)
    site = Site(processes, master, docker_engine)
    yield site
    site.close()
    master.close()
    master.assert_no_errors()


COUNT = ("sh", "-c", "for i in $(seq 1 30); do echo $i; sleep 0.1; done")
COUNTED = "".join(f"{number}\n" for number in range(1, 31))


def test_containers_survive_a_master_crash(site: Site) -> None:
    site.worker("keep-1")
    task_id = site.jobs.submit(*COUNT)
    site.jobs.when(task_id, "running")
    container_id = site.container_id("keep-1", task_id)
    site.master.web_process().kill()
    eventually(site.master.is_healthy, 20.0)
    task = site.jobs.ended(task_id)
    assert (task["status"], len(task["attempts"])) == ("completed", 1)
    assert task["attempts"][0]["container_id"] == container_id
    assert site.jobs.log(task_id) == COUNTED


def test_containers_survive_a_worker_crash(site: Site) -> None:
    worker = site.worker("adopt-1")
    running, short = site.jobs.submit(*COUNT), site.jobs.submit("sh", "-c", "echo soon; sleep 0.5; exit 5")
    for task_id in (running, short):
        site.jobs.when(task_id, "running")
    container_id = site.container_id("adopt-1", running)
    worker.send(signal.SIGKILL)
    worker.wait()
    eventually(lambda: {c.status for c in site.containers("adopt-1", short)} == {"exited"})
    site.worker("adopt-1")
    long, away = site.jobs.ended(running), site.jobs.ended(short)
    assert (long["status"], long["attempts"][0]["container_id"]) == ("completed", container_id)
    assert site.jobs.log(running) == COUNTED
    assert (away["exit_code"], len(away["attempts"]), site.jobs.log(short)) == (5, 1, "soon\n")
    eventually(lambda: not site.containers("adopt-1"))


def test_containers_survive_a_worker_restart(site: Site) -> None:
    worker = site.worker("stop-1")
    task_id = site.jobs.submit(*COUNT)
    site.jobs.when(task_id, "running")
    container_id = site.container_id("stop-1", task_id)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    site.worker("stop-1")
    task = site.jobs.ended(task_id)
    assert (task["status"], task["attempts"][0]["container_id"]) == ("completed", container_id)
    assert site.jobs.log(task_id) == COUNTED


def test_task_of_a_lost_worker_is_retried_elsewhere(site: Site) -> None:
    lost = site.worker("lost-1")
    retried = site.jobs.submit("sleep", "15", max_retries=1)
    given_up = site.jobs.submit("sleep", "300")
    for task_id in (retried, given_up):
        site.jobs.when(task_id, "running")
    site.worker("other-1")
    lost.send(signal.SIGSTOP)
    failed = site.jobs.ended(given_up)
    assert (failed["status"], failed["reason"]) == ("failed", "worker_lost")
    eventually(lambda: site.jobs.get(retried)["worker_id"] == "other-1", 30.0)
    elsewhere = site.jobs.get(retried)
    assert elsewhere["attempts"][0]["status"] == "lost"
    assert site.containers("lost-1", retried)
    lost.send(signal.SIGCONT)
    eventually(lambda: not site.containers("lost-1"), 20.0)
    assert site.jobs.ended(retried)["status"] == "completed"


def test_lost_containers_are_removed_when_the_worker_returns(site: Site) -> None:
    worker = site.worker("gone-1")
    task_id = site.jobs.submit("sleep", "300")
    site.jobs.when(task_id, "running")
    worker.send(signal.SIGKILL)
    worker.wait()
    failed = site.jobs.ended(task_id)
    assert (failed["status"], failed["reason"]) == ("failed", "worker_lost")
    assert site.containers("gone-1", task_id)
    site.worker("gone-1")
    eventually(lambda: not site.containers("gone-1"), 20.0)
