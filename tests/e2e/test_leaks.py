"""Fleets come and go, each in its own way; the master is left holding what it held before.

Measured against the counts after a first fleet has left: by then everything that is made once, at first use, is there.
No two fleets have a worker id in common, or what one left behind would be used by the next.
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
"""Python keeps the last 128 paths that it took apart."""

RSS_TOLERANCE_BYTES = 8_000_000
"""What was freed is used again but not given back, and a fleet of this size moves the level by up to 2 MB."""


@pytest.fixture(scope="module")
def master(shared_processes: Processes) -> Iterator[CountedMaster]:
    master = CountedMaster(shared_processes, INTERVAL_SECONDS, TIMEOUT_SECONDS)
    yield master
    master.close()
    master.assert_no_errors()


@pytest.fixture(scope="module")
def start(shared_processes: Processes, master: CountedMaster) -> ResourceCounts:
    """What the master holds when a first fleet, some of it flapping, and clients that ask for everything have left."""
    fleet = shared_processes.simulate(master.target, WORKERS, "--gpu-share", "0.5", *FLAPPING, "--prefix", "first")
    eventually(lambda: len(master.workers()) == WORKERS, 20.0)
    let_it_beat(master, 6)
    for path in ("/telemetry", "/workers", "/api/workers", "/metrics", "/telemetry/nobody", "/nope"):
        master.get(path)
        master.get(path, headers={"Accept-Encoding": "identity"})
    for number in range(CACHED_PATHS):
        master.session.delete(f"{master.url}/api/workers/nobody-{number}", timeout=10)
    end_and_forget(fleet, master)
    return master.resource_counts()


def assert_back_at(master: CountedMaster, start: ResourceCounts) -> None:
    try:
        eventually(lambda: master.has_returned_to(start))
    except AssertionError:
        raise AssertionError(
            f"it held {start} and holds {master.resource_counts()}; most of all {master.kinds()}"
        ) from None
    assert master.resource_counts().rss_bytes <= start.rss_bytes + RSS_TOLERANCE_BYTES


def let_it_beat(master: CountedMaster, times: int) -> None:
    """Until the master has heard so many heartbeats of each worker."""
    heard = master.heartbeats()
    eventually(lambda: master.heartbeats() >= heard + times * WORKERS, 30.0)


def test_fleet_that_says_goodbye_leaks_nothing(
    shared_processes: Processes, master: CountedMaster, start: ResourceCounts
) -> None:
    fleet = shared_processes.simulate(master.target, WORKERS, "--gpu-share", "0.5", "--prefix", "polite")
    let_it_beat(master, 6)
    assert master.resource_counts().files >= start.files + WORKERS
    leave(fleet, master)
    assert_back_at(master, start)


def test_flapping_fleet_leaks_nothing(
    shared_processes: Processes, master: CountedMaster, start: ResourceCounts
) -> None:
    fleet = shared_processes.simulate(master.target, WORKERS, *FLAPPING, "--prefix", "flapping")
    let_it_beat(master, 6)
    assert len(master.log_lines("worker flapping-.* a new incarnation took over")) > WORKERS
    end_and_forget(fleet, master)
    assert_back_at(master, start)


def test_killed_and_forgotten_fleet_leaks_nothing(
    shared_processes: Processes, master: CountedMaster, start: ResourceCounts
) -> None:
    fleet = shared_processes.simulate(master.target, WORKERS, "--gpu-share", "0.5", "--prefix", "mortal")
    let_it_beat(master, 3)
    fleet.send(signal.SIGKILL)
    fleet.wait()
    eventually(lambda: master.sample("fleetpulse_worker_sessions") == 0)
    forget_the_silent(master)
    assert_back_at(master, start)


def end_and_forget(fleet: RunningProcess, master: CountedMaster) -> None:
    """Stop a fleet of which some may have no chance to say goodbye."""
    fleet.send(signal.SIGTERM)
    fleet.wait()
    forget_the_silent(master)


def forget_the_silent(master: CountedMaster) -> None:
    """Wait until nobody is active any more, then have every one forgotten."""
    eventually(lambda: master.active() == 0)
    for worker_id in master.workers():
        assert master.session.delete(f"{master.url}/api/workers/{worker_id}", timeout=10).status_code == 204
    assert master.shows_no_worker()
