"""master.telemetry.manager: start and end"""

import gc
import time

import gevent
import pytest
from gevent.event import Event

from master.config import Terms
from master.errors import MasterStopping
from master.telemetry.records import WorkerTelemetry
from proto import fleetpulse_pb2 as pb
from tests.master.fleet import Fleet, heartbeat, running_fleet, settle, wait_until


def living_greenlets(name: str) -> list[str]:
    gc.collect()
    greenlets = [item for item in gc.get_objects() if isinstance(item, gevent.Greenlet)]
    return [greenlet.name for greenlet in greenlets if greenlet.name.startswith(name) and not greenlet.dead]


def test_what_is_queued_is_processed_and_every_greenlet_ends(fleet: Fleet) -> None:
    told: list[tuple[str, float | None]] = []
    fleet.manager.set_update_callback(lambda worker_id, telemetry: told.append((worker_id, telemetry.reading.load1)))
    fleet.manager.start()
    fleet.beat("idle")
    for value in (1.0, 2.0, 3.0):
        fleet.manager.process_heartbeat(heartbeat("busy", load=pb.Load(load1=value)))
    assert sorted(living_greenlets("telemetry-")) == ["telemetry-busy", "telemetry-idle", "telemetry-liveness"]
    fleet.manager.shutdown()
    assert told == [("idle", None), ("busy", 1.0), ("busy", 2.0), ("busy", 3.0)]
    assert living_greenlets("telemetry-") == []


def hang(_worker_id: str, _telemetry: WorkerTelemetry) -> None:
    Event().wait()


def test_shutdown_does_not_wait_longer_than_it_was_told(fleet: Fleet) -> None:
    fleet.manager.set_update_callback(hang)
    fleet.beat("hangs")
    started = time.monotonic()
    fleet.manager.shutdown(timeout_seconds=0.05)
    assert time.monotonic() - started < 1.0
    assert living_greenlets("telemetry-") == []


def test_shutdown_without_start_and_twice(fleet: Fleet) -> None:
    fleet.beat()
    fleet.manager.shutdown()
    fleet.manager.shutdown()
    assert living_greenlets("telemetry-") == []


def test_who_comes_too_late_is_told_that_the_master_stops(fleet: Fleet) -> None:
    fleet.manager.shutdown()
    with pytest.raises(MasterStopping):
        fleet.manager.register_worker("new")
    with pytest.raises(MasterStopping):
        fleet.manager.process_heartbeat(heartbeat("new"))
    assert fleet.metric("heartbeats_rejected_total", reason="stopping") == 1
    assert living_greenlets("telemetry-") == []


class FailingOnce:
    """An observer that fails at the first worker that it sees turn inactive."""

    def __init__(self) -> None:
        self.has_failed = False

    def worker_changed(self, telemetry: WorkerTelemetry) -> None:
        if not telemetry.is_active and not self.has_failed:
            self.has_failed = True
            raise RuntimeError("the view is broken")

    def worker_removed(self, worker_id: str) -> None:
        pass


def test_the_checker_goes_on_by_itself_whatever_happens(caplog: pytest.LogCaptureFixture) -> None:
    terms = Terms(heartbeat_interval_seconds=0.1, inactivity_timeout_seconds=0.5)
    with running_fleet(terms, FailingOnce()) as fleet:
        fleet.manager.start()
        fleet.manager.check_liveness()
        for worker_id in ("first", "second"):
            fleet.beat(worker_id)
            fleet.clock.advance(0.75)  # less than what counts as a stall
            wait_until(lambda: not fleet.is_active(worker_id))  # noqa: B023 - called in this round of the loop
        assert "the check for silent workers failed" in caplog.text
        assert fleet.manager.what_is_wrong() is None


def test_health_is_a_checker_that_lives(fleet: Fleet) -> None:
    assert fleet.manager.what_is_wrong() == "nobody watches for silent workers"
    fleet.manager.start()
    settle()
    assert fleet.manager.what_is_wrong() is None
    fleet.manager.shutdown()
    assert fleet.manager.what_is_wrong() == "nobody watches for silent workers"
