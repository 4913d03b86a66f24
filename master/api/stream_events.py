"""The stream's events as bytes: made once, in pieces of bounded size, for all readers who get the same."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fleetpulse.master.api.event_stream import event_bytes
from fleetpulse.master.telemetry.change_log import Window

_LOGGER = logging.getLogger(__name__)

PIECE_BYTES = 64 * 1024
"""Of workers in an event; the last of them may go over it."""

REMOVALS_IN_A_ROW = 256
KEPT_PIECES = 64

Member = Callable[[str], bytes | None]
"""A worker as the member of a JSON object; ``None`` for one that is not there any more."""


class Event(NamedTuple):
    """``kind`` is empty for what is no event but a comment or a setting."""

    kind: str
    data: bytes


class Piece(NamedTuple):
    """A part of a window, up to its worker number ``stop``. No event: everybody in it has gone."""

    event: Event | None
    stop: int


def event(kind: str, body: bytes | object, event_id: str | None = None) -> Event:
    """``body``: JSON, or what becomes it."""
    return Event(kind, event_bytes(kind, body, event_id))


class EventEncoder:
    """Makes the events of one form of the records. On the hub; nothing here switches."""

    def __init__(self, boot_id: str, member: Member) -> None:
        self._boot_id = boot_id
        self._member = member
        self._made: OrderedDict[tuple[int, int], tuple[Window, Piece]] = OrderedDict()

    def forget(self) -> None:
        """Make everything anew from now on, from what is the latest then."""
        self._made.clear()

    def piece(self, window: Window, start: int) -> Piece:
        """The workers of the window from number ``start`` on, as they are now or were when this was asked last."""
        key = id(window), start
        if key in self._made:
            self._made.move_to_end(key)
            return self._made[key][1]
        piece = self._make(window, start)
        # The window is kept with it, so no other has this id meanwhile.
        self._made[key] = window, piece
        if len(self._made) > KEPT_PIECES:
            self._made.popitem(last=False)
        return piece

    def removed(self, window: Window) -> list[Event]:
        """Who left. The last event has the window's id, unless there are changes to follow."""
        rows = [window.removed[at : at + REMOVALS_IN_A_ROW] for at in range(0, len(window.removed), REMOVALS_IN_A_ROW)]
        return [self._removal(row, window, is_last=row is rows[-1] and not window.worker_ids) for row in rows]

    def _removal(self, worker_ids: Sequence[str], window: Window, *, is_last: bool) -> Event:
        return event("removed", {"worker_ids": list(worker_ids)}, self._id(window.revision) if is_last else None)

    def _make(self, window: Window, start: int) -> Piece:
        members, size, stop = [], 0, start
        while stop < len(window.worker_ids) and size < PIECE_BYTES:
            member = self._rendered(window.worker_ids[stop])
            stop += 1
            if member is not None:
                members.append(member)
                size += len(member) + 1
        is_last = stop == len(window.worker_ids)
        workers = b",".join(members)
        if window.revisions is None:
            body = b'{"workers":{%b},"complete":%b}' % (workers, b"true" if is_last else b"false")
            return Piece(event("snapshot", body, self._id(window.revision) if is_last else None), stop)
        if not members:
            return Piece(None, stop)
        reached = window.revision if is_last else window.revisions[stop - 1]
        return Piece(event("update", b'{"workers":{%b}}' % workers, self._id(reached)), stop)

    def _rendered(self, worker_id: str) -> bytes | None:
        try:
            return self._member(worker_id)
        except Exception:
            _LOGGER.exception("worker %s: its telemetry could not be rendered", worker_id)
            return None

    def _id(self, revision: int) -> str:
        return f"{self._boot_id}-{revision}"
