"""master.telemetry.processing: a greenlet for each worker that has something to process"""

import gevent
import pytest
from gevent.event import Event

from master.telemetry.processing import MOST_RESTING
from master.telemetry.records import WorkerTelemetry
from tests.master.fleet import Fleet, heartbeat, settle, wait_until
from tests.master.telemetry.greenlets import living_greenlets

NAMES = [f"rack-{number}" for number in range(100)]


def beat_all(fleet: Fleet) -> None:
    for name in NAMES:
        fleet.manager.process_heartbeat(heartbeat(name))
    settle()


def test_who_waits_has_a_greenlet_and_nobody_else_waits(fleet: Fleet) -> None:
    go_on = Event()
    told: list[str] = []

    def callback(worker_id: str, _telemetry: WorkerTelemetry) -> None:
        if worker_id != "quick":
            go_on.wait()
        told.append(worker_id)

    fleet.manager.set_update_callback(callback)
    beat_all(fleet)
    fleet.beat("quick")
    assert told == ["quick"]
    assert {f"telemetry-{name}" for name in NAMES} <= set(living_greenlets("telemetry-"))
    go_on.set()
    settle()
    assert sorted(told) == sorted([*NAMES, "quick"])
    assert set(living_greenlets("telemetry-")) == {"telemetry-resting"}
    assert len(living_greenlets("telemetry-")) <= MOST_RESTING


def test_those_who_do_not_wait_share_two_greenlets(fleet: Fleet) -> None:
    for _ in range(3):
        beat_all(fleet)
    assert [fleet.manager.get_worker_telemetry(name).counts.received for name in NAMES] == [3] * len(NAMES)
    assert living_greenlets("telemetry-") == ["telemetry-resting"] * 2


def test_a_burst_lets_others_have_their_turn(fleet: Fleet) -> None:
    seen: list[int] = []

    def look() -> None:
        while len(fleet.seen.changes) < 2 * len(NAMES):
            seen.append(len(fleet.seen.changes))
            gevent.sleep(0)

    for name in NAMES:
        fleet.manager.process_heartbeat(heartbeat(name))
    gevent.spawn(look).join(5.0)
    assert len(set(seen)) > 10


@pytest.mark.parametrize("error", [gevent.GreenletExit(), RuntimeError("no")], ids=["killed", "failed"])
def test_a_greenlet_that_ends_takes_nobody_with_it(fleet: Fleet, error: BaseException) -> None:
    told: list[str] = []

    def callback(worker_id: str, _telemetry: WorkerTelemetry) -> None:
        told.append(worker_id)
        if len(told) == 1:
            raise error

    fleet.manager.set_update_callback(callback)
    beat_all(fleet)
    beat_all(fleet)
    assert sorted(told) == sorted(NAMES * 2)


def test_what_comes_after_the_end_is_not_processed(fleet: Fleet) -> None:
    fleet.beat()
    fleet.manager.shutdown()
    fleet.manager.process_heartbeat(heartbeat())
    settle()
    assert fleet.manager.get_worker_telemetry("rack-7").counts.received == 1
    assert living_greenlets("telemetry-") == []


def test_a_timeout_that_a_callback_leaves_behind_stops_nobody(fleet: Fleet) -> None:
    left_behind: list[gevent.Timeout] = []

    def callback(worker_id: str, _telemetry: WorkerTelemetry) -> None:
        if worker_id == "careless":
            left_behind.append(gevent.Timeout.start_new(0.01))

    fleet.manager.set_update_callback(callback)
    for _ in range(3):
        fleet.beat("careless")
        wait_until(lambda: not left_behind[-1].pending)
        beat_all(fleet)
    assert [fleet.manager.get_worker_telemetry(name).counts.received for name in NAMES] == [3] * len(NAMES)
