"""200 readers of the stream, ten of them stalled, with 1,000 workers at the default interval: `make soak`.

Half of the readers get whole records, half the short form. The baseline of memory is the same master with the same
fleet, after all of REST was read once and before the first reader of the stream.
"""

import time
from typing import NamedTuple

import psutil
import pytest

from tests.e2e.live import ReaderPool
from tests.e2e.masters import Master, started_master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.soak]

WORKERS = 1000
READERS = 190
STALLED = 10
REST_SECONDS = 15.0
READ_SECONDS = 120.0
GROWTH_BYTES = 64 * 1024**2
"""The memory of 200 connections and greenlets, each with an event in flight."""


class Span(NamedTuple):
    """The CPU and memory of the master's web process during a period."""

    cores: float
    rss_bytes: int
    highest_rss_bytes: int


def span(web: psutil.Process, seconds: float) -> Span:
    """Measures for ``seconds``."""
    began, used = time.monotonic(), sum(web.cpu_times()[:2])
    highest = 0
    while (elapsed := time.monotonic() - began) < seconds:
        time.sleep(1.0)
        highest = max(highest, web.memory_info().rss)
    return Span((sum(web.cpu_times()[:2]) - used) / elapsed, web.memory_info().rss, highest)


def heartbeats(master: Master) -> float:
    return master.sample("fleetpulse_heartbeats_received_total")


@pytest.mark.timeout(600)
def test_200_readers_of_1000_workers(processes: Processes, capsys: pytest.CaptureFixture[str]) -> None:
    master = started_master(processes)
    processes.simulate(master.target, WORKERS, "--gpu-share", "0.2")
    eventually(lambda: master.active() == WORKERS, 60.0)
    eventually(lambda: heartbeats(master) > 3 * WORKERS, 60.0)
    assert len(master.json("/telemetry")) == len(master.json("/api/workers")) == WORKERS
    web = master.web_process()
    alone = span(web, REST_SECONDS)
    queries = ["", "?fields=summary"]
    # Here and below the clock is read first: the answer has the count at the time of the request.
    began, heartbeats_before = time.monotonic(), heartbeats(master)
    with ReaderPool(master.http_port, [queries[number % 2] for number in range(READERS)], STALLED) as readers:
        eventually(lambda: master.sample("fleetpulse_stream_readers") == READERS + STALLED, 30.0)
        eventually(readers.all_updated(), 30.0)
        first = span(web, READ_SECONDS / 2.0)
        eventually(readers.all_updated(), 30.0)
        second = span(web, READ_SECONDS / 2.0)
        eventually(readers.all_updated(), 30.0)
        seconds, beats = time.monotonic() - began, heartbeats(master) - heartbeats_before
        with capsys.disabled():
            print(
                f"\nwithout readers: {alone}\nthe first half: {first}\nthe second: {second}\n"
                f"in {seconds:.0f} s readers got {readers.received_bytes / seconds / 1e6:.1f} MB/s, "
                f"each {min(readers.updates)} to {max(readers.updates)} updates, "
                f"none for {readers.longest_silence_seconds:.1f} s at most; "
                f"heartbeats: {beats:.0f} of {WORKERS * seconds / 5.0:.0f}"
            )
        assert readers.ended == []
        assert master.sample("fleetpulse_stream_readers_cut_total") == STALLED
        assert master.sample("fleetpulse_stream_readers") == READERS
    assert beats == pytest.approx(WORKERS * seconds / 5.0, rel=0.02)
    assert master.sample("fleetpulse_heartbeats_dropped_total") == 0
    assert {worker["heartbeats"]["missed"] for worker in master.json("/api/workers")} == {0}
    assert master.active() == WORKERS
    assert not master.log_lines("is inactive|Traceback")
    assert first.highest_rss_bytes - alone.rss_bytes < GROWTH_BYTES
    # Memory does not grow with the time that readers read or stall.
    assert second.highest_rss_bytes <= first.highest_rss_bytes * 1.05
    master.close()
