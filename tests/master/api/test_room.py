"""master.api.room"""

import json
from typing import Any

import pytest

from fleetpulse.master.api.room import ResourceViews, room_of
from fleetpulse.master.telemetry.records import (
    Allocation,
    Capacity,
    HeartbeatCounts,
    Reading,
    Registration,
    TaskSupport,
    WorkerTelemetry,
)
from tests.master.fleet import GIB

READY = WorkerTelemetry(
    worker_id="rack-7",
    registration=Registration(
        capacity=Capacity(8.0, 16 * GIB, 2, ("GPU-a", "GPU-b")), task_support=TaskSupport(available=True)
    ),
    registered_at=0.0,
    is_active=True,
    last_update=0.0,
    reading=Reading(),
    counts=HeartbeatCounts(),
    revision=1,
)
BUSY = READY._replace(allocation=Allocation(2.5, 4 * GIB, ("GPU-b",), 2))


def test_what_is_taken_and_what_is_left() -> None:
    room = room_of(BUSY)
    assert room["allocated"] == {
        "cpu_cores": 2.5,
        "memory_bytes": 4 * GIB,
        "gpu_count": 1,
        "gpu_uuids": ["GPU-b"],
    }
    assert room["available"] == {
        "cpu_cores": 5.5,
        "memory_bytes": 12 * GIB,
        "gpu_count": 1,
        "gpu_uuids": ["GPU-a"],
    }
    assert room["tasks"] == {
        "count": 2,
        "supported": True,
        "support_reason": None,
        "accepted": True,
        "refusal": None,
        "draining": False,
        "drain_reason": None,
    }


def test_tenths_of_a_core_are_counted_exactly() -> None:
    assert room_of(READY._replace(allocation=Allocation(cpu_cores=7.9)))["available"]["cpu_cores"] == 0.1


def test_what_came_back_smaller_has_nothing_left_not_less() -> None:
    available = room_of(READY._replace(allocation=Allocation(9.0, 17 * GIB)))["available"]
    assert (available["cpu_cores"], available["memory_bytes"]) == (0, 0)


def test_an_unknown_capacity_leaves_an_unknown_rest() -> None:
    room = room_of(READY._replace(registration=Registration()))
    assert room["available"] == {"cpu_cores": None, "memory_bytes": None, "gpu_count": None, "gpu_uuids": []}


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
        ({"allocation": Allocation(refusal="it is drained", drain_reason="")}, {"draining": True, "drain_reason": ""}),
    ],
)
def test_why_it_gets_no_tasks(change: dict[str, Any], expected: dict[str, object]) -> None:
    assert expected.items() <= room_of(READY._replace(**change))["tasks"].items()


def test_the_json_is_kept_until_something_in_it_changes() -> None:
    views = ResourceViews()
    first = views.members(READY)
    assert json.loads(b"{%b}" % first) == room_of(READY)
    assert views.members(READY._replace(revision=2, reading=Reading(load1=1.0))) is first
    assert json.loads(b"{%b}" % views.members(BUSY)) == room_of(BUSY)
    views.remove("rack-7")
    assert views.members(READY) == first
