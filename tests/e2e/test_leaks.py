"""Fleets leave in different ways, and the master releases all their resources.

The counts are compared with those after a first fleet, which creates everything that is created once, at first use.
Fleets share no worker ids, or one would reuse what another has leaked.
"""

import signal
from collections.abc import Iterator

import pytest

from tests.e2e.levels import CountedMaster, ResourceCounts, leave
from tests.e2e.processes import Processes, RunningProcess
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

WORKERS = 60
INTERVAL_SECONDS, TIMEOUT_SECONDS = 0.5, 2.0
FLAPPING = ("--flap", str(WORKERS // 2), "--trouble-after", "0.5", "--trouble-for", "0.2")
CACHED_PATHS = 130
"""Python caches the last 128 parsed paths."""

RSS_TOLERANCE_BYTES = 8_000_000
"""Freed memory is reused but not returned to the system. A fleet of this size changes the level by up to 2 MB."""


@pytest.fixture(scope="module")
def master(shared_processes: Processes) -> Iterator[CountedMaster]:
    master = CountedMaster(shared_processes, INTERVAL_SECONDS, TIMEOUT_SECONDS)
    yield master
    master.close()
    master.assert_no_errors()


@pytest.fixture(scope="module")
def start(shared_processes: Processes, master: CountedMaster) -> ResourceCounts:
    """The counts after a first, partly flapping fleet and clients of every path have left."""
    fleet = shared_processes.simulate(master.target, WORKERS, "--gpu-share", "0.5", *FLAPPING, "--prefix", "first")
    eventually(lambda: len(master.workers()) == WORKERS, 20.0)
    wait_for_heartbeats(master, 6)
    for path in ("/telemetry", "/workers", "/api/workers", "/metrics", "/telemetry/nobody", "/nope"):
        master.get(path)
        master.get(path, headers={"Accept-Encoding": "identity"})
    for number in range(CACHED_PATHS):
        master.session.delete(f"{master.url}/api/workers/nobody-{number}", timeout=10)
    stop_and_remove(fleet, master)
    return master.resource_counts()


def assert_back_at(master: CountedMaster, start: ResourceCounts) -> None:
    try:
        eventually(lambda: master.has_returned_to(start))
    except AssertionError:
        raise AssertionError(
            f"it held {start} and now holds {master.resource_counts()}; most frequent: {master.kinds()}"
        ) from None
    assert master.resource_counts().rss_bytes <= start.rss_bytes + RSS_TOLERANCE_BYTES


def wait_for_heartbeats(master: CountedMaster, times: int) -> None:
    """Waits for this number of heartbeats per worker."""
    before = master.heartbeats()
    eventually(lambda: master.heartbeats() >= before + times * WORKERS, 30.0)


def test_fleet_that_says_goodbye_leaks_nothing(
    shared_processes: Processes, master: CountedMaster, start: ResourceCounts
) -> None:
    fleet = shared_processes.simulate(master.target, WORKERS, "--gpu-share", "0.5", "--prefix", "goodbye")
    wait_for_heartbeats(master, 6)
    assert master.resource_counts().files >= start.files + WORKERS
    leave(fleet, master)
    assert_back_at(master, start)


def test_flapping_fleet_leaks_nothing(
    shared_processes: Processes, master: CountedMaster, start: ResourceCounts
) -> None:
    fleet = shared_processes.simulate(master.target, WORKERS, *FLAPPING, "--prefix", "flapping")
    wait_for_heartbeats(master, 6)
    assert len(master.log_lines("worker flapping-.* a new incarnation took over")) > WORKERS
    stop_and_remove(fleet, master)
    assert_back_at(master, start)


def test_killed_and_forgotten_fleet_leaks_nothing(
    shared_processes: Processes, master: CountedMaster, start: ResourceCounts
) -> None:
    fleet = shared_processes.simulate(master.target, WORKERS, "--gpu-share", "0.5", "--prefix", "killed")
    wait_for_heartbeats(master, 3)
    fleet.send(signal.SIGKILL)
    fleet.wait()
    eventually(lambda: master.sample("fleetpulse_worker_sessions") == 0)
    remove_inactive_workers(master)
    assert_back_at(master, start)


def stop_and_remove(fleet: RunningProcess, master: CountedMaster) -> None:
    """Stops a fleet. Some of its workers may have no stream for a goodbye."""
    fleet.send(signal.SIGTERM)
    fleet.wait()
    remove_inactive_workers(master)


def remove_inactive_workers(master: CountedMaster) -> None:
    """Waits until no worker is active, then deletes all."""
    eventually(lambda: master.active() == 0)
    for worker_id in master.workers():
        assert master.session.delete(f"{master.url}/api/workers/{worker_id}", timeout=10).status_code == 204
    assert master.shows_no_worker()
