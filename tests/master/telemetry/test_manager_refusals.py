"""master.telemetry.manager: heartbeats that are refused, and clocks that differ."""

import contextlib

import pytest

from fleetpulse.master.config import LeaseConfig
from fleetpulse.master.errors import FleetPulseError
from fleetpulse.master.telemetry.records import HeartbeatCounts, Registration
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.fleet import Fleet, heartbeat, running_fleet, settle

BAD = pb.Cpu(usage_percent=-1.0)
WHY = "cpu.usage_percent is -1.0; it must be a number from 0 to 100"


def counts(fleet: Fleet) -> HeartbeatCounts:
    return fleet.manager.get_worker_telemetry("rack-7").counts


def refuse(fleet: Fleet, worker_id: str = "rack-7", incarnation_id: str = "") -> None:
    with pytest.raises(FleetPulseError):
        fleet.manager.process_heartbeat(heartbeat(worker_id, incarnation_id=incarnation_id, cpu=BAD))
    settle()


def test_refused_heartbeats_are_counted_with_the_reason_and_the_time_of_the_first() -> None:
    with running_fleet() as fleet:
        fleet.beat()
        first = fleet.clock.wall = fleet.clock.wall + 5.0
        refuse(fleet)
        fleet.clock.advance(5.0)
        refuse(fleet)
        assert counts(fleet) == HeartbeatCounts(received=1, refused=2, refusal=WHY, refused_since=first)
        assert fleet.seen.changes[-1].counts.is_refused


def test_accepted_heartbeat_ends_the_refusal_and_keeps_the_count() -> None:
    with running_fleet() as fleet:
        fleet.beat()
        refuse(fleet)
        fleet.beat()
        assert counts(fleet) == HeartbeatCounts(received=2, refused=1)
        fleet.clock.advance(60.0)
        refuse(fleet)
        assert counts(fleet).refused_since == fleet.clock.wall


def test_worker_that_is_refused_was_heard_and_keeps_its_readings() -> None:
    with running_fleet(LeaseConfig(inactivity_timeout_seconds=30.0)) as fleet:
        fleet.beat(uptime_seconds=7.0)
        for _ in range(10):
            fleet.pass_time(20.0)
            refuse(fleet)
        assert fleet.is_active()
        assert fleet.manager.get_worker_telemetry("rack-7").reading.uptime_seconds == 7.0
        fleet.pass_time(30.25)
        assert not fleet.is_active()
        refuse(fleet)
        assert fleet.is_active()


def test_refusal_outlives_the_next_registration_of_the_same_incarnation() -> None:
    with running_fleet() as fleet:
        fleet.manager.register_worker("rack-7", Registration("first"))
        refuse(fleet, incarnation_id="first")
        fleet.manager.release_worker("rack-7", "first")
        fleet.manager.register_worker("rack-7", Registration("first"))
        assert counts(fleet).refusal == WHY


def test_nobody_else_can_mark_a_worker_as_refused() -> None:
    with running_fleet() as fleet:
        fleet.manager.register_worker("rack-7", Registration("first"))
        refuse(fleet, incarnation_id="another")
        refuse(fleet, incarnation_id="")
        assert counts(fleet) == HeartbeatCounts()


def test_refused_heartbeats_of_strangers_take_no_place() -> None:
    with running_fleet() as fleet:
        for number in range(50):
            refuse(fleet, f"stranger-{number}")
        assert fleet.manager.worker_count == 0


@pytest.mark.parametrize("skew", [3600.0, 0.25, 0.0, -0.5, -86400.0])
def test_clock_skew_is_signed_and_starts_at_the_receipt(skew: float) -> None:
    with running_fleet() as fleet:
        message = heartbeat(sent_time_unix_seconds=fleet.clock.wall + skew)
        received_at = fleet.clock.monotonic
        fleet.clock.advance(7.0)  # It waits for the master.
        fleet.manager.process_heartbeat(message, received_at)
        settle()
        assert counts(fleet).clock_skew_seconds == skew
        fleet.beat()
        assert counts(fleet).clock_skew_seconds is None


def test_no_time_that_is_accepted_breaks_the_reading_of_the_skew() -> None:
    with running_fleet() as fleet:
        for sent in (0.0, 1e11, 1e-300):
            with contextlib.suppress(FleetPulseError):
                fleet.beat(sent_time_unix_seconds=sent)
            assert abs(counts(fleet).clock_skew_seconds or 0.0) <= 1e11
