"""The rows about load, at a small size: floor, storm, overload, single calls."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.bench.batch import measure_batch
from tests.bench.figures import load_ratios
from tests.bench.floor import measure_floor
from tests.bench.overload import CpuCap, measure_overload
from tests.bench.storm import measure_storm
from tests.bench.unary import measure_unary
from tests.e2e.waiting import eventually


@pytest.mark.e2e
def test_bare_server_gets_every_heartbeat_and_has_a_cost(tmp_path: Path) -> None:
    row = measure_floor(tmp_path, 50, 2.0)
    assert (row["floor_cpu_seconds_per_heartbeat"] or 0.0) >= 0.0
    assert (row["floor_rss_bytes_per_worker"] or 0.0) > 0.0


@pytest.mark.e2e
def test_heartbeats_in_batches_are_accepted(tmp_path: Path) -> None:
    row = measure_batch(tmp_path, 150, 6.0)
    assert row["batch_inactive"] == 0.0
    assert (row["batch_heartbeats_per_second"] or 0.0) > 0.0
    assert (row["batch_rss_bytes"] or 0.0) > 0.0


@pytest.mark.e2e
def test_storm_ends_with_all_workers_active(tmp_path: Path) -> None:
    row = measure_storm(tmp_path, 100, quiet_seconds=0.0)
    assert (row["storm_active"], row["storm_inactive"], row["storm_refusals"]) == (100.0, 0.0, 0.0)
    assert row["storm_seconds"] is not None


@pytest.mark.e2e
def test_storm_without_an_end_has_no_time_and_says_how_many_were_active(tmp_path: Path) -> None:
    row = measure_storm(tmp_path, 20, 2.0, ("--max-workers", "5"), quiet_seconds=0.0)
    assert row["storm_seconds"] is None
    assert (row["storm_active"] or 0.0) <= 5.0
    assert (row["storm_refused_peak"] or 0.0) > 0.0


@pytest.mark.e2e
def test_overloaded_master_answers_and_nobody_is_inactive(tmp_path: Path) -> None:
    row = measure_overload(tmp_path, 50, 2.0, ("--heartbeat-interval", "1s"), calm_seconds=1.0)
    assert row["overload_inactive"] == 0.0
    assert (row["overload_heartbeats_per_second"] or 0.0) > 0.0
    assert (row["overload_answer_p99_seconds"] or 0.0) > 0.0


@pytest.mark.e2e
def test_single_calls_are_accepted(tmp_path: Path) -> None:
    row = measure_unary(tmp_path, 20, 5.0)
    assert (row["unary_failed"], row["unary_inactive"]) == (0.0, 0.0)
    assert (row["unary_heartbeats_per_second"] or 0.0) > 0.0


@pytest.fixture
def busy_process() -> Iterator[psutil.Process]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        yield psutil.Process(process.pid)
        process.kill()


def test_capped_process_gets_its_share_and_goes_on_afterwards(busy_process: psutil.Process) -> None:
    def used() -> float:
        return sum(busy_process.cpu_times()[:2])

    eventually(lambda: used() > 0.1)
    with CpuCap((busy_process.pid,), 0.1).applied():
        before, started = used(), time.monotonic()
        eventually(lambda: used() - before > 0.1)
        cores = (used() - before) / (time.monotonic() - started)
    assert cores < 0.3
    before = used()
    eventually(lambda: used() - before > 0.2)


def test_ratios_need_both_figures() -> None:
    smallest = {"master_cpu_seconds_per_heartbeat": 2e-4, "api_workers_p50_seconds": 0.01}
    row = {
        "master_cpu_seconds_per_heartbeat": 3e-4, "floor_cpu_seconds_per_heartbeat": 2e-4,
        "api_workers_p50_seconds": 0.05, "master_rss_after_reads_bytes": 400e6,
        "batch_cpu_seconds_per_heartbeat": 7e-5, "batch_rss_bytes": 200e6,
    }  # fmt: skip
    assert load_ratios(5_000, row, smallest, {"idle_rss_bytes": 100e6}) == {
        "cpu_to_floor_ratio": pytest.approx(1.5),
        "cpu_growth_ratio": pytest.approx(1.5),
        "api_workers_growth_ratio": pytest.approx(5.0),
        "batch_to_floor_ratio": pytest.approx(0.35),
        "batch_rss_bytes_per_worker": pytest.approx(20e3),
        "rss_bytes_per_worker": pytest.approx(60e3),
    }
    assert set(load_ratios(5_000, {}, {}, {}).values()) == {None}
