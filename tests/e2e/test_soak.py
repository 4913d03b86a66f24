"""500 simulated workers for ten minutes at the default terms: `make soak`.

Flat means, from the end of the first minute on: the number of open files never changes, and the memory of the last two
minutes is within RSS_TOLERANCE of that of the second minute. Back to the start means the level after a first fleet of
the same size has left: files, threads, greenlets and objects as they were, memory within RSS_TOLERANCE. The level
before any worker came is no measure of memory: Python and the C library keep what they freed for the next fleet.
"""

import time
from typing import NamedTuple

import psutil
import pytest

from tests.e2e.levels import CountedMaster, leave
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.soak]

WORKERS = 500
SECONDS = 600
SAMPLE_SECONDS = 5.0
RSS_TOLERANCE = 0.03


class Sample(NamedTuple):
    at_seconds: float
    files: int
    rss_bytes: int


def samples_of(web: psutil.Process, seconds: float) -> list[Sample]:
    """Files and memory every few seconds for so long."""
    began = time.monotonic()
    samples = []
    while (elapsed := time.monotonic() - began) < seconds:
        samples.append(Sample(elapsed, web.num_fds(), web.memory_info().rss))
        time.sleep(SAMPLE_SECONDS)
    return samples


@pytest.mark.timeout(SECONDS + 300)
def test_ten_minutes_with_500_workers(processes: Processes) -> None:
    master = CountedMaster(processes, interval_seconds=5.0, timeout_seconds=30.0)
    first = processes.simulate(master.target, WORKERS)
    eventually(lambda: master.heartbeats() > 4 * WORKERS, 60.0)
    leave(first, master)
    start = master.level()

    fleet = processes.simulate(master.target, WORKERS)
    eventually(lambda: master.active() == WORKERS, 30.0)
    heard = master.heartbeats()
    samples = samples_of(master.web_process(), SECONDS)
    assert master.active() == WORKERS
    assert master.heartbeats() - heard == pytest.approx(WORKERS * SECONDS / 5.0, rel=0.02)
    assert master.sample("fleetpulse_heartbeats_dropped_total") == 0
    assert not master.log_lines("is inactive|Traceback")
    assert_flat([sample for sample in samples if sample.at_seconds >= 60.0])

    leave(fleet, master)
    eventually(lambda: master.is_back_at(start), 30.0)
    end = master.level()
    print(f"start {start}, end {end}, second minute {samples[12]}, last {samples[-1]}")
    assert end.rss_bytes <= start.rss_bytes * (1.0 + RSS_TOLERANCE)
    master.close()


def assert_flat(samples: list[Sample]) -> None:
    assert {sample.files for sample in samples} == {samples[0].files}
    second_minute = max(sample.rss_bytes for sample in samples if sample.at_seconds < 120.0)
    last_minutes = max(sample.rss_bytes for sample in samples if sample.at_seconds >= SECONDS - 120.0)
    assert last_minutes <= second_minute * (1.0 + RSS_TOLERANCE)
