"""master.api.views"""

import json
from typing import Any

import gevent
import pytest
from msgspec.structs import replace

from fleetpulse.master.api.views import WORKERS_IN_A_ROW, FleetViews, StreamSummaries
from fleetpulse.master.errors import UnknownWorker
from fleetpulse.master.telemetry.decoding import decode_heartbeat
from fleetpulse.master.telemetry.readings import Filesystem, Load, Memory, Reading
from fleetpulse.master.telemetry.records import Allocation, HeartbeatCounts, Registration, Resources, WorkerTelemetry
from tests.master.fleet import GIB, full_heartbeat

FULL = WorkerTelemetry(
    worker_id="rack-7",
    registration=Registration(
        "first",
        "rack-7.example.com",
        "1.2.3",
        1_600_000_000.0,
        Resources(32.0, 64 * GIB, 2, ("GPU-aaaa", "GPU-bbbb")),
        {"zone": "eu-1"},
    ),
    registered_at=1_700_000_000.75,
    is_active=True,
    last_update=1_700_000_005.75,
    reading=decode_heartbeat(full_heartbeat()),
    counts=HeartbeatCounts(10, 2, 3, 4, "cpu.usage_percent is -1.0", 1_700_000_001.0, -0.25),
    revision=1,
)
BARE = WorkerTelemetry("bare", Registration(), 1_700_000_000.0, True, 1_700_000_000.0, Reading(), HeartbeatCounts(), 2)

NO_FILESYSTEM = dict.fromkeys(Filesystem.__struct_fields__)
FULL_METRICS = {
    "cpu": {"usage_percent": 12.5, "logical_cores": 32},
    "memory": {
        "used_bytes": 16 * GIB, "size_bytes": 64 * GIB, "swap_used_bytes": GIB, "swap_size_bytes": 8 * GIB,
    },
    "load": {"load1": 1.25, "load5": 2.5, "load15": 3.75},
    "uptime_seconds": 86400.5,
    "filesystems": [
        {
            "mountpoint": "/", "used_bytes": 100 * GIB, "size_bytes": 500 * GIB, "available_bytes": 375 * GIB,
            "inodes": 1000, "inodes_free": 250, "is_read_only": False, "device": "/dev/sda1", "fstype": "ext4",
            "state": "ok", "state_reason": None,
        },
        {**NO_FILESYSTEM, "mountpoint": "/data", "used_bytes": 3 * GIB, "size_bytes": 2000 * GIB},
        {
            **NO_FILESYSTEM, "mountpoint": "/nfs", "fstype": "nfs4", "state": "error",
            "state_reason": "it does not answer",
        },
    ],
    "disk_devices": [
        {
            "device": "nvme0n1", "read_bytes": 1001, "written_bytes": 1002, "size_bytes": 1003, "state": "ok",
            "state_reason": None,
        }
    ],
    "network_interfaces": [{"interface": "eth0", "received_bytes": 2001, "transmitted_bytes": 2002}],
    "gpus": [
        {
            "index": 0, "uuid": "GPU-aaaa", "name": "NVIDIA H100", "utilization_percent": 75.0,
            "memory_used_bytes": 40 * GIB, "memory_size_bytes": 80 * GIB, "temperature_celsius": 61.0,
            "power_watts": 402.5, "state": "ok", "state_reason": None, "power_limit_watts": 700.0,
            "clock_hertz": 1.98e9, "memory_clock_hertz": 2.619e9, "encoder_utilization_percent": 10.0,
            "decoder_utilization_percent": 20.0, "is_throttled": True,
            "ecc_corrected_errors": 7, "ecc_uncorrected_errors": 1,
            "last_xid": 79,
            "nvlink_errors": 3, "vendor": "nvidia", "throttle_reasons": ["thermal"], "process_count": 2,
            "processes": [
                {"pid": 71, "user": "ada", "command": "python", "memory_used_bytes": 30 * GIB},
                {"pid": 72, "user": None, "command": None, "memory_used_bytes": None},
            ],
            "instances": [
                {
                    "uuid": "MIG-aaaa", "name": "H100 MIG 1g.10gb", "gpu": 0, "memory_used_bytes": GIB,
                    "memory_size_bytes": 10 * GIB,
                },
            ],
        },
        {
            "index": 1, "uuid": "GPU-bbbb", "name": "NVIDIA H100", "utilization_percent": None,
            "memory_used_bytes": None, "memory_size_bytes": 80 * GIB, "temperature_celsius": None,
            "power_watts": None, "state": None, "state_reason": None, "power_limit_watts": None, "clock_hertz": None,
            "memory_clock_hertz": None, "encoder_utilization_percent": None, "decoder_utilization_percent": None,
            "is_throttled": None, "ecc_corrected_errors": None, "ecc_uncorrected_errors": None, "last_xid": None,
            "nvlink_errors": None, "vendor": None, "throttle_reasons": [], "process_count": None, "processes": [],
            "instances": [],
        },
    ],
    "collectors": [
        {"collector": "cpu", "success": True, "duration_seconds": 0.001, "error": None, "age_seconds": None},
        {"collector": "gpu", "success": False, "duration_seconds": 0.25, "error": "the driver hangs",
         "age_seconds": None},
    ],
    "pressure": {
        "cpu_waiting_percent": 5.0, "cpu_waiting_seconds": 100.5,
        "memory_waiting_percent": 2.0, "memory_waiting_seconds": 20.25,
        "memory_stalled_percent": 1.0, "memory_stalled_seconds": 10.125,
        "io_waiting_percent": 4.0, "io_waiting_seconds": 40.5,
        "io_stalled_percent": 3.0, "io_stalled_seconds": 30.75,
    },
    "sensors": [
        {"sensor": "coretemp/Package id 0", "temperature_celsius": 57.0, "fan_rpm": None},
        {"sensor": "thinkpad/fan1", "temperature_celsius": None, "fan_rpm": 2913.0},
    ],
    "systemd_failed_units": 2,
    "left_out": [{"collector": "disk", "count": 5}],
    "custom": [],
}  # fmt: skip
FULL_RECORD = {
    "worker_id": "rack-7",
    "cpu_usage": 12.5,
    "memory_usage": 25.0,
    "gpu_usage": 75.0,
    "running_tasks": [{"task_id": "train-1", "attempt": 2, "cpu_usage": 250.0, "memory_used_bytes": GIB}],
    "last_update": 1_700_000_005,
    "is_active": True,
    **FULL_METRICS,
}
FULL_DETAILS = {
    "worker_id": "rack-7",
    "hostname": "rack-7.example.com",
    "version": "1.2.3",
    "labels": {"zone": "eu-1"},
    "capacity": {"cpu_cores": 32.0, "memory_bytes": 64 * GIB, "gpu_count": 2, "gpu_uuids": ["GPU-aaaa", "GPU-bbbb"]},
    "boot_time": 1_600_000_000.0,
    "registered_at": 1_700_000_000,
    "is_active": True,
    "heartbeats": {
        "received": 10, "dropped": 2, "missed": 3, "refused": 4, "refusal": "cpu.usage_percent is -1.0",
        "refused_since": 1_700_000_001.0, "clock_skew_seconds": -0.25,
    },
    "allocated": {"cpu_cores": 0.0, "memory_bytes": 0, "gpu_count": 0, "gpu_uuids": []},
    "available": {"cpu_cores": 32.0, "memory_bytes": 64 * GIB, "gpu_count": 2, "gpu_uuids": ["GPU-aaaa", "GPU-bbbb"]},
    "tasks": {
        "count": 0, "supported": True, "support_reason": None, "accepted": True, "refusal": None, "draining": False,
        "drain_reason": None, "degraded": False, "degraded_reason": None,
    },
    "telemetry": FULL_RECORD,
}  # fmt: skip
BARE_METRICS: dict[str, Any] = {
    "cpu": {"usage_percent": None, "logical_cores": None},
    "memory": {"used_bytes": None, "size_bytes": None, "swap_used_bytes": None, "swap_size_bytes": None},
    "load": {"load1": None, "load5": None, "load15": None},
    "uptime_seconds": None,
    "filesystems": [],
    "disk_devices": [],
    "network_interfaces": [],
    "gpus": [],
    "collectors": [],
    "pressure": dict.fromkeys(
        (
            "cpu_waiting_percent",
            "cpu_waiting_seconds",
            "memory_waiting_percent",
            "memory_waiting_seconds",
            "memory_stalled_percent",
            "memory_stalled_seconds",
            "io_waiting_percent",
            "io_waiting_seconds",
            "io_stalled_percent",
            "io_stalled_seconds",
        )
    ),
    "sensors": [],
    "systemd_failed_units": None,
    "left_out": [],
    "custom": [],
}
BARE_RECORD = {
    "worker_id": "bare",
    "cpu_usage": None,
    "memory_usage": None,
    "gpu_usage": None,
    "running_tasks": [],
    "last_update": 1_700_000_000,
    "is_active": True,
    **BARE_METRICS,
}
BARE_DETAILS: dict[str, Any] = {
    "worker_id": "bare",
    "hostname": None,
    "version": None,
    "labels": {},
    "capacity": {"cpu_cores": None, "memory_bytes": None, "gpu_count": None, "gpu_uuids": []},
    "boot_time": None,
    "registered_at": 1_700_000_000,
    "is_active": True,
    "heartbeats": {
        "received": 0, "dropped": 0, "missed": 0, "refused": 0, "refusal": None, "refused_since": None,
        "clock_skew_seconds": None,
    },
    "allocated": {"cpu_cores": 0.0, "memory_bytes": 0, "gpu_count": 0, "gpu_uuids": []},
    "available": {"cpu_cores": None, "memory_bytes": None, "gpu_count": None, "gpu_uuids": []},
    "tasks": {
        "count": 0, "supported": False, "support_reason": "it only reports telemetry", "accepted": False,
        "refusal": "it only reports telemetry", "draining": False, "drain_reason": None,
        "degraded": False, "degraded_reason": None,
    },
    "telemetry": BARE_RECORD,
}  # fmt: skip


def showing(*workers: WorkerTelemetry) -> FleetViews:
    views = FleetViews()
    for worker in workers:
        views.worker_changed(worker)
    return views


@pytest.mark.parametrize(
    ("worker", "record", "metrics", "details"),
    [(FULL, FULL_RECORD, FULL_METRICS, FULL_DETAILS), (BARE, BARE_RECORD, BARE_METRICS, BARE_DETAILS)],
    ids=["full", "bare"],
)
def test_views_of_one_worker(worker: WorkerTelemetry, record: object, metrics: object, details: object) -> None:
    views = showing(BARE, FULL)
    assert json.loads(views.record(worker.worker_id)) == record
    assert json.loads(views.metrics(worker.worker_id)) == metrics
    assert json.loads(views.details(worker.worker_id)) == details


def test_views_of_all_workers() -> None:
    views = showing(FULL, BARE)
    assert json.loads(b"".join(views.all_records())) == {"rack-7": FULL_RECORD, "bare": BARE_RECORD}
    assert json.loads(b"".join(views.all_details())) == [FULL_DETAILS, BARE_DETAILS]
    assert json.loads(b"".join(views.all_summaries())) == {
        "rack-7": {"worker_id": "rack-7", "is_active": True, "running_tasks_count": 1, "last_update": 1_700_000_005},
        "bare": {"worker_id": "bare", "is_active": True, "running_tasks_count": 0, "last_update": 1_700_000_000},
    }


def test_views_of_an_empty_table() -> None:
    views = FleetViews()
    answers = views.all_records(), views.all_summaries(), views.all_details()
    assert [b"".join(pieces) for pieces in answers] == [b"{}", b"{}", b"[]"]
    for view in (views.record, views.metrics, views.details):
        with pytest.raises(UnknownWorker):
            view("rack-7")


def test_inactive_worker_keeps_its_readings() -> None:
    views = showing(FULL)
    views.all_records()
    views.worker_changed(replace(FULL, is_active=False))
    assert json.loads(views.record("rack-7")) == {**FULL_RECORD, "is_active": False}
    assert json.loads(views.details("rack-7"))["is_active"] is False
    assert json.loads(b"".join(views.all_summaries()))["rack-7"]["is_active"] is False


def test_removed_worker_is_in_no_view() -> None:
    views = showing(FULL, BARE)
    views.all_records()
    views.worker_removed("rack-7")
    views.worker_removed("stranger")
    assert json.loads(b"".join(views.all_records())) == {"bare": BARE_RECORD}
    assert json.loads(b"".join(views.all_details())) == [BARE_DETAILS]
    assert json.loads(b"".join(views.all_summaries())).keys() == {"bare"}
    with pytest.raises(UnknownWorker):
        views.record("rack-7")


@pytest.mark.parametrize("leaving", [range(WORKERS_IN_A_ROW, 2 * WORKERS_IN_A_ROW), range(WORKERS_IN_A_ROW, 600)])
def test_workers_may_leave_while_an_answer_is_made(leaving: range) -> None:
    for whole, view in ({}, FleetViews.all_records), ({}, FleetViews.all_summaries), ([], FleetViews.all_details):
        views = showing(*(replace(BARE, worker_id=f"rack-{number}") for number in range(600)))
        views.catch_up()
        leave = [gevent.spawn(views.worker_removed, f"rack-{number}") for number in leaving]
        answer = json.loads(b"".join(view(views)))
        assert all(greenlet.successful() for greenlet in leave)
        assert type(answer) is type(whole)
        assert len(answer) == 600 - len(leaving)


def test_texts_of_a_worker_are_escaped() -> None:
    hostile = '"},{"\\\u2028\u0000</script>'
    views = showing(replace(FULL, registration=Registration(hostname=hostile, labels={hostile: hostile})))
    details = json.loads(b"".join(views.all_details()))[0]
    assert details["hostname"] == hostile
    assert details["labels"] == {hostile: hostile}


def test_largest_numbers_of_the_protocol() -> None:
    reading = Reading(memory=Memory(2**64 - 1, 2**64 - 1), load=Load(1.7976931348623157e308))
    views = showing(replace(FULL, reading=reading, last_update=4e9))
    assert json.loads(views.record("rack-7"))["memory"]["used_bytes"] == 2**64 - 1
    assert json.loads(views.record("rack-7"))["memory_usage"] == 100.0
    assert json.loads(b"".join(views.all_summaries()))["rack-7"]["last_update"] == 4_000_000_000


def test_kept_details_follow_every_change() -> None:
    views = showing(FULL)
    json.loads(views.details("rack-7"))
    for changed in (
        replace(FULL, counts=HeartbeatCounts(received=11)),
        replace(FULL, allocation=Allocation(cpu_cores=1.0)),
        replace(FULL, is_active=False),
        replace(FULL, registration=Registration(hostname="other")),
    ):
        views.worker_changed(changed)
        assert views.details("rack-7") == showing(changed).details("rack-7")
        assert views.details("rack-7") == views.details("rack-7")
    views.worker_removed("rack-7")
    assert views._details == {}


def test_details_of_the_fleet_are_kept_until_a_worker_changes() -> None:
    other = replace(BARE, worker_id="rack-8")
    views = showing(FULL, other)
    first = views.all_details()
    kept = dict(views._detail_members)
    assert b"".join(views.all_details()) == b"".join(first)
    assert all(views._detail_members[worker_id] is member for worker_id, member in kept.items())
    changed = replace(FULL, counts=HeartbeatCounts(received=11))
    views.worker_changed(changed)
    assert b"".join(views.all_details()) == b"".join(showing(changed, other).all_details())
    assert views._detail_members["rack-8"] is kept["rack-8"]


def test_details_of_the_fleet_are_rendered_behind_the_heartbeats_only_while_somebody_reads_them() -> None:
    views = showing(FULL)
    views.catch_up()
    assert views._detail_members == {}
    views.all_details()
    views.worker_changed(replace(FULL, is_active=False))
    views.catch_up()
    assert json.loads(views._detail_members["rack-7"])["is_active"] is False
    views.worker_removed("rack-7")
    assert views._detail_members == {}


# The summaries that the stream sends


def test_stream_summary_is_rendered_only_on_request() -> None:
    views = StreamSummaries()
    views.worker_changed(FULL)
    views.worker_changed(BARE)
    member = views.member("rack-7")
    assert member is not None
    assert json.loads(b"{" + member + b"}")["rack-7"]["cpu_usage"] == 12.5
    assert views._members.keys() == {"rack-7"}
    assert views.member("nobody") is None
    views.worker_removed("rack-7")
    assert views.member("rack-7") is None
