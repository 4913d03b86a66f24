"""master.instruments"""

import re

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.openmetrics.exposition import generate_latest

from master.instruments import HubCounter, HubHistogram, Instruments
from tests.master.fleet import Fleet


def test_names_follow_the_conventions() -> None:
    for family in Instruments().registry.collect():
        assert re.fullmatch(r"(fleetpulse|process|python)_[a-z_]+", family.name)
        assert family.documentation
        assert not family.name.startswith("fleetpulse_worker_") or "session" in family.name


def test_two_masters_in_one_process_count_by_themselves() -> None:
    one, other = Instruments(), Instruments()
    one.telemetry.heartbeats_received.inc()
    assert one.registry.get_sample_value("fleetpulse_heartbeats_received_total") == 1
    assert other.registry.get_sample_value("fleetpulse_heartbeats_received_total") == 0


def test_a_counter_counts() -> None:
    registry = CollectorRegistry()
    counter = HubCounter("beats_total", "Beats.", registry=registry)
    assert registry.get_sample_value("beats_total") == 0
    counter.inc()
    counter.inc()
    assert registry.get_sample_value("beats_total") == 2
    assert b"beats_total 2.0\n" in generate_latest(registry)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("values", [[], [0.1], [0.0, 0.1, 0.10001, 0.5, 1.0, 2.0, -1.0, 1e9]])
def test_a_histogram_is_that_of_prometheus_client(values: list[float]) -> None:
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


def test_workers_are_counted_by_state(fleet: Fleet) -> None:
    assert (fleet.metric("workers", state="active"), fleet.metric("workers", state="inactive")) == (0, 0)
    fleet.beat("a")
    fleet.pass_time(30.0)
    fleet.beat("b")
    fleet.beat("c")
    assert (fleet.metric("workers", state="active"), fleet.metric("workers", state="inactive")) == (2, 1)
