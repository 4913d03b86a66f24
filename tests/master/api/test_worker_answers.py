"""master.api.worker_answers"""

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec import to_builtins
from msgspec.structs import replace

from fleetpulse.master.api.worker_answers import StreamSummary, WorkerDetails
from fleetpulse.master.telemetry.decoding import decode_heartbeat
from fleetpulse.master.telemetry.readings import Reading, TaskSupport
from fleetpulse.master.telemetry.records import Allocation, HeartbeatCounts, Registration, Resources, WorkerTelemetry
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.fleet import GIB, full_heartbeat
from tests.master.web import Web

REST_PAGE = Path(__file__).parents[3] / "docs" / "rest.md"

# Resources and tasks in the details

READY = WorkerTelemetry(
    worker_id="rack-7",
    registration=Registration(
        capacity=Resources(8.0, 16 * GIB, 2, ("GPU-a", "GPU-b")), task_support=TaskSupport(available=True)
    ),
    registered_at=0.0,
    is_active=True,
    last_update=0.0,
    reading=Reading(),
    counts=HeartbeatCounts(),
    revision=1,
)
BUSY = replace(READY, allocation=Allocation(2.5, 4 * GIB, ("GPU-b",), 2))


def details_of(telemetry: WorkerTelemetry) -> Any:
    return to_builtins(WorkerDetails.of(telemetry, heartbeats=None, record=None))


def test_allocated_and_available_resources() -> None:
    details = details_of(BUSY)
    assert details["allocated"] == {
        "cpu_cores": 2.5,
        "memory_bytes": 4 * GIB,
        "gpu_count": 1,
        "gpu_uuids": ("GPU-b",),
    }
    assert details["available"] == {
        "cpu_cores": 5.5,
        "memory_bytes": 12 * GIB,
        "gpu_count": 1,
        "gpu_uuids": ("GPU-a",),
    }
    assert details["tasks"] == {
        "count": 2,
        "supported": True,
        "support_reason": None,
        "accepted": True,
        "refusal": None,
        "draining": False,
        "drain_reason": None,
        "degraded": False,
        "degraded_reason": None,
    }


def test_tenths_of_a_core_are_counted_exactly() -> None:
    details = details_of(replace(READY, allocation=Allocation(cpu_cores=7.9)))
    assert details["available"]["cpu_cores"] == 0.1


def test_available_resources_are_never_negative() -> None:
    available = details_of(replace(READY, allocation=Allocation(9.0, 17 * GIB)))["available"]
    assert (available["cpu_cores"], available["memory_bytes"]) == (0, 0)


def test_available_resources_are_unknown_without_a_capacity() -> None:
    details = details_of(replace(READY, registration=Registration()))
    assert details["available"] == {"cpu_cores": None, "memory_bytes": None, "gpu_count": None, "gpu_uuids": ()}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"is_active": False}, {"accepted": False, "refusal": "it is inactive", "supported": True}),
        (
            {"registration": Registration()},
            {"accepted": False, "refusal": "it only reports telemetry", "supported": False},
        ),
        (
            {"reading": Reading(task_support=TaskSupport(available=False, reason="no Docker"))},
            {"accepted": False, "refusal": "no Docker", "supported": False, "support_reason": "no Docker"},
        ),
        (
            {"allocation": Allocation(refusal="it is drained: new disk", drain_reason="new disk")},
            {"accepted": False, "refusal": "it is drained: new disk", "draining": True, "drain_reason": "new disk"},
        ),
        ({"allocation": Allocation(degraded_reason="disk_full")}, {"degraded": True, "degraded_reason": "disk_full"}),
        ({"allocation": Allocation(refusal="it is drained", drain_reason="")}, {"draining": True, "drain_reason": ""}),
    ],
)
def test_reason_why_a_worker_gets_no_tasks(change: dict[str, Any], expected: dict[str, object]) -> None:
    assert expected.items() <= details_of(replace(READY, **change))["tasks"].items()


# Custom metrics

TEMPERATURES = pb.CustomMetric(
    name="inlet_celsius",
    type=pb.CUSTOM_TYPE_GAUGE,
    label_names=["side", "rack"],
    samples=[pb.CustomSample(label_values=["left", "7"], value=21.5), pb.CustomSample(label_values=["", "7"], value=0)],
)
RUNS = pb.CustomMetric(name="runs_total", type=pb.CUSTOM_TYPE_COUNTER, samples=[pb.CustomSample(value=3)])


@pytest.mark.parametrize("path", ["/telemetry/rack-7", "/api/workers/rack-7/metrics"])
def test_every_custom_sample_is_complete(web: Web, path: str) -> None:
    web.fleet.beat("rack-7", custom=[TEMPERATURES, RUNS])
    assert web.json(path)["custom"] == [
        {"name": "inlet_celsius", "type": "gauge", "labels": {"rack": "7", "side": "left"}, "value": 21.5},
        {"name": "inlet_celsius", "type": "gauge", "labels": {"rack": "7"}, "value": 0.0},
        {"name": "runs_total", "type": "counter", "labels": {}, "value": 3.0},
    ]


def test_custom_samples_end_with_the_heartbeat_that_has_none(web: Web) -> None:
    web.fleet.beat("rack-7", custom=[RUNS])
    web.fleet.beat("rack-7")
    assert web.json("/telemetry")["rack-7"]["custom"] == []


# The summary that the stream sends

FULL = WorkerTelemetry(
    worker_id="rack-7",
    registration=Registration(hostname="rack-7.example.com"),
    registered_at=1_700_000_000.75,
    is_active=True,
    last_update=1_700_000_005.75,
    reading=decode_heartbeat(full_heartbeat()),
    counts=HeartbeatCounts(received=10),
    revision=1,
)
BARE = WorkerTelemetry("bare", Registration(), 1_700_000_000.0, True, 1_700_000_000.0, Reading(), HeartbeatCounts(), 2)


def test_stream_summary_of_a_full_reading() -> None:
    assert to_builtins(StreamSummary.of(FULL)) == {
        "worker_id": "rack-7",
        "hostname": "rack-7.example.com",
        "is_active": True,
        "last_update": 1_700_000_005,
        "cpu_usage": 12.5,
        "memory_usage": 25.0,
        "gpu_usage": 75.0,
        "gpus": [75.0, None],
        "cpu_cores": 32,
        "memory_used_bytes": 16 * GIB,
        "memory_size_bytes": 64 * GIB,
        "load1": 1.25,
        "running_tasks_count": 1,
        "accepts_tasks": True,
        "draining": False,
    }


def test_unknown_fields_of_a_stream_summary_are_null() -> None:
    shown = to_builtins(StreamSummary.of(BARE))
    known = {"worker_id", "is_active", "last_update", "gpus", "accepts_tasks", "draining"}
    assert {name for name, value in shown.items() if value is not None} == known
    assert (shown["gpus"], shown["accepts_tasks"]) == ([], False)


def test_stream_summary_says_whether_the_worker_accepts_tasks() -> None:
    drained = replace(FULL, allocation=Allocation(refusal="it is drained", drain_reason=""))
    unsupported = replace(FULL, reading=replace(FULL.reading, task_support=TaskSupport(False, "no engine")))
    for telemetry, accepts, draining in (
        (FULL, True, False),
        (replace(FULL, is_active=False), False, False),
        (drained, False, True),
        (unsupported, False, False),
    ):
        shown = StreamSummary.of(telemetry)
        assert (shown.accepts_tasks, shown.draining) == (accepts, draining)


def test_rest_page_explains_every_field_of_a_stream_summary() -> None:
    text = REST_PAGE.read_text().partition("## Live telemetry")[2].partition("\n## ")[0]
    assert set(StreamSummary.__struct_fields__) <= set(re.findall(r"`(\w+)`", text))
