"""A master that stands still, or is slower than its workers: late, never wrong."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.e2e.masters import FAST_LEASE_FLAGS, FAST_TIMEOUT_SECONDS, Master, started_master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

WORKERS = 150
PATIENCE_SECONDS = 60.0


@contextmanager
def slowed(process: psutil.Process, running_seconds: float, stopped_seconds: float) -> Iterator[threading.Event]:
    """The process runs only for a part of the time. The event is set by its end; wait on it to let time pass."""
    ends = threading.Event()

    def slow_down() -> None:
        while not ends.is_set():
            process.suspend()
            ends.wait(stopped_seconds)
            process.resume()
            ends.wait(running_seconds)

    thread = threading.Thread(target=slow_down)
    thread.start()
    try:
        yield ends
    finally:
        ends.set()
        thread.join()


def received(master: Master) -> float:
    return master.sample("fleetpulse_heartbeats_received_total")


def assert_nobody_was_given_up(master: Master) -> None:
    assert master.active() == WORKERS
    assert not master.log_lines("is inactive")
    assert not master.log_lines("nobody registered")
    assert master.samples("fleetpulse_worker_sessions_refused_total") == {}


def test_workers_stay_active_while_the_master_is_stopped_for_longer_than_the_lease(processes: Processes) -> None:
    master = started_master(processes, *FAST_LEASE_FLAGS)
    processes.simulate(master.target, WORKERS)
    eventually(lambda: master.active() == WORKERS, PATIENCE_SECONDS)
    web = master.web_process()
    web.suspend()
    threading.Event().wait(2.0 * FAST_TIMEOUT_SECONDS)
    web.resume()
    before = received(master)
    eventually(lambda: received(master) > before + 3 * WORKERS, PATIENCE_SECONDS)
    assert_nobody_was_given_up(master)


def test_master_that_is_too_slow_registers_all_and_finds_nobody_inactive(processes: Processes) -> None:
    master = started_master(processes, "--heartbeat-interval", "0.2s", "--inactivity-timeout", "3s")
    with slowed(master.web_process(), running_seconds=0.05, stopped_seconds=0.2) as ends:
        # All at once: the simulation has no ramp.
        fleet = processes.simulate(master.target, WORKERS)
        eventually(lambda: master.active() == WORKERS, PATIENCE_SECONDS)
        for _ in range(6):
            ends.wait(1.0)
            assert master.get("/health").json()["status"] in ("healthy", "degraded")
        assert fleet.is_running
        assert_nobody_was_given_up(master)
    eventually(lambda: master.sample("fleetpulse_grpc_backlog_age_seconds") < 1.0, PATIENCE_SECONDS)
    assert_nobody_was_given_up(master)
