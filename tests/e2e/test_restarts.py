"""A master that starts again under a simulated fleet: its tasks, and how the fleet comes back."""

import time

import pytest

from tests.cpu_cap import cpu_cap
from tests.e2e.fleet_restarts import RestartedFleet, attempts, running
from tests.e2e.jobs import Jobs
from tests.e2e.masters import FAST_INTERVAL_SECONDS, FAST_LEASE_FLAGS, FAST_TIMEOUT_SECONDS, Master, started_master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually
from tests.ports import free_port

pytestmark = pytest.mark.e2e


def let_leases_end() -> None:
    """Waits until a worker that is away has been away for twice its lease."""
    end = time.monotonic() + 2.0 * (FAST_TIMEOUT_SECONDS + FAST_INTERVAL_SECONDS)
    eventually(lambda: time.monotonic() > end)


def test_tasks_survive_a_master_that_nobody_reaches(processes: Processes, master: Master) -> None:
    processes.simulate(master.target, 3)
    jobs = Jobs(master, "simulated")
    eventually(lambda: master.active() == 3)
    workers = ["sim-1", "sim-2", "sim-3"]
    long, short = running(jobs, "sleep 1000", workers), running(jobs, "sleep 15", workers)
    before = attempts(jobs, long)

    master.restart("--grpc-port", str(free_port()))
    eventually(master.is_healthy)
    let_leases_end()
    assert attempts(jobs, long) == before
    assert master.sample("fleetpulse_task_rescheduling_held") == 1
    assert master.log_lines("no attempt is given up until half of 3 workers are back")

    master.restart()
    eventually(lambda: master.is_healthy() and master.active() == 3)
    eventually(lambda: master.sample("fleetpulse_task_rescheduling_held") == 0)
    let_leases_end()
    assert attempts(jobs, long) == before
    assert [jobs.ended(task_id)["status"] for task_id in short] == ["completed"] * 3
    assert [len(one) for one in attempts(jobs, short)] == [1, 1, 1]
    assert jobs.cancel(long[0]).status_code == 202
    assert jobs.ended(long[0])["status"] == "cancelled"


def test_attempts_of_the_only_worker_are_lost_when_it_is_not_back(processes: Processes) -> None:
    master = started_master(processes, *FAST_LEASE_FLAGS)
    processes.simulate(master.target, 1)
    jobs = Jobs(master, "simulated")
    eventually(lambda: master.active() == 1)
    (task_id,) = running(jobs, "sleep 1000", ["sim-1"])
    master.restart("--grpc-port", str(free_port()))
    assert jobs.ended(task_id)["reason"] == "worker_lost"
    master.close()


def test_fleet_is_back_after_a_restart_of_a_slow_master(processes: Processes) -> None:
    """Slow by a fifth of a core, fleet not slowed down: nobody gives up on it, and nothing is lost."""
    workers = 100
    with cpu_cap() as cap:
        master = started_master(processes, prefix=cap.prefix)
        fleet = RestartedFleet(master, processes.simulate(master.target, workers), workers)
        assert fleet.wait_until_connected(60.0)
        tasks = running(Jobs(master, "simulated"), "sleep 1000", ["sim-001", "sim-050", "sim-100"])
        cap.limit(0.2)
        comeback = fleet.restart(within_seconds=120.0)
        cap.limit(None)
        assert comeback.problems() == [], comeback
        assert [len(one) for one in attempts(Jobs(master, "simulated"), tasks)] == [1, 1, 1]
        master.close()
        processes.close()
