"""master.api.stream_views"""

import json
import re
from pathlib import Path

from fleetpulse.master.api.stream_views import ShortViews, short_form
from fleetpulse.master.telemetry.decoding import reading_from
from fleetpulse.master.telemetry.records import (
    Allocation,
    HeartbeatCounts,
    Reading,
    Registration,
    TaskSupport,
    WorkerTelemetry,
)
from tests.master.fleet import GIB, full_heartbeat

REST_PAGE = Path(__file__).parents[3] / "docs" / "rest.md"

FULL = WorkerTelemetry(
    worker_id="rack-7",
    registration=Registration(hostname="rack-7.example.com"),
    registered_at=1_700_000_000.75,
    is_active=True,
    last_update=1_700_000_005.75,
    reading=reading_from(full_heartbeat()),
    counts=HeartbeatCounts(received=10),
    revision=1,
)
BARE = WorkerTelemetry("bare", Registration(), 1_700_000_000.0, True, 1_700_000_000.0, Reading(), HeartbeatCounts(), 2)


def test_all_that_a_grid_shows() -> None:
    assert short_form(FULL) == {
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


def test_what_is_not_known_is_null() -> None:
    shown = short_form(BARE)
    known = {"worker_id", "is_active", "last_update", "gpus", "accepts_tasks", "draining"}
    assert {name for name, value in shown.items() if value is not None} == known
    assert (shown["gpus"], shown["accepts_tasks"]) == ([], False)


def test_who_gets_tasks() -> None:
    drained = FULL._replace(allocation=Allocation(refusal="it is drained", drain_reason=""))
    for telemetry, accepts, draining in (
        (FULL, True, False),
        (FULL._replace(is_active=False), False, False),
        (drained, False, True),
        (FULL._replace(reading=FULL.reading._replace(task_support=TaskSupport(False, "no engine"))), False, False),
    ):
        shown = short_form(telemetry)
        assert (shown["accepts_tasks"], shown["draining"]) == (accepts, draining)


def test_only_what_is_asked_for_is_rendered() -> None:
    views = ShortViews()
    views.worker_changed(FULL)
    views.worker_changed(BARE)
    member = views.member("rack-7")
    assert member is not None
    assert json.loads(b"{" + member + b"}") == {"rack-7": short_form(FULL)}
    assert views._members.keys() == {"rack-7"}
    assert views.member("nobody") is None
    views.worker_removed("rack-7")
    assert views.member("rack-7") is None


def test_the_rest_page_explains_every_field() -> None:
    text = REST_PAGE.read_text().partition("## Live telemetry")[2].partition("\n## ")[0]
    assert short_form(FULL).keys() <= set(re.findall(r"`(\w+)`", text))
