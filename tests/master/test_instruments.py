"""master.instruments"""

import contextlib
import pathlib
import re
import resource

import psutil
import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.openmetrics.exposition import generate_latest

from fleetpulse.master.instruments import Instruments
from fleetpulse.master.instruments.collectors import HubCounter, HubHistogram
from tests.master.fleet import Fleet


def test_names_follow_the_conventions() -> None:
    for family in Instruments().registry.collect():
        assert re.fullmatch(r"(fleetpulse|process|python)_[a-z_]+", family.name)
        assert family.documentation
        assert not family.name.startswith("fleetpulse_worker_") or "session" in family.name


def test_two_masters_in_one_process_count_separately() -> None:
    one, other = Instruments(), Instruments()
    one.telemetry.heartbeats_received.inc()
    assert one.registry.get_sample_value("fleetpulse_heartbeats_received_total") == 1
    assert other.registry.get_sample_value("fleetpulse_heartbeats_received_total") == 0


def test_hub_counter_counts() -> None:
    registry = CollectorRegistry()
    counter = HubCounter("beats_total", "Beats.", registry=registry)
    assert registry.get_sample_value("beats_total") == 0
    counter.inc()
    counter.inc()
    assert registry.get_sample_value("beats_total") == 2
    assert b"beats_total 2.0\n" in generate_latest(registry)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("values", [[], [0.1], [0.0, 0.1, 0.10001, 0.5, 1.0, 2.0, -1.0, 1e9]])
def test_hub_histogram_equals_that_of_prometheus_client(values: list[float]) -> None:
    bounds = (0.1, 0.5, 1.0)
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histogram = HubHistogram("wait_seconds", "Waiting.", bounds=bounds, registry=ours)
    reference = Histogram("wait_seconds", "Waiting.", buckets=bounds, registry=theirs)
    for value in values:
        histogram.observe(value)
        reference.observe(value)
    for suffix, labels in [
        ("_count", {}),
        ("_sum", {}),
        *(("_bucket", {"le": bound}) for bound in ("0.1", "0.5", "1.0", "+Inf")),
    ]:
        name = f"wait_seconds{suffix}"
        assert ours.get_sample_value(name, labels) == theirs.get_sample_value(name, labels)
        assert ours.get_sample_value(name, labels) is not None


def test_process_metrics_equal_those_of_the_kernel() -> None:
    instruments, process = Instruments(), psutil.Process()
    value = instruments.registry.get_sample_value
    memory = process.memory_info()
    assert value("process_resident_memory_bytes") == pytest.approx(memory.rss, rel=0.1)
    assert value("process_virtual_memory_bytes") == pytest.approx(memory.vms, rel=0.1)
    assert value("process_start_time_seconds") == pytest.approx(process.create_time(), abs=1.0)
    assert value("process_max_fds") == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    before = sum(process.cpu_times()[:2])
    cpu_seconds = value("process_cpu_seconds_total")
    assert cpu_seconds is not None
    assert before <= cpu_seconds <= sum(process.cpu_times()[:2])
    assert value("process_open_fds") == process.num_fds() - 1  # without the one that lists them
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(pathlib.Path("/dev/null").open())
        assert value("process_open_fds") == process.num_fds() - 1  # without the one that lists them


def test_no_created_series() -> None:
    """They would add a series per metric; the start time of the process is enough."""
    assert b"_created" not in generate_latest(Instruments().registry)  # type: ignore[no-untyped-call]


def test_workers_are_counted_by_state(fleet: Fleet) -> None:
    assert (fleet.metric("workers", state="active"), fleet.metric("workers", state="inactive")) == (0, 0)
    fleet.beat("a")
    fleet.pass_time(30.0)
    fleet.beat("b")
    fleet.beat("c")
    assert (fleet.metric("workers", state="active"), fleet.metric("workers", state="inactive")) == (2, 1)
