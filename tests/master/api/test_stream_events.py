"""master.api.stream_events"""

import json
from collections import Counter

from fleetpulse.master.api.stream_events import KEPT_PIECES, PIECE_BYTES, REMOVALS_IN_A_ROW, Event, EventEncoder
from fleetpulse.master.telemetry.change_log import Window

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


def update(number: int) -> Window:
    return Window(names(number), [10 + index for index in range(number)], (), 9999)


def parsed(event: Event | None) -> tuple[str, str | None, dict[str, object]]:
    """Kind, id and data as a reader has them."""
    assert event is not None
    assert event.data.endswith(b"\n\n")
    fields = dict(line.split(": ", 1) for line in event.data.decode().strip().split("\n"))
    assert fields["event"] == event.kind
    return fields["event"], fields.get("id"), json.loads(fields["data"])


def test_a_piece_is_made_once_for_all_who_get_it() -> None:
    records = Records()
    composer, window = EventEncoder("boot", records.member), update(10)
    first = composer.piece(window, 0)
    assert all(composer.piece(window, 0) is first for _ in range(200))
    assert set(records.made.values()) == {1}
    # Another window is another, though it says the same, and so is what comes after a round.
    composer.piece(update(10), 0)
    composer.forget()
    composer.piece(window, 0)
    assert set(records.made.values()) == {3}


def test_pieces_are_bounded_and_each_says_how_far_it_reaches() -> None:
    composer, window = EventEncoder("boot", Records().member), update(200)
    start, ids, workers = 0, [], []
    while start < 200:
        piece = composer.piece(window, start)
        kind, event_id, data = parsed(piece.event)
        assert kind == "update"
        assert piece.event is not None
        assert len(piece.event.data) < PIECE_BYTES + RECORD_BYTES + 100
        assert isinstance(data["workers"], dict)
        workers += list(data["workers"])
        ids.append((piece.stop, event_id))
        start = piece.stop
    assert workers == names(200)
    assert len(ids) == 4
    assert [event_id for stop, event_id in ids[:-1]] == [f"boot-{10 + stop - 1}" for stop, _ in ids[:-1]]
    assert ids[-1] == (200, "boot-9999")


def test_a_snapshot_has_an_id_at_its_end_only() -> None:
    composer, window = EventEncoder("boot", Records().member), Window(names(100), None, (), 9999)
    first = composer.piece(window, 0)
    kind, event_id, data = parsed(first.event)
    assert (kind, event_id, data["complete"]) == ("snapshot", None, False)
    last = composer.piece(window, first.stop)
    kind, event_id, data = parsed(last.event)
    assert (kind, event_id, data["complete"], last.stop) == ("snapshot", "boot-9999", True, 100)


def test_of_nobody_there_is_a_snapshot_but_no_update() -> None:
    records = Records()
    records.gone = {"worker-0", "worker-1"}
    composer = EventEncoder("boot", records.member)
    assert composer.piece(update(2), 0) == (None, 2)
    for window in (Window([], None, (), 7), Window(names(2), None, (), 7)):
        assert parsed(composer.piece(window, 0).event) == ("snapshot", "boot-7", {"workers": {}, "complete": True})


def test_who_left_comes_in_rows_with_an_id_when_nothing_follows() -> None:
    composer = EventEncoder("boot", Records().member)
    left = names(REMOVALS_IN_A_ROW + 1)
    events = [parsed(event) for event in composer.removed(Window((), (), left, 9))]
    assert events == [
        ("removed", None, {"worker_ids": left[:-1]}),
        ("removed", "boot-9", {"worker_ids": left[-1:]}),
    ]
    assert [parsed(event)[1] for event in composer.removed(Window(["a"], [8], left, 9))] == [None, None]
    assert composer.removed(update(3)) == []


def test_only_so_many_pieces_are_kept() -> None:
    records = Records()
    composer, windows = EventEncoder("boot", records.member), [update(1) for _ in range(KEPT_PIECES + 1)]
    for window in windows:
        composer.piece(window, 0)
        composer.piece(windows[0], 0)
    assert records.made["worker-0"] == KEPT_PIECES + 1
    assert len(composer._made) == KEPT_PIECES
