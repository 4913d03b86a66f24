"""master.api.stream_rounds"""

from typing import NamedTuple

import gevent
import pytest

from fleetpulse.master.api.stream_events import EventEncoder
from fleetpulse.master.api.stream_rounds import Broadcaster, Timing
from fleetpulse.master.telemetry.change_log import ChangeLog
from tests.master.fleet import Fleet, wait_until

PAUSE_SECONDS = 0.02


class Listener:
    """A ``Reader`` that keeps what it is told."""

    def __init__(self, *, is_choosy: bool = False) -> None:
        self.is_choosy = is_choosy
        self.told: list[tuple[int, frozenset[str] | None]] = []
        self.cuts = 0
        self.stalled = 0.0

    def tell(self, revision: int, recent: frozenset[str] | None) -> None:
        self.told.append((revision, recent))

    def stalled_seconds(self, now: float) -> float:
        return self.stalled

    def cut(self) -> None:
        self.cuts += 1
        self.stalled = 0.0


class Given(NamedTuple):
    fleet: Fleet
    changes: ChangeLog
    rounds: Broadcaster
    cuts: list[int]


@pytest.fixture
def given(fleet: Fleet) -> Given:
    changes = ChangeLog()
    fleet.manager.add_observer(changes)
    cuts: list[int] = []
    composer = EventEncoder("boot", lambda worker_id: b"")
    return Given(
        fleet, changes, Broadcaster(changes, [composer], Timing(PAUSE_SECONDS, 15.0, 0.4), lambda: cuts.append(1)), cuts
    )


def test_without_news_nobody_is_woken(given: Given) -> None:
    listener = Listener()
    given.rounds.join(listener)
    gevent.sleep(10 * PAUSE_SECONDS)
    assert listener.told == []
    given.fleet.beat("a")
    wait_until(lambda: listener.told != [])
    # What happens until the next round is told in it, once.
    told = len(listener.told)
    for _ in range(20):
        given.fleet.beat("a")
    wait_until(lambda: listener.told[-1][0] == given.changes.revision)
    assert len(listener.told) <= told + 2
    given.rounds.leave(listener)


def test_who_changed_is_told_where_somebody_is_choosy(given: Given) -> None:
    everything, choosy = Listener(), Listener(is_choosy=True)
    given.fleet.beat("before")
    given.rounds.join(everything)
    given.fleet.beat("a")
    wait_until(lambda: everything.told[-1:] == [(given.changes.revision, None)])
    given.rounds.join(choosy)
    given.fleet.beat("b")
    given.fleet.manager.unregister_worker("a")
    wait_until(lambda: bool(choosy.told) and choosy.told[-1][0] == given.changes.revision)
    assert frozenset[str]().union(*(recent or () for _, recent in choosy.told)) == {"a", "b"}
    for listener in (everything, choosy):
        given.rounds.leave(listener)


def test_all_who_are_as_far_share_a_window(given: Given) -> None:
    listener = Listener()
    given.fleet.beat("a")
    revision = given.changes.revision
    given.fleet.beat("b")
    given.rounds.join(listener)
    wait_until(lambda: listener.told != [])
    assert given.rounds.since(revision) is given.rounds.since(revision)
    assert list(given.rounds.since(revision).worker_ids) == ["b"]
    assert given.rounds.everybody() is given.rounds.everybody()
    old = given.rounds.everybody()
    given.fleet.beat("c")
    assert given.rounds.everybody() is not old
    wait_until(lambda: list(given.rounds.since(revision).worker_ids) == ["b", "c"])
    given.rounds.leave(listener)


def test_who_stalls_for_too_long_is_cut_and_counted(given: Given) -> None:
    slow, stalled = Listener(), Listener()
    slow.stalled, stalled.stalled = 0.3, 0.5
    for listener in (slow, stalled):
        given.rounds.join(listener)
    # Nothing changes meanwhile.
    wait_until(lambda: stalled.cuts == 1)
    assert (slow.cuts, len(given.cuts)) == (0, 1)
    for listener in (slow, stalled):
        given.rounds.leave(listener)


def test_the_greenlet_is_there_while_there_are_readers(given: Given) -> None:
    one, other = Listener(), Listener()
    given.rounds.leave(one)
    for listener in (one, other):
        given.rounds.join(listener)
    ticker = given.rounds._ticker
    assert ticker is not None
    given.rounds.leave(one)
    given.rounds.leave(one)
    gevent.idle()
    assert not ticker.dead
    given.rounds.leave(other)
    wait_until(lambda: ticker.dead)
    given.rounds.join(one)
    given.fleet.beat("a")
    wait_until(lambda: one.told != [])
    given.rounds.leave(one)


def test_a_reader_that_fails_is_logged_and_the_rounds_go_on(given: Given, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Listener):
        def tell(self, revision: int, recent: frozenset[str] | None) -> None:
            raise RuntimeError("no")

    failing, listener = Failing(), Listener()
    given.rounds.join(failing)
    given.fleet.beat("a")
    wait_until(lambda: "a round of the stream failed" in caplog.text)
    given.rounds.leave(failing)
    given.rounds.join(listener)
    given.fleet.beat("a")
    wait_until(lambda: listener.told != [])
    given.rounds.leave(listener)
