"""master.metrics.families: the names, and what each family says of a worker that gives everything"""

import re

import pytest
from msgspec.structs import replace

from fleetpulse.master.metrics.families import FAMILIES, Family
from fleetpulse.master.telemetry.records import Allocation
from tests.master.metrics.expected import expected_samples
from tests.master.metrics.test_exposition import FULL

by_name = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)

UNIT_OF_SUFFIX = {
    "bytes": "bytes",
    "ratio": "ratio",
    "celsius": "degrees Celsius",
    "watts": "watts",
    "timestamp_seconds": "Unix seconds",
    "time_seconds": "Unix seconds",
    "duration_seconds": "seconds",
    "up": "",
    "info": "",
    "success": "",
    "schedulable": "",
    "draining": "",
    "degraded": "",
    "gpus": "GPUs",
    "hertz": "hertz",
    "gpu_lost": "",
    "filesystem_error": "",
    "disk_error": "",
    "filesystem_read_only": "",
    "gpu_throttled": "",
    "xid": "",
    "worker_refused": "",
    "seconds": "seconds",
    "rpm": "rpm",
}


def test_names_are_unique() -> None:
    names = [family.name for family in FAMILIES]
    assert len(names) == len(set(names))


@by_name
def test_names_follow_the_conventions(family: Family) -> None:
    assert re.fullmatch(r"fleetpulse_worker_[a-z0-9_]+", family.name)
    assert family.kind in {"gauge", "counter"}
    assert family.name.endswith("_total") == (family.kind == "counter")
    assert re.fullmatch(r"[A-Z0-9][^\n\\\"]*\.", family.help)
    assert set(family.labels).isdisjoint({"worker_id", "instance", "job", "le", "quantile"})
    assert all(re.fullmatch(r"[a-z][a-z_]*", label) for label in family.labels)


@by_name
def test_unit_is_in_the_name(family: Family) -> None:
    name = family.name.removesuffix("_total")
    for suffix, unit in UNIT_OF_SUFFIX.items():
        if name.endswith(f"_{suffix}"):
            assert family.unit == unit
            return
    # What is left is counted, or has a word of its own.
    assert family.unit in {"cores", "processes", "tasks", "heartbeats", "calls", "devices", "errors", "units"}


@by_name
def test_every_family_has_a_sample_of_a_full_reading(family: Family) -> None:
    samples = expected_samples(family, FULL)
    readings = [value for _, value in samples]
    assert any(isinstance(value, int | float) for value in readings)
    assert all(len(labels) == len(family.labels) for labels, _ in samples)
    if family.unit == "ratio":
        assert all(value is None or 0.0 <= value <= 1.0 or "task" in family.name for value in readings)


def test_families_that_outlive_silence() -> None:
    assert [family.name for family in FAMILIES if family.outlives_silence] == [
        "fleetpulse_worker_up",
        "fleetpulse_worker_last_heartbeat_timestamp_seconds",
        "fleetpulse_worker_draining",
    ]


def test_draining_with_and_without_a_reason() -> None:
    (family,) = (family for family in FAMILIES if family.name == "fleetpulse_worker_draining")
    for reason, value in ((None, 0), ("", 1), ("new disks", 1)):
        assert expected_samples(family, replace(FULL, allocation=Allocation(drain_reason=reason))) == [((), value)]
