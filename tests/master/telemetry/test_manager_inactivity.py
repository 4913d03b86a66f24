"""master.telemetry.manager: which workers are active"""

import logging

import pytest
from msgspec.structs import replace

from fleetpulse.master.config import LeaseConfig
from fleetpulse.master.telemetry.records import WorkerTelemetry
from tests.master.fleet import Fleet, Recorder, heartbeat, running_fleet, settle


def test_silent_worker_is_active_for_30_s_and_inactive_by_31(fleet: Fleet) -> None:
    fleet.pass_time(0.25)
    fleet.clock.advance(0.1)  # between two checks
    fleet.beat()
    fleet.clock.advance(0.15)
    fleet.manager.check_liveness()
    fleet.pass_time(29.75)  # 29.9 s silent
    assert fleet.is_active()
    fleet.pass_time(0.25)  # 30.15 s silent
    assert not fleet.is_active()


def test_inactivity_is_published_once_and_keeps_the_last_reading(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.beat()
    last = fleet.manager.get_worker_telemetry("rack-7")
    seen_before = len(fleet.seen.changes)
    with caplog.at_level(logging.WARNING):
        fleet.pass_time(120.0)
    now = fleet.manager.get_worker_telemetry("rack-7")
    assert fleet.seen.changes[seen_before:] == [now]
    assert now == replace(last, is_active=False, revision=now.revision)
    assert [record.message for record in caplog.records] == ["worker rack-7 is inactive: nothing heard for 30 s"]


def test_registered_worker_without_heartbeats_becomes_inactive(fleet: Fleet) -> None:
    fleet.manager.register_worker("rack-7")
    fleet.pass_time(29.75)
    assert fleet.is_active()
    fleet.pass_time(0.25)
    assert not fleet.is_active()


def test_heartbeat_makes_an_inactive_worker_active_at_once(fleet: Fleet) -> None:
    fleet.beat()
    fleet.pass_time(3600.0)
    assert not fleet.is_active()
    fleet.beat()
    assert fleet.is_active()
    assert fleet.manager.get_worker_telemetry("rack-7").last_update == fleet.clock.wall
    fleet.pass_time(29.75)
    assert fleet.is_active()
    fleet.pass_time(0.25)
    assert not fleet.is_active()


def test_registration_makes_an_inactive_worker_active_at_once(fleet: Fleet) -> None:
    fleet.manager.register_worker("rack-7")
    fleet.pass_time(60.0)
    fleet.manager.register_worker("rack-7")
    assert fleet.is_active()


def test_only_silent_workers_become_inactive(fleet: Fleet) -> None:
    fleet.beat("silent")
    for _ in range(20):
        fleet.beat("steady")
        fleet.pass_time(5.0)
    assert not fleet.is_active("silent")
    assert fleet.is_active("steady")
    assert fleet.metric("workers", state="active") == 1
    assert fleet.metric("workers", state="inactive") == 1


def test_heartbeat_renews_the_lease_when_it_arrives(fleet: Fleet) -> None:
    fleet.beat()
    fleet.pass_time(29.75)
    fleet.manager.process_heartbeat(heartbeat())
    fleet.pass_time(0.25)
    assert fleet.is_active()
    settle()
    assert fleet.is_active()


def test_lease_runs_from_when_the_transport_received_the_heartbeat(fleet: Fleet) -> None:
    fleet.beat()
    fleet.pass_time(5.0)
    fleet.manager.process_heartbeat(heartbeat(), received_at=fleet.clock.monotonic)
    fleet.clock.advance(0.125)
    settle()
    assert fleet.metric("heartbeat_receipt_to_visible_seconds_sum") == 0.125
    fleet.clock.advance(0.125)
    fleet.pass_time(29.5)
    assert fleet.is_active()
    fleet.pass_time(0.25)
    assert not fleet.is_active()


def test_last_update_is_the_arrival_of_the_heartbeat(fleet: Fleet) -> None:
    fleet.manager.process_heartbeat(heartbeat())
    arrived = fleet.clock.wall
    fleet.clock.advance(2.0)
    settle()
    assert fleet.manager.get_worker_telemetry("rack-7").last_update == arrived


def test_heartbeat_that_waited_too_long_does_not_make_the_worker_active(fleet: Fleet) -> None:
    fleet.manager.process_heartbeat(heartbeat())
    fleet.pass_time(30.0)
    settle()
    assert not fleet.is_active()


@pytest.mark.parametrize("step", [-10 * 365 * 86400.0, -60.0, 60.0, 10 * 365 * 86400.0])
def test_step_of_the_wall_clock_changes_no_state(fleet: Fleet, step: float) -> None:
    fleet.beat("silent")
    fleet.pass_time(60.0)
    fleet.beat("steady")
    fleet.pass_time(20.0)
    fleet.clock.wall += step
    fleet.manager.check_liveness()
    assert (fleet.is_active("silent"), fleet.is_active("steady")) == (False, True)
    fleet.pass_time(9.75)
    assert (fleet.is_active("silent"), fleet.is_active("steady")) == (False, True)
    fleet.pass_time(0.25)
    assert (fleet.is_active("silent"), fleet.is_active("steady")) == (False, False)


def test_clock_of_a_worker_does_not_affect_liveness(fleet: Fleet) -> None:
    fleet.beat(sent_time_unix_seconds=0.0)
    assert fleet.is_active()
    fleet.beat(sent_time_unix_seconds=1e11)
    assert fleet.manager.get_worker_telemetry("rack-7").last_update == fleet.clock.wall
    fleet.pass_time(30.0)
    assert not fleet.is_active()


def test_stall_of_the_master_makes_no_worker_inactive(fleet: Fleet) -> None:
    fleet.beat("a")
    fleet.pass_time(5.0)
    fleet.beat("b")
    fleet.clock.advance(3600.0)  # stopped, or suspended with the machine
    fleet.manager.check_liveness()
    assert fleet.is_active("a")
    assert fleet.is_active("b")
    fleet.pass_time(24.75)
    assert (fleet.is_active("a"), fleet.is_active("b")) == (True, True)
    fleet.pass_time(0.25)
    assert (fleet.is_active("a"), fleet.is_active("b")) == (False, True)


def test_inactive_worker_is_forgotten_after_the_retention_time() -> None:
    with running_fleet(LeaseConfig(retention_seconds=60.0)) as fleet:
        fleet.beat("gone")
        fleet.beat("back")
        fleet.pass_time(30.0)  # both inactive
        fleet.pass_time(59.75)
        fleet.beat("back")
        assert fleet.manager.get_all_worker_telemetry().keys() == {"gone", "back"}
        fleet.pass_time(0.25)
        assert fleet.manager.get_all_worker_telemetry().keys() == {"back"}
        assert fleet.seen.removed == ["gone"]
        fleet.pass_time(29.75)
        assert not fleet.is_active("back")
        fleet.pass_time(59.75)  # its time began anew
        assert fleet.manager.get_all_worker_telemetry().keys() == {"back"}
        fleet.pass_time(0.25)
        assert fleet.manager.get_all_worker_telemetry() == {}


def test_worker_unregistered_meanwhile_is_not_forgotten_again() -> None:
    with running_fleet(LeaseConfig(retention_seconds=60.0)) as fleet:
        fleet.beat()
        fleet.pass_time(30.0)
        fleet.manager.unregister_worker("rack-7")
        fleet.pass_time(60.0)
        assert fleet.seen.removed == ["rack-7"]


def test_lease_config_sets_the_inactivity_timeout() -> None:
    with running_fleet(LeaseConfig(heartbeat_interval_seconds=0.5, inactivity_timeout_seconds=2.0)) as fleet:
        fleet.beat()
        fleet.pass_time(1.75)
        assert fleet.is_active()
        fleet.pass_time(0.25)
        assert not fleet.is_active()


class Fragile:
    """An observer that fails at one worker."""

    def worker_changed(self, telemetry: WorkerTelemetry) -> None:
        if telemetry.worker_id == "rack-1" and not telemetry.is_active:
            raise RuntimeError("failed on inactivity")

    def worker_removed(self, worker_id: str) -> None:
        if worker_id == "rack-1":
            raise RuntimeError("failed on removal")


def test_failing_observer_does_not_stop_the_liveness_check(caplog: pytest.LogCaptureFixture) -> None:
    workers = ["rack-1", "rack-2", "rack-3"]
    later = Recorder()
    with running_fleet(LeaseConfig(), Fragile(), later) as fleet:
        for worker_id in workers:
            fleet.beat(worker_id)
        fleet.pass_time(60.0)
        assert [fleet.is_active(worker_id) for worker_id in workers] == [False, False, False]
        assert [change.worker_id for change in later.changes if not change.is_active] == workers
        for worker_id in workers:
            fleet.manager.unregister_worker(worker_id)
        assert fleet.seen.removed == later.removed == workers
    assert "worker rack-1: an observer failed on a change of it" in caplog.text
    assert "worker rack-1: an observer failed on its removal" in caplog.text
