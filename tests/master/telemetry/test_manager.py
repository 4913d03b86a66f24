"""master.telemetry.manager: registration, processing, queries"""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from fleetpulse.master.config import LeaseConfig
from fleetpulse.master.errors import FleetFull, InvalidMessage, InvalidReading, UnknownWorker, WorkerStillActive
from fleetpulse.master.telemetry.readings import Load, Reading
from fleetpulse.master.telemetry.records import HeartbeatCounts, Registration
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.fleet import Fleet, full_heartbeat, heartbeat, running_fleet, settle
from tests.master.hostile import BAD_WORKER_IDS


def load(value: float) -> pb.Load:
    return pb.Load(load1=value)


# Registration


def test_registered_worker_is_active_without_a_reading(fleet: Fleet) -> None:
    fleet.manager.register_worker("rack-7", Registration("first", hostname="rack-7.example.com"))
    telemetry = fleet.manager.get_worker_telemetry("rack-7")
    assert telemetry.worker_id == "rack-7"
    assert telemetry.registration.hostname == "rack-7.example.com"
    assert telemetry.is_active
    assert telemetry.reading == Reading()
    assert (telemetry.cpu_usage, telemetry.memory_usage, telemetry.gpu_usage) == (None, None, None)
    assert telemetry.last_update == telemetry.registered_at == fleet.clock.wall
    assert fleet.seen.changes[-1] == telemetry


def test_worker_can_be_registered_by_its_id_alone(fleet: Fleet) -> None:
    fleet.manager.register_worker("rack-7")
    assert fleet.manager.get_worker_telemetry("rack-7").registration == Registration()


def test_second_registration_keeps_readings_and_replaces_identity(fleet: Fleet) -> None:
    fleet.manager.register_worker("rack-7", Registration("first", version="1"))
    fleet.beat(incarnation_id="first", load=load(1.0))
    registered_at = fleet.clock.wall
    fleet.clock.advance(60.0)
    fleet.manager.register_worker("rack-7", Registration("first", version="2"))
    telemetry = fleet.manager.get_worker_telemetry("rack-7")
    assert telemetry.registration.version == "2"
    assert telemetry.reading.load.load1 == 1.0
    assert telemetry.registered_at == registered_at
    assert telemetry.last_update == fleet.clock.wall
    assert telemetry.counts.received == 1


def test_first_heartbeat_registers_an_unknown_worker(fleet: Fleet) -> None:
    fleet.beat("rack-8", load=load(1.0))
    telemetry = fleet.manager.get_worker_telemetry("rack-8")
    assert telemetry.is_active
    assert telemetry.reading.load.load1 == 1.0


@pytest.mark.parametrize("worker_id", BAD_WORKER_IDS, ids=lambda worker_id: ascii(worker_id[:20]))
def test_invalid_worker_id_is_refused_everywhere(fleet: Fleet, worker_id: str) -> None:
    with pytest.raises(InvalidMessage):
        fleet.manager.register_worker(worker_id)
    with pytest.raises(InvalidMessage):
        fleet.manager.process_heartbeat(heartbeat(worker_id))
    assert fleet.metric("heartbeats_rejected_total", reason="invalid_message") == 1
    assert fleet.manager.get_all_worker_telemetry() == {}
    assert fleet.seen.changes == []


def test_full_master_refuses_new_workers_only() -> None:
    with running_fleet(LeaseConfig(max_workers=2)) as fleet:
        fleet.beat("a")
        fleet.beat("b")
        with pytest.raises(FleetFull, match="2 workers"):
            fleet.manager.register_worker("c")
        with pytest.raises(FleetFull):
            fleet.manager.process_heartbeat(heartbeat("c"))
        assert fleet.metric("heartbeats_rejected_total", reason="fleet_full") == 1
        fleet.beat("b", load=load(2.0))
        assert fleet.manager.get_worker_telemetry("b").reading.load.load1 == 2.0
        fleet.manager.unregister_worker("a")
        fleet.beat("c")
        assert fleet.manager.get_all_worker_telemetry().keys() == {"b", "c"}


# Processing


def test_newest_heartbeat_replaces_earlier_ones(fleet: Fleet) -> None:
    fleet.manager.process_heartbeat(full_heartbeat())
    settle()
    fleet.clock.advance(5.0)
    fleet.beat(incarnation_id="first", sequence_number=2, load=load(9.0))
    telemetry = fleet.manager.get_worker_telemetry("rack-7")
    assert telemetry.reading == Reading(load=Load(load1=9.0))
    assert telemetry.last_update == fleet.clock.wall
    assert telemetry.counts.received == 2


def test_process_heartbeat_only_queues(fleet: Fleet) -> None:
    fleet.manager.register_worker("rack-7")
    fleet.manager.process_heartbeat(heartbeat(load=load(1.0)))
    assert fleet.manager.get_worker_telemetry("rack-7").reading == Reading()
    settle()
    assert fleet.manager.get_worker_telemetry("rack-7").reading == Reading(load=Load(load1=1.0))


def test_full_queue_drops_and_counts_the_oldest() -> None:
    shown = []
    with running_fleet(LeaseConfig(queue_length=3)) as fleet:
        fleet.manager.set_update_callback(lambda _, telemetry: shown.append(telemetry.reading.load.load1))
        for value in range(5):
            fleet.manager.process_heartbeat(heartbeat("rack-7", load=load(value)))
        fleet.manager.process_heartbeat(heartbeat("rack-8", load=load(7)))
        settle()
        assert shown == [2.0, 3.0, 4.0, 7.0]
        assert fleet.manager.get_worker_telemetry("rack-7").counts == HeartbeatCounts(5, 2, 0)
        assert fleet.manager.get_worker_telemetry("rack-8").counts == HeartbeatCounts(1, 0, 0)
        assert fleet.metric("heartbeats_received_total") == 6
        assert fleet.metric("heartbeats_dropped_total") == 2


def test_delay_until_a_heartbeat_is_visible_is_measured(fleet: Fleet) -> None:
    fleet.manager.process_heartbeat(heartbeat(sent_time_unix_seconds=fleet.clock.wall - 1.5))
    fleet.clock.advance(0.25)
    settle()
    assert fleet.metric("heartbeat_receipt_to_visible_seconds_sum") == 0.25
    assert fleet.metric("heartbeat_receipt_to_visible_seconds_count") == 1
    assert fleet.metric("heartbeat_sent_to_visible_seconds_sum") == 1.75
    fleet.beat()
    assert fleet.metric("heartbeat_receipt_to_visible_seconds_count") == 2
    assert fleet.metric("heartbeat_sent_to_visible_seconds_count") == 1


# Refusals


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"cpu": pb.Cpu(usage_percent=101.0)}, InvalidReading),
        ({"cpu": pb.Cpu(usage_percent=float("nan"))}, InvalidReading),
        ({"load": load(float("inf"))}, InvalidReading),
        ({"filesystems": [pb.Filesystem(mountpoint="\n")]}, InvalidMessage),
        ({"incarnation_id": "not a word"}, InvalidMessage),
    ],
)
@pytest.mark.parametrize("is_known", [True, False])
def test_refused_heartbeat_changes_no_reading_and_is_counted(
    fleet: Fleet, fields: dict[str, Any], error: type[InvalidMessage], is_known: bool
) -> None:
    fleet.beat("other", load=load(1.0))
    if is_known:
        fleet.beat(load=load(2.0))
    before = fleet.manager.get_all_worker_telemetry()
    fleet.clock.advance(5.0)
    with pytest.raises(error):
        fleet.manager.process_heartbeat(heartbeat(**fields))
    settle()
    after = fleet.manager.get_all_worker_telemetry()
    assert after.keys() == before.keys()
    assert [(each.reading, each.registration, each.last_update) for each in after.values()] == [
        (each.reading, each.registration, each.last_update) for each in before.values()
    ]
    assert fleet.metric("heartbeats_rejected_total", reason=error.reason) == 1
    assert fleet.metric("heartbeats_received_total") == len(before)


# Queries


def test_new_table_is_empty(fleet: Fleet) -> None:
    assert fleet.manager.get_all_worker_telemetry() == {}
    with pytest.raises(UnknownWorker, match="'rack-7'"):
        fleet.manager.get_worker_telemetry("rack-7")


def test_snapshot_is_immutable(fleet: Fleet) -> None:
    fleet.beat(load=load(1.0))
    everyone = fleet.manager.get_all_worker_telemetry()
    one: Any = fleet.manager.get_worker_telemetry("rack-7")
    fleet.beat(load=load(2.0))
    fleet.beat("rack-8")
    assert everyone == {"rack-7": one}
    assert one.reading.load.load1 == 1.0
    everyone.clear()
    assert len(fleet.manager.get_all_worker_telemetry()) == 2
    with pytest.raises(AttributeError):
        one.is_active = False


def test_every_change_has_its_own_revision(fleet: Fleet) -> None:
    seen = [fleet.manager.revision]
    changes: list[Callable[[], None]] = [
        lambda: fleet.manager.register_worker("rack-7"),
        fleet.beat,
        lambda: fleet.beat("rack-8"),
        lambda: fleet.pass_time(30.0),
        lambda: fleet.manager.unregister_worker("rack-7"),
    ]
    for change in changes:
        change()
        seen.append(fleet.manager.revision)
    assert seen == sorted(set(seen))
    revisions = [telemetry.revision for telemetry in fleet.seen.changes]
    assert revisions == sorted(set(revisions))


def test_queries_do_not_change_the_revision(fleet: Fleet) -> None:
    fleet.beat()
    before = fleet.manager.revision
    fleet.manager.get_all_worker_telemetry()
    fleet.manager.get_worker_telemetry("rack-7")
    fleet.pass_time(1.0)
    assert fleet.manager.revision == before


# Unregistering


def test_unregistering_forgets_everything(fleet: Fleet) -> None:
    fleet.beat()
    fleet.beat("rack-8")
    row = fleet.manager._workers["rack-7"]
    greenlet, row_gone = row.greenlet, weakref.ref(row.wake)
    assert greenlet is not None
    fleet.manager.process_heartbeat(heartbeat(load=load(9.0)))
    fleet.manager.unregister_worker("rack-7")
    with pytest.raises(UnknownWorker):
        fleet.manager.get_worker_telemetry("rack-7")
    assert fleet.manager.get_all_worker_telemetry().keys() == {"rack-8"}
    assert fleet.seen.removed == ["rack-7"]
    changes = len(fleet.seen.changes)
    settle()
    assert len(fleet.seen.changes) == changes  # what was queued is not shown any more
    assert greenlet.dead
    del row, greenlet
    gc.collect()
    assert row_gone() is None
    fleet.pass_time(60.0)  # its lease does not come back to life
    assert fleet.seen.removed == ["rack-7"]


def test_unregistering_an_unknown_worker_raises(fleet: Fleet) -> None:
    with pytest.raises(UnknownWorker):
        fleet.manager.unregister_worker("rack-7")
    assert fleet.seen.removed == []


def test_unregistered_worker_can_return_as_a_new_one(fleet: Fleet) -> None:
    fleet.beat(incarnation_id="first", sequence_number=7, load=load(1.0))
    fleet.manager.unregister_worker("rack-7")
    fleet.clock.advance(5.0)
    fleet.beat(incarnation_id="second", sequence_number=1)
    telemetry = fleet.manager.get_worker_telemetry("rack-7")
    assert telemetry.reading == Reading()
    assert telemetry.registered_at == fleet.clock.wall
    assert telemetry.counts == HeartbeatCounts(1, 0, 0)


def test_unregistered_workers_leave_no_greenlet_and_no_row(fleet: Fleet) -> None:
    for number in range(1000):
        fleet.manager.process_heartbeat(heartbeat(f"rack-{number}"))
    settle()
    greenlets = [row.greenlet for row in fleet.manager._workers.values() if row.greenlet is not None]
    assert len(greenlets) == 1000
    for number in range(1000):
        fleet.manager.unregister_worker(f"rack-{number}")
    gevent.joinall(greenlets, timeout=5.0, raise_error=True)
    assert all(greenlet.dead for greenlet in greenlets)
    assert fleet.manager.get_all_worker_telemetry() == {}
    assert len(fleet.manager._leases) == len(fleet.manager._remembered) == 0
    assert fleet.metric("workers", state="active") == 0
    assert fleet.metric("workers", state="inactive") == 0


def test_active_worker_cannot_be_forgotten(fleet: Fleet) -> None:
    fleet.beat()
    with pytest.raises(WorkerStillActive, match="rack-7"):
        fleet.manager.forget_worker("rack-7")
    fleet.pass_time(30.0)
    fleet.manager.forget_worker("rack-7")
    assert fleet.manager.get_all_worker_telemetry() == {}
    with pytest.raises(UnknownWorker):
        fleet.manager.forget_worker("rack-7")
