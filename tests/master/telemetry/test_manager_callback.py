"""master.telemetry.manager: the callback that receives every update"""

import gevent
import pytest
from gevent.event import Event

from fleetpulse.master.config import LeaseConfig
from fleetpulse.master.telemetry.records import WorkerTelemetry
from fleetpulse.proto import fleetpulse_pb2 as pb
from tests.master.fleet import Fleet, heartbeat, running_fleet, settle


class Failing:
    """Raises for one worker and keeps the worker ids of the other calls."""

    def __init__(self, failing_worker: str, error: BaseException) -> None:
        self.called: list[str] = []
        self._failing_worker = failing_worker
        self._error = error

    def __call__(self, worker_id: str, telemetry: WorkerTelemetry) -> None:
        if worker_id == self._failing_worker:
            raise self._error
        self.called.append(worker_id)


def test_callback_gets_every_update_in_the_greenlet_of_its_worker(fleet: Fleet) -> None:
    called: list[tuple[str, float | None, str]] = []

    def callback(worker_id: str, telemetry: WorkerTelemetry) -> None:
        greenlet = gevent.getcurrent()
        assert isinstance(greenlet, gevent.Greenlet)
        assert telemetry == fleet.manager.get_worker_telemetry(worker_id)
        called.append((worker_id, telemetry.reading.load.load1, greenlet.name))

    fleet.manager.set_update_callback(callback)
    for value in (1.0, 2.0):
        fleet.manager.process_heartbeat(heartbeat("a", load=pb.Load(load1=value)))
    fleet.manager.process_heartbeat(heartbeat("b"))
    settle()
    assert called == [("a", 1.0, "telemetry-a"), ("a", 2.0, "telemetry-a"), ("b", None, "telemetry-b")]


def test_heartbeats_are_processed_without_a_callback(fleet: Fleet) -> None:
    called: list[str] = []
    fleet.manager.set_update_callback(lambda worker_id, _: called.append(worker_id))
    fleet.manager.set_update_callback(None)
    fleet.beat(load=pb.Load(load1=1.0))
    assert fleet.manager.get_worker_telemetry("rack-7").reading.load.load1 == 1.0
    assert called == []


def check_that_a_failure_stays_alone(fleet: Fleet, error: BaseException) -> None:
    callback = Failing("a", error)
    fleet.manager.set_update_callback(callback)
    for value in (1.0, 2.0):
        fleet.beat("a", load=pb.Load(load1=value))
        fleet.beat("b")
    assert fleet.manager.get_worker_telemetry("a").reading.load.load1 == 2.0
    assert callback.called == ["b", "b"]
    assert fleet.metric("update_callback_failures_total") == 2


def test_exception_of_the_callback_is_logged_and_counted(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    check_that_a_failure_stays_alone(fleet, RuntimeError("the disk is full"))
    records = [record for record in caplog.records if record.message == "worker a: the update callback failed"]
    assert len(records) == 2
    assert "the disk is full" in caplog.text


def test_gevent_timeout_of_the_callback_is_counted(fleet: Fleet) -> None:
    check_that_a_failure_stays_alone(fleet, gevent.Timeout(1.0))


def test_blocking_callback_delays_only_its_own_worker() -> None:
    go_on = Event()

    def callback(worker_id: str, _telemetry: WorkerTelemetry) -> None:
        if worker_id == "slow":
            go_on.wait()

    with running_fleet(LeaseConfig(queue_length=2)) as fleet:
        fleet.manager.set_update_callback(callback)
        for value in (1.0, 2.0, 3.0, 4.0):
            fleet.beat("slow", load=pb.Load(load1=value))
            fleet.beat("quick", load=pb.Load(load1=value))
        assert fleet.manager.get_worker_telemetry("quick").reading.load.load1 == 4.0
        # The first is visible although its callback hangs; of the other three the queue holds the newest two.
        assert fleet.manager.get_worker_telemetry("slow").reading.load.load1 == 1.0
        assert fleet.metric("heartbeats_dropped_total") == 1
        go_on.set()
        settle()
        assert fleet.manager.get_worker_telemetry("slow").reading.load.load1 == 4.0
        assert fleet.manager.get_worker_telemetry("slow").counts.dropped == 1


def test_callback_can_unregister_its_own_worker(fleet: Fleet) -> None:
    fleet.manager.set_update_callback(lambda worker_id, _: fleet.manager.unregister_worker(worker_id))
    fleet.manager.process_heartbeat(heartbeat())
    fleet.manager.process_heartbeat(heartbeat())
    settle()
    assert fleet.manager.get_all_worker_telemetry() == {}
    assert fleet.metric("update_callback_failures_total") == 0


def test_worker_can_return_while_its_old_callback_hangs(fleet: Fleet) -> None:
    go_on = Event()

    def callback(_worker_id: str, _telemetry: WorkerTelemetry) -> None:
        go_on.wait()

    fleet.manager.set_update_callback(callback)
    fleet.beat(load=pb.Load(load1=1.0))
    fleet.manager.process_heartbeat(heartbeat(load=pb.Load(load1=2.0)))
    fleet.manager.unregister_worker("rack-7")
    fleet.beat(load=pb.Load(load1=3.0))
    go_on.set()
    settle()
    assert fleet.manager.get_worker_telemetry("rack-7").reading.load.load1 == 3.0
    assert 2.0 not in [telemetry.reading.load.load1 for telemetry in fleet.seen.changes]
