"""master.telemetry.lazy_view"""

from collections.abc import Iterator
from contextlib import contextmanager

import gevent
import pytest
from msgspec.structs import replace

from fleetpulse.master.telemetry.lazy_view import BATCH_SECONDS, DEMAND_SECONDS, LEAD_SECONDS, LazyView, ReadRhythm
from fleetpulse.master.telemetry.readings import Load, Reading
from fleetpulse.master.telemetry.records import Clock, HeartbeatCounts, Registration, WorkerTelemetry
from tests.master.fleet import ManualClock, wait_until


class Loads(LazyView):
    """Shows the load of every worker, and keeps what it rendered."""

    def __init__(self, clock: Clock = Clock()) -> None:  # noqa: B008 - an immutable pair of functions
        super().__init__(clock)
        self.rendered: list[tuple[str, float | None]] = []
        self.removed: list[str] = []

    def render(self, telemetry: WorkerTelemetry) -> None:
        if telemetry.reading.load.load1 == -1.0:
            raise RuntimeError("this cannot be rendered")
        self.rendered.append((telemetry.worker_id, telemetry.reading.load.load1))

    def remove(self, worker_id: str) -> None:
        self.removed.append(worker_id)


def loaded(worker_id: str, load: float) -> WorkerTelemetry:
    return WorkerTelemetry(
        worker_id, Registration(), 0.0, True, 0.0, Reading(load=Load(load1=load)), HeartbeatCounts(), 1
    )


def test_change_is_rendered_by_the_next_read() -> None:
    view = Loads()
    view.worker_changed(loaded("a", 1.0))
    assert view.rendered == []
    view.catch_up()
    view.catch_up()
    assert view.rendered == [("a", 1.0)]


def test_only_the_last_of_several_changes_is_rendered() -> None:
    view = Loads()
    for worker_id, load in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        view.worker_changed(loaded(worker_id, load))
    view.catch_up()
    assert view.rendered == [("a", 3.0), ("b", 2.0)]


def test_removed_worker_is_not_rendered() -> None:
    view = Loads()
    view.worker_changed(loaded("a", 1.0))
    view.worker_removed("a")
    view.catch_up()
    assert view.rendered == []
    assert view.removed == ["a"]
    view.worker_changed(loaded("a", 2.0))
    view.catch_up()
    assert view.rendered == [("a", 2.0)]


def test_failure_to_render_one_worker_affects_no_other(caplog: pytest.LogCaptureFixture) -> None:
    view = Loads()
    for worker_id, load in (("a", 1.0), ("b", -1.0), ("c", 3.0)):
        view.worker_changed(loaded(worker_id, load))
    view.catch_up()
    assert view.rendered == [("a", 1.0), ("c", 3.0)]
    assert "worker b: its telemetry could not be rendered" in caplog.text


def test_catching_up_with_one_worker_renders_that_worker_only() -> None:
    view = Loads()
    for worker_id, load in (("a", 1.0), ("b", 2.0)):
        view.worker_changed(loaded(worker_id, load))
    view.catch_up_with("b")
    view.catch_up_with("b")
    view.catch_up_with("stranger")
    assert view.rendered == [("b", 2.0)]
    view.catch_up()
    assert view.rendered == [("b", 2.0), ("a", 1.0)]


def test_concurrent_readers_both_see_every_change() -> None:
    view = Loads()
    for number in range(1000):
        view.worker_changed(loaded(f"rack-{number}", number))
    seen = []

    def read() -> None:
        view.catch_up()
        seen.append(len(view.rendered))

    gevent.joinall([gevent.spawn(read), gevent.spawn(read)], raise_error=True)
    assert seen == [1000, 1000]


@contextmanager
def started(view: Loads) -> Iterator[None]:
    view.start()
    try:
        yield
    finally:
        view.stop()


def test_view_in_demand_is_rendered_in_the_background() -> None:
    view = Loads(ManualClock().port)
    with started(view):
        view.catch_up()
        for load in (1.0, 2.0):
            view.worker_changed(loaded("a", load))
            wait_until(lambda: ("a", load) in view.rendered)  # noqa: B023 - called in this round of the loop
    assert view._renderer is not None
    assert view._renderer.dead


def test_view_without_demand_is_not_rendered_until_read() -> None:
    clock = ManualClock()
    view = Loads(clock.port)
    with started(view):
        view.catch_up()
        gevent.sleep(2 * BATCH_SECONDS)
        clock.advance(DEMAND_SECONDS)
        view.worker_changed(loaded("a", 1.0))
        gevent.sleep(4 * BATCH_SECONDS)
        assert view.rendered == []
        view.catch_up()
        assert view.rendered == [("a", 1.0)]


class AheadLoads(Loads):
    """The same, rendered ahead."""

    renders_ahead = True

    settled = 0

    def settle(self) -> None:
        self.settled = len(self.rendered)

    def has_rendered(self, worker_id: str) -> bool:
        return any(worker_id == rendered for rendered, _ in self.rendered)


def beaten(worker_id: str, load: float) -> WorkerTelemetry:
    return replace(loaded(worker_id, load), counts=HeartbeatCounts(received=1))


def test_view_that_renders_ahead_renders_each_worker_once_before_the_first_read() -> None:
    view = AheadLoads()
    with started(view):
        view.worker_changed(loaded("silent", 0.0))
        for number in range(300):
            view.worker_changed(beaten(f"rack-{number}", 1.0))
        turns = 0
        with gevent.Timeout(20.0):
            while len(view.rendered) < 300:
                gevent.sleep(0)
                turns += 1
        # One worker at a time, with a turn for everybody else in between.
        assert turns >= 300
        view.worker_changed(beaten("rack-0", 2.0))
        view.worker_changed(beaten("silent", 3.0))
        wait_until(lambda: view.has_rendered("silent"))
        assert ("rack-0", 2.0) not in view.rendered
        before = len(view.rendered)
        view.catch_up()
        assert len(view.rendered) == before + 301
        view.worker_changed(beaten("rack-1", 4.0))
        wait_until(lambda: ("rack-1", 4.0) in view.rendered)


def test_view_that_renders_ahead_settles_when_nobody_comes_any_more() -> None:
    view = AheadLoads()
    with started(view):
        view.worker_changed(beaten("a", 1.0))
        wait_until(lambda: view.settled == 1)
        view.worker_changed(beaten("b", 1.0))
        wait_until(lambda: view.settled == 2)


def test_worker_that_left_is_not_rendered_ahead() -> None:
    view = AheadLoads()
    with started(view):
        view.worker_changed(beaten("a", 1.0))
        view.worker_removed("a")
        view.worker_changed(beaten("b", 1.0))
        wait_until(lambda: view.has_rendered("b"))
        assert not view.has_rendered("a")


def test_view_with_regular_reads_is_rendered_shortly_before_the_next() -> None:
    clock = ManualClock()
    view = Loads(clock.port)
    with started(view):
        for _ in range(5):
            view.catch_up()
            clock.advance(15.0)
        view.catch_up()
        view.worker_changed(loaded("a", 1.0))
        gevent.sleep(4 * BATCH_SECONDS)
        assert view.rendered == []
        view.worker_changed(loaded("a", 2.0))
        clock.advance(15.0 - LEAD_SECONDS)
        wait_until(lambda: view.rendered == [("a", 2.0)])


def test_view_that_was_never_started_can_be_stopped() -> None:
    Loads().stop()


# When the next read is expected


def read_at(*times: float) -> ReadRhythm:
    rhythm = ReadRhythm()
    for time in times:
        rhythm.note_read(time)
    return rhythm


def test_view_without_reads_is_not_in_demand() -> None:
    rhythm = ReadRhythm()
    assert not rhythm.in_demand(0.0)
    assert rhythm.quiet_seconds(0.0) == 0.0


def test_read_keeps_a_view_in_demand_for_a_while() -> None:
    rhythm = read_at(100.0)
    assert rhythm.in_demand(100.0)
    assert rhythm.in_demand(99.75 + DEMAND_SECONDS)
    assert not rhythm.in_demand(100.0 + DEMAND_SECONDS)


def test_one_read_predicts_nothing() -> None:
    assert read_at(100.0).quiet_seconds(100.0) == 0.0


def test_next_read_is_expected_after_the_same_interval() -> None:
    rhythm = read_at(100.0, 115.0)
    assert rhythm.quiet_seconds(115.0) == 15.0 - LEAD_SECONDS
    assert rhythm.quiet_seconds(120.0) == 10.0 - LEAD_SECONDS
    assert rhythm.quiet_seconds(130.0 - LEAD_SECONDS) == 0.0
    assert rhythm.quiet_seconds(140.0) == 0.0


@pytest.mark.parametrize("interval", [0.1, LEAD_SECONDS])
def test_frequent_reads_are_expected_at_any_time(interval: float) -> None:
    assert read_at(100.0, 100.0 + interval).quiet_seconds(100.0 + interval) == 0.0


def test_with_several_readers_the_shortest_interval_counts() -> None:
    rhythm = read_at(100.0, 104.0, 115.0, 119.0, 130.0)
    assert rhythm.quiet_seconds(130.0) == 4.0 - LEAD_SECONDS


def test_old_intervals_are_forgotten() -> None:
    rhythm = read_at(100.0, 101.5, 116.5, 131.5, 146.5, 161.5)
    assert rhythm.quiet_seconds(161.5) == 15.0 - LEAD_SECONDS


def test_intervals_are_forgotten_without_demand() -> None:
    rhythm = read_at(100.0, 115.0)
    assert rhythm.quiet_seconds(115.0 + DEMAND_SECONDS) == 0.0
    rhythm.note_read(115.0 + DEMAND_SECONDS)
    assert rhythm.quiet_seconds(115.0 + DEMAND_SECONDS) == 0.0
