"""500 simulated workers for ten minutes at the default interval: `make soak`.

After the first minute usage must be flat: the number of open files is constant, and the memory of the last two minutes
is within 3% of that of the second minute, which is 60 bytes a heartbeat.

After the fleet has left, files, threads, greenlets and objects must be back at the counts after short fleets of the
same size, and memory within 10% of the highest of those levels. Memory before the first worker is no baseline: Python
and the C library keep freed memory, and the level varies by some 10 MB between fleets without growing (measured with
14 of them). A leak of 200 bytes a heartbeat would exceed that.
"""

import time
from typing import NamedTuple

import psutil
import pytest

from tests.e2e.levels import CountedMaster, ResourceCounts, leave
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.soak]

WORKERS = 500
SECONDS = 600
SAMPLE_SECONDS = 5.0
SHORT_FLEETS = 4
FLAT_RSS_SHARE = 0.03
START_RSS_SHARE = 0.10


class Sample(NamedTuple):
    at_seconds: float
    files: int
    rss_bytes: int


def samples_of(web: psutil.Process, seconds: float) -> list[Sample]:
    """Samples of files and memory during ``seconds``."""
    began = time.monotonic()
    samples = []
    while (elapsed := time.monotonic() - began) < seconds:
        samples.append(Sample(elapsed, web.num_fds(), web.memory_info().rss))
        time.sleep(SAMPLE_SECONDS)
    return samples


@pytest.mark.timeout(SECONDS + 300)
def test_ten_minutes_with_500_workers(processes: Processes, capsys: pytest.CaptureFixture[str]) -> None:
    master = CountedMaster(processes, interval_seconds=5.0, timeout_seconds=30.0)
    starts = [level_after_a_short_fleet(processes, master, number) for number in range(SHORT_FLEETS)]

    fleet = processes.simulate(master.target, WORKERS)
    eventually(lambda: master.active() == WORKERS, 30.0)
    before = master.heartbeats()
    samples = samples_of(master.web_process(), SECONDS)
    assert master.active() == WORKERS
    assert master.heartbeats() - before == pytest.approx(WORKERS * SECONDS / 5.0, rel=0.02)
    assert master.sample("fleetpulse_heartbeats_dropped_total") == 0
    assert not master.log_lines("is inactive|Traceback")

    leave(fleet, master)
    eventually(lambda: master.has_returned_to(starts[-1]), 30.0)
    end = master.resource_counts()
    with capsys.disabled():
        print(f"\nafter short fleets: {starts}\nat the end: {end}\nmeanwhile, every minute: {samples[::12]}")
    assert_flat([sample for sample in samples if sample.at_seconds >= 60.0])
    assert end.rss_bytes <= max(start.rss_bytes for start in starts) * (1.0 + START_RSS_SHARE)
    master.close()


def level_after_a_short_fleet(processes: Processes, master: CountedMaster, number: int) -> ResourceCounts:
    before = master.heartbeats()
    fleet = processes.simulate(master.target, WORKERS, "--prefix", f"short-{number}")
    eventually(lambda: master.heartbeats() > before + 3 * WORKERS, 60.0)
    leave(fleet, master)
    return master.resource_counts()


def assert_flat(samples: list[Sample]) -> None:
    assert {sample.files for sample in samples} == {samples[0].files}
    second_minute = max(sample.rss_bytes for sample in samples if sample.at_seconds < 120.0)
    last_minutes = max(sample.rss_bytes for sample in samples if sample.at_seconds >= SECONDS - 120.0)
    assert last_minutes <= second_minute * (1.0 + FLAT_RSS_SHARE)
