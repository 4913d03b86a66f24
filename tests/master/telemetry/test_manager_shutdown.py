"""master.telemetry.manager: start and end"""

import gc

import gevent
import pytest
from gevent.event import Event

from fleetpulse.master.config import LeaseConfig
from fleetpulse.master.errors import MasterStopping
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.telemetry.manager import TelemetryManager
from fleetpulse.master.telemetry.records import Clock, WorkerTelemetry
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.fleet import Fleet, ManualClock, heartbeat, settle, wait_until


def living_greenlets(name: str) -> list[str]:
    gc.collect()
    greenlets = [item for item in gc.get_objects() if isinstance(item, gevent.Greenlet)]
    return [greenlet.name for greenlet in greenlets if greenlet.name.startswith(name) and not greenlet.dead]


def test_shutdown_processes_the_queue_and_ends_every_greenlet(fleet: Fleet) -> None:
    called: list[tuple[str, float | None]] = []
    fleet.manager.set_update_callback(
        lambda worker_id, telemetry: called.append((worker_id, telemetry.reading.load.load1))
    )
    fleet.manager.start()
    fleet.beat("idle")
    for value in (1.0, 2.0, 3.0):
        fleet.manager.process_heartbeat(heartbeat("busy", load=pb.Load(load1=value)))
    assert sorted(living_greenlets("telemetry-")) == ["telemetry-busy", "telemetry-idle", "telemetry-liveness"]
    fleet.manager.shutdown()
    assert called == [("idle", None), ("busy", 1.0), ("busy", 2.0), ("busy", 3.0)]
    assert living_greenlets("telemetry-") == []


def hang(_worker_id: str, _telemetry: WorkerTelemetry) -> None:
    Event().wait()


def test_shutdown_kills_greenlets_after_the_timeout(fleet: Fleet) -> None:
    fleet.manager.set_update_callback(hang)
    fleet.beat("hangs")
    with gevent.Timeout(20.0):
        fleet.manager.shutdown(timeout_seconds=0.05)
    assert living_greenlets("telemetry-") == []


def test_shutdown_without_start_and_twice(fleet: Fleet) -> None:
    fleet.beat()
    fleet.manager.shutdown()
    fleet.manager.shutdown()
    assert living_greenlets("telemetry-") == []


def test_registration_after_shutdown_is_refused(fleet: Fleet) -> None:
    fleet.manager.shutdown()
    with pytest.raises(MasterStopping):
        fleet.manager.register_worker("new")
    with pytest.raises(MasterStopping):
        fleet.manager.process_heartbeat(heartbeat("new"))
    assert fleet.metric("heartbeats_rejected_total", reason="stopping") == 1
    assert living_greenlets("telemetry-") == []


class FailingClock(ManualClock):
    """One that fails at the first look."""

    def __init__(self) -> None:
        super().__init__()
        self.has_failed = False

    @property
    def port(self) -> Clock:
        return Clock(monotonic=self.look, wall=lambda: self.wall)

    def look(self) -> float:
        if not self.has_failed:
            self.has_failed = True
            raise RuntimeError("the clock stands")
        return self.monotonic


def test_liveness_check_continues_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    clock = FailingClock()
    manager = TelemetryManager(LeaseConfig(inactivity_timeout_seconds=0.5), Instruments(), clock=clock.port)
    manager.start()
    wait_until(lambda: "the check for silent workers failed" in caplog.text)
    manager.register_worker("rack-7")
    clock.advance(0.75)  # less than what counts as a stall
    wait_until(lambda: not manager.get_worker_telemetry("rack-7").is_active)
    assert manager.health_error() is None
    manager.shutdown()


def test_health_error_until_the_liveness_check_runs(fleet: Fleet) -> None:
    assert fleet.manager.health_error() == "nobody watches for silent workers"
    fleet.manager.start()
    settle()
    assert fleet.manager.health_error() is None
    fleet.manager.shutdown()
    assert fleet.manager.health_error() == "nobody watches for silent workers"
