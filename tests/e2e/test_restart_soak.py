"""A restart under a large fleet, of a slow master and of one with the whole machine: `make soak`."""

import time

import pytest

from tests.cpu_cap import cpu_cap
from tests.e2e.fleet_restarts import RestartedFleet, attempts, running
from tests.e2e.jobs import Jobs
from tests.e2e.masters import started_master
from tests.e2e.processes import Processes
from tests.e2e.tls import TlsMaster
from tests.e2e.waiting import eventually
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.soak, pytest.mark.timeout(900)]

SLOW_CORES = 0.2
CONNECT_SECONDS = 240.0
BACK_SECONDS = 240.0
CUT_OFF_SECONDS = 300.0
DEFAULT_LEASE = ("--heartbeat-interval", "5s", "--inactivity-timeout", "30s")


def assert_comes_back(fleet: RestartedFleet, capsys: pytest.CaptureFixture[str]) -> None:
    comeback = fleet.restart(BACK_SECONDS)
    with capsys.disabled():
        print(f"\n{comeback}")
    assert comeback.problems() == [], comeback


def test_fleet_is_back_after_a_restart_of_a_slow_master(
    processes: Processes, capsys: pytest.CaptureFixture[str]
) -> None:
    with cpu_cap() as cap:
        master = started_master(processes, prefix=cap.prefix)
        fleet = RestartedFleet(master, processes.simulate(master.target, 1500, "--ramp", "10"), 1500)
        assert fleet.wait_until_connected(CONNECT_SECONDS)
        cap.limit(SLOW_CORES)
        assert_comes_back(fleet, capsys)
        processes.close()


def test_fleet_with_certificates_is_back_after_a_restart_of_a_slow_master(
    processes: Processes, capsys: pytest.CaptureFixture[str]
) -> None:
    with cpu_cap() as cap:
        tls = TlsMaster(processes, *DEFAULT_LEASE, prefix=cap.prefix)
        (processes.folder / "token").write_text(tls.token("sim-*", lifetime=600.0, uses=1500))
        joining = ("--join-address", f"127.0.0.1:{tls.join_port}", "--join-file", str(processes.folder / "token"))
        flags = (*joining, "--data-dir", str(processes.folder / "sim"), "--ramp", "10")
        fleet = RestartedFleet(tls.master, processes.simulate(tls.target, 1500, *flags), 1500)
        assert fleet.wait_until_connected(CONNECT_SECONDS)
        cap.limit(SLOW_CORES)
        assert_comes_back(fleet, capsys)
        processes.close()


@pytest.mark.parametrize("workers", [5_000, 10_000])
def test_large_fleet_is_back_after_a_restart(
    workers: int, processes: Processes, capsys: pytest.CaptureFixture[str]
) -> None:
    master = started_master(processes)
    fleet = RestartedFleet(master, processes.simulate(master.target, workers, "--ramp", "30"), workers)
    assert fleet.wait_until_connected(CONNECT_SECONDS)
    assert_comes_back(fleet, capsys)


def test_tasks_survive_a_fleet_that_is_cut_off_for_five_minutes_after_a_restart(processes: Processes) -> None:
    workers = 20
    master = started_master(processes)
    processes.simulate(master.target, workers)
    jobs = Jobs(master, "simulated")
    eventually(lambda: master.active() == workers)
    worker_ids = [f"sim-{number:02d}" for number in range(1, workers + 1)]
    tasks = running(jobs, "sleep 100000", worker_ids * 2)
    before = attempts(jobs, tasks)

    master.restart("--grpc-port", str(free_port()))
    eventually(master.is_healthy)
    ends_at = time.monotonic() + CUT_OFF_SECONDS
    while time.monotonic() < ends_at:
        assert attempts(jobs, tasks) == before
        time.sleep(5.0)
    assert master.active() == 0
    assert master.sample("fleetpulse_task_rescheduling_held") == 1

    master.restart()
    eventually(lambda: master.is_healthy() and master.active() == workers, CONNECT_SECONDS)
    eventually(lambda: master.sample("fleetpulse_task_rescheduling_held") == 0, CONNECT_SECONDS)
    assert attempts(jobs, tasks) == before
    assert jobs.cancel(tasks[0]).status_code == 202
    assert jobs.ended(tasks[0])["status"] == "cancelled"
