"""master.telemetry.lazy"""

from collections.abc import Iterator
from contextlib import contextmanager

import gevent
import pytest

from fleetpulse.master.telemetry.demand import DEMAND_SECONDS, LEAD_SECONDS
from fleetpulse.master.telemetry.lazy import BATCH_SECONDS, LazyView
from fleetpulse.master.telemetry.ports import Clock
from fleetpulse.master.telemetry.records import HeartbeatCounts, Reading, Registration, WorkerTelemetry
from tests.master.fleet import ManualClock, wait_until


class Loads(LazyView):
    """Shows the load of every worker, and keeps what it rendered."""

    def __init__(self, clock: Clock = Clock()) -> None:  # noqa: B008 - an immutable pair of functions
        super().__init__(clock)
        self.rendered: list[tuple[str, float | None]] = []
        self.removed: list[str] = []

    def render(self, telemetry: WorkerTelemetry) -> None:
        if telemetry.reading.load1 == -1.0:
            raise RuntimeError("nobody can render this")
        self.rendered.append((telemetry.worker_id, telemetry.reading.load1))

    def remove(self, worker_id: str) -> None:
        self.removed.append(worker_id)


def loaded(worker_id: str, load: float) -> WorkerTelemetry:
    return WorkerTelemetry(worker_id, Registration(), 0.0, True, 0.0, Reading(load1=load), HeartbeatCounts(), 1)


def test_a_change_is_rendered_when_somebody_reads() -> None:
    view = Loads()
    view.worker_changed(loaded("a", 1.0))
    assert view.rendered == []
    view.catch_up()
    view.catch_up()
    assert view.rendered == [("a", 1.0)]


def test_of_several_changes_the_last_is_rendered() -> None:
    view = Loads()
    for worker_id, load in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        view.worker_changed(loaded(worker_id, load))
    view.catch_up()
    assert view.rendered == [("a", 3.0), ("b", 2.0)]


def test_a_worker_that_was_removed_is_not_rendered_any_more() -> None:
    view = Loads()
    view.worker_changed(loaded("a", 1.0))
    view.worker_removed("a")
    view.catch_up()
    assert view.rendered == []
    assert view.removed == ["a"]
    view.worker_changed(loaded("a", 2.0))
    view.catch_up()
    assert view.rendered == [("a", 2.0)]


def test_a_worker_that_cannot_be_rendered_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    view = Loads()
    for worker_id, load in (("a", 1.0), ("b", -1.0), ("c", 3.0)):
        view.worker_changed(loaded(worker_id, load))
    view.catch_up()
    assert view.rendered == [("a", 1.0), ("c", 3.0)]
    assert "worker b: its telemetry could not be rendered" in caplog.text


def test_of_one_worker_only_its_own_change_is_rendered() -> None:
    view = Loads()
    for worker_id, load in (("a", 1.0), ("b", 2.0)):
        view.worker_changed(loaded(worker_id, load))
    view.catch_up_with("b")
    view.catch_up_with("b")
    view.catch_up_with("stranger")
    assert view.rendered == [("b", 2.0)]
    view.catch_up()
    assert view.rendered == [("b", 2.0), ("a", 1.0)]


def test_two_who_read_at_once_are_both_ahead_of_the_table() -> None:
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


def test_while_somebody_reads_now_and_then_changes_are_rendered_in_the_background() -> None:
    view = Loads(ManualClock().port)
    with started(view):
        view.catch_up()
        for load in (1.0, 2.0):
            view.worker_changed(loaded("a", load))
            wait_until(lambda: ("a", load) in view.rendered)  # noqa: B023 - called in this round of the loop
    assert view._renderer is not None
    assert view._renderer.dead


def test_what_nobody_reads_is_not_rendered_until_somebody_does() -> None:
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


def test_what_is_read_in_a_rhythm_is_rendered_shortly_before() -> None:
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


def test_a_view_that_was_never_started_can_be_stopped() -> None:
    Loads().stop()
