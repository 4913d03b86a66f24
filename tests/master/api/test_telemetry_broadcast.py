"""master.api.stream_events"""

import json
from collections import Counter
from typing import NamedTuple

import gevent
import pytest

from fleetpulse.master.api.telemetry_broadcast import (
    CACHED_CHUNKS,
    CHUNK_BYTES,
    REMOVALS_PER_EVENT,
    Broadcaster,
    EventEncoder,
    Timing,
)
from fleetpulse.master.telemetry.change_log import ChangeLog, ChangeWindow
from tests.master.fleet import Fleet, wait_until

RECORD_BYTES = 1000


class Records:
    """Makes a record of every worker but those that are gone, and counts that."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()
        self.gone: set[str] = set()

    def member(self, worker_id: str) -> bytes | None:
        if worker_id in self.gone:
            return None
        self.made[worker_id] += 1
        return b'"%b":"%b"' % (worker_id.encode(), b"x" * (RECORD_BYTES - len(worker_id) - 5))


def names(number: int) -> list[str]:
    return [f"worker-{index}" for index in range(number)]


def update(number: int) -> ChangeWindow:
    return ChangeWindow(names(number), [10 + index for index in range(number)], (), 9999)


def parsed(event: bytes | None) -> tuple[str, str | None, dict[str, object]]:
    """Kind, id and data as a reader has them."""
    assert event is not None
    assert event.endswith(b"\n\n")
    fields = dict(line.split(": ", 1) for line in event.decode().strip().split("\n"))
    return fields["event"], fields.get("id"), json.loads(fields["data"])


def test_chunk_is_encoded_once_for_all_readers() -> None:
    records = Records()
    encoder, window = EventEncoder("boot", records.member), update(10)
    first = encoder.chunk(window, 0)
    assert all(encoder.chunk(window, 0) is first for _ in range(200))
    assert set(records.made.values()) == {1}
    # Another window is another, though it says the same, and so is what comes after a round.
    encoder.chunk(update(10), 0)
    encoder.clear()
    encoder.chunk(window, 0)
    assert set(records.made.values()) == {3}


def test_chunks_are_bounded_and_have_the_revision_they_reach() -> None:
    encoder, window = EventEncoder("boot", Records().member), update(200)
    start, ids, workers = 0, [], []
    while start < 200:
        chunk = encoder.chunk(window, start)
        kind, event_id, data = parsed(chunk.event)
        assert kind == "update"
        assert chunk.event is not None
        assert len(chunk.event) < CHUNK_BYTES + RECORD_BYTES + 100
        assert isinstance(data["workers"], dict)
        workers += list(data["workers"])
        ids.append((chunk.stop, event_id))
        start = chunk.stop
    assert workers == names(200)
    assert len(ids) == 4
    assert [event_id for stop, event_id in ids[:-1]] == [f"boot-{10 + stop - 1}" for stop, _ in ids[:-1]]
    assert ids[-1] == (200, "boot-9999")


def test_only_the_last_chunk_of_a_snapshot_has_an_id() -> None:
    encoder, window = EventEncoder("boot", Records().member), ChangeWindow(names(100), None, (), 9999)
    first = encoder.chunk(window, 0)
    kind, event_id, data = parsed(first.event)
    assert (kind, event_id, data["complete"]) == ("snapshot", None, False)
    last = encoder.chunk(window, first.stop)
    kind, event_id, data = parsed(last.event)
    assert (kind, event_id, data["complete"], last.stop) == ("snapshot", "boot-9999", True, 100)


def test_empty_window_makes_a_snapshot_but_no_update() -> None:
    records = Records()
    records.gone = {"worker-0", "worker-1"}
    encoder = EventEncoder("boot", records.member)
    assert encoder.chunk(update(2), 0) == (None, 2)
    for window in (ChangeWindow([], None, (), 7), ChangeWindow(names(2), None, (), 7)):
        assert parsed(encoder.chunk(window, 0).event) == ("snapshot", "boot-7", {"workers": {}, "complete": True})


def test_removals_are_split_and_only_the_last_has_an_id() -> None:
    encoder = EventEncoder("boot", Records().member)
    left = names(REMOVALS_PER_EVENT + 1)
    events = [parsed(event) for event in encoder.removed(ChangeWindow((), (), left, 9))]
    assert events == [
        ("removed", None, {"worker_ids": left[:-1]}),
        ("removed", "boot-9", {"worker_ids": left[-1:]}),
    ]
    assert [parsed(event)[1] for event in encoder.removed(ChangeWindow(["a"], [8], left, 9))] == [None, None]
    assert encoder.removed(update(3)) == []


def test_chunk_cache_is_bounded() -> None:
    records = Records()
    encoder, windows = EventEncoder("boot", records.member), [update(1) for _ in range(CACHED_CHUNKS + 1)]
    for window in windows:
        encoder.chunk(window, 0)
        encoder.chunk(windows[0], 0)
    assert records.made["worker-0"] == CACHED_CHUNKS + 1
    assert len(encoder._cache) == CACHED_CHUNKS


PAUSE_SECONDS = 0.02


class FakeReader:
    """A ``Reader`` that keeps what it is told."""

    def __init__(self, *, is_filtered: bool = False) -> None:
        self.is_filtered = is_filtered
        self.notified: list[tuple[int, frozenset[str] | None]] = []
        self.disconnects = 0
        self.stalled = 0.0

    def notify(self, revision: int, changed: frozenset[str] | None) -> None:
        self.notified.append((revision, changed))

    def stalled_seconds(self, now: float) -> float:
        return self.stalled

    def disconnect(self) -> None:
        self.disconnects += 1
        self.stalled = 0.0


class Given(NamedTuple):
    fleet: Fleet
    changes: ChangeLog
    broadcaster: Broadcaster
    disconnects: list[int]


@pytest.fixture
def given(fleet: Fleet) -> Given:
    changes = ChangeLog()
    fleet.manager.add_observer(changes)
    disconnects: list[int] = []
    encoder = EventEncoder("boot", lambda worker_id: b"")
    return Given(
        fleet,
        changes,
        Broadcaster(changes, [encoder], Timing(PAUSE_SECONDS, 15.0, 0.4), lambda: disconnects.append(1)),
        disconnects,
    )


def test_readers_are_notified_only_of_changes(given: Given) -> None:
    listener = FakeReader()
    given.broadcaster.add(listener)
    gevent.sleep(10 * PAUSE_SECONDS)
    assert listener.notified == []
    given.fleet.beat("a")
    wait_until(lambda: listener.notified != [])
    # What happens until the next round is told in it, once.
    told = len(listener.notified)
    for _ in range(20):
        given.fleet.beat("a")
    wait_until(lambda: listener.notified[-1][0] == given.changes.revision)
    assert len(listener.notified) <= told + 2
    given.broadcaster.remove(listener)


def test_changed_workers_are_named_for_filtered_readers(given: Given) -> None:
    everything, filtered = FakeReader(), FakeReader(is_filtered=True)
    given.fleet.beat("before")
    given.broadcaster.add(everything)
    given.fleet.beat("a")
    wait_until(lambda: everything.notified[-1:] == [(given.changes.revision, None)])
    given.broadcaster.add(filtered)
    given.fleet.beat("b")
    given.fleet.manager.unregister_worker("a")
    wait_until(lambda: bool(filtered.notified) and filtered.notified[-1][0] == given.changes.revision)
    assert frozenset[str]().union(*(recent or () for _, recent in filtered.notified)) == {"a", "b"}
    for listener in (everything, filtered):
        given.broadcaster.remove(listener)


def test_readers_at_one_revision_share_a_window(given: Given) -> None:
    listener = FakeReader()
    given.fleet.beat("a")
    revision = given.changes.revision
    given.fleet.beat("b")
    given.broadcaster.add(listener)
    wait_until(lambda: listener.notified != [])
    assert given.broadcaster.since(revision) is given.broadcaster.since(revision)
    assert list(given.broadcaster.since(revision).worker_ids) == ["b"]
    assert given.broadcaster.snapshot() is given.broadcaster.snapshot()
    old = given.broadcaster.snapshot()
    given.fleet.beat("c")
    assert given.broadcaster.snapshot() is not old
    wait_until(lambda: list(given.broadcaster.since(revision).worker_ids) == ["b", "c"])
    given.broadcaster.remove(listener)


def test_stalled_reader_is_disconnected_and_counted(given: Given) -> None:
    slow, stalled = FakeReader(), FakeReader()
    slow.stalled, stalled.stalled = 0.3, 0.5
    for listener in (slow, stalled):
        given.broadcaster.add(listener)
    # Nothing changes meanwhile.
    wait_until(lambda: stalled.disconnects == 1)
    assert (slow.disconnects, len(given.disconnects)) == (0, 1)
    for listener in (slow, stalled):
        given.broadcaster.remove(listener)


def test_greenlet_runs_while_there_are_readers(given: Given) -> None:
    one, other = FakeReader(), FakeReader()
    given.broadcaster.remove(one)
    for listener in (one, other):
        given.broadcaster.add(listener)
    greenlet = given.broadcaster._greenlet
    assert greenlet is not None
    given.broadcaster.remove(one)
    given.broadcaster.remove(one)
    gevent.idle()
    assert not greenlet.dead
    given.broadcaster.remove(other)
    wait_until(lambda: greenlet.dead)
    given.broadcaster.add(one)
    given.fleet.beat("a")
    wait_until(lambda: one.notified != [])
    given.broadcaster.remove(one)


def test_failing_reader_is_logged_and_broadcasts_go_on(given: Given, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(FakeReader):
        def notify(self, revision: int, changed: frozenset[str] | None) -> None:
            raise RuntimeError("no")

    failing, listener = Failing(), FakeReader()
    given.broadcaster.add(failing)
    given.fleet.beat("a")
    wait_until(lambda: "a broadcast of the telemetry stream failed" in caplog.text)
    given.broadcaster.remove(failing)
    given.broadcaster.add(listener)
    given.fleet.beat("a")
    wait_until(lambda: listener.notified != [])
    given.broadcaster.remove(listener)
