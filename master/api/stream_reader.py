"""One reader of the stream of telemetry: it keeps the revision up to which it has got everything, and no queue."""

import logging
import socket
import struct
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import NamedTuple

import gevent
from gevent.event import Event as Wake

from fleetpulse.master.api.event_stream import HEARTBEAT, RETRY
from fleetpulse.master.api.followers import ClientIdentity, Subscribers
from fleetpulse.master.api.presence import ClientGone, HasFile, plain_socket, take_no_more, while_client_is_there
from fleetpulse.master.api.problems import STATUS_BY_ERROR
from fleetpulse.master.api.stream_events import Event, EventEncoder, event
from fleetpulse.master.api.stream_rounds import Broadcaster
from fleetpulse.master.errors import AccessEnded, FleetPulseError, MasterStopping
from fleetpulse.master.telemetry.change_log import ChangeLog, Window

_LOGGER = logging.getLogger(__name__)

SEND_BUFFER_BYTES = 128 * 1024
"""What the system keeps for a reader that is slow is old already when it is read, so it is not to keep much."""

LAST_WORD_SECONDS = 1.0
"""For a reader to take what it is being sent when it has to end."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_SETTING = Event("", RETRY)
_STILL_HERE = Event("", HEARTBEAT)


class Start(NamedTuple):
    """Where a reader begins: after a revision, or with a snapshot, for which there is a reason."""

    revision: int | None
    reason: str = ""


class Shared(NamedTuple):
    """What readers have in common."""

    changes: ChangeLog
    rounds: Broadcaster
    readers: Subscribers
    heartbeat_seconds: float
    note_event: Callable[[str], None]


class StreamReader:
    """Its events, to be iterated once, in the greenlet of its request. Raises when it is not admitted."""

    def __init__(
        self,
        shared: Shared,
        composer: EventEncoder,
        start: Start,
        worker_ids: frozenset[str] | None,
        connection: HasFile | None,
        asker: ClientIdentity,
    ) -> None:
        self._shared = shared
        self._composer = composer
        self._start = start
        self._worker_ids = worker_ids
        self._connection = connection
        self._revision = 0
        self._wake = Wake()
        self._is_waiting = False
        self._ending: FleetPulseError | None = None
        self._taking_since: float | None = None
        self._events = self._guarded()
        shared.readers.admit(self, asker)
        shared.rounds.join(self)
        if connection is not None:
            with plain_socket(connection) as plain:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    # For the web server

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._taking_since = None
        kind, data = next(self._events)
        if kind:
            self._shared.note_event(kind)
        self._taking_since = time.monotonic()
        return data

    def close(self) -> None:
        """The reader is gone, or has all. Called by the web server, whatever happened."""
        self._taking_since = None
        self._events.close()
        self._shared.readers.leave(self)
        self._shared.rounds.leave(self)

    # For the rounds, and for who ends it

    @property
    def is_choosy(self) -> bool:
        """Whether it reads some workers only."""
        return self._worker_ids is not None

    def tell(self, revision: int, recent: frozenset[str] | None) -> None:
        """There is news up to the revision, of these workers; ``None``: of any. Does not switch."""
        if self._worker_ids is None or recent is None or not self._worker_ids.isdisjoint(recent):
            self._wake.set()
        elif self._is_waiting:
            # Nothing of it is new, so it need not be woken to know that much.
            self._revision = max(self._revision, revision)

    def stalled_seconds(self, now: float) -> float:
        """For how long it has been about to take an event."""
        return 0.0 if self._taking_since is None else now - self._taking_since

    def cut(self) -> None:
        """End the connection, and drop what the system still holds for it. Does not switch."""
        self._taking_since = None
        if self._connection is not None:
            with suppress(OSError), plain_socket(self._connection) as plain:  # the client may have gone meanwhile
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                plain.shutdown(socket.SHUT_RDWR)

    def end(self, why: FleetPulseError) -> None:
        """Have the events end with a last word, soon. Does not wait."""
        if self._ending is not None:
            return
        self._ending = why
        self._wake.set()
        if self._taking_since is not None:
            gevent.spawn_later(LAST_WORD_SECONDS, self._cut_if_taking)

    def _cut_if_taking(self) -> None:
        if self._taking_since is not None:
            self.cut()

    # The events

    def _guarded(self) -> Generator[Event, None, None]:
        try:
            yield from self._all()
        except ClientGone:
            return
        except (AccessEnded, MasterStopping) as error:
            yield event("problem", {"status": STATUS_BY_ERROR[type(error)], "detail": str(error)})
            if isinstance(error, MasterStopping):
                take_no_more(self._connection)
        except Exception:
            _LOGGER.exception("a reader of the stream failed")
            yield event("problem", {"status": 500, "detail": "the master failed on this; its log says why"})

    def _all(self) -> Iterator[Event]:
        yield _SETTING
        if self._start.revision is None:
            yield from self._snapshot(self._start.reason)
        else:
            self._revision = self._start.revision
            yield from self._round()
        while self._ending is None:
            if not self._wait():
                yield _STILL_HERE
            elif self._ending is None:
                yield from self._round()
        raise self._ending

    def _wait(self) -> bool:
        """Until there is news, whether there is; false when it is time for a sign of life."""
        self._is_waiting = True
        try:
            with while_client_is_there(self._connection):
                return self._wake.wait(self._shared.heartbeat_seconds)
        finally:
            self._is_waiting = False

    def _round(self) -> Iterator[Event]:
        self._wake.clear()
        if not self._shared.changes.reaches_back_to(self._revision):
            yield from self._snapshot("too_old")
            return
        window = self._window()
        yield from self._composer.removed(window)
        if window.worker_ids:
            yield from self._pieces(window)
        self._revision = window.revision

    def _snapshot(self, reason: str) -> Iterator[Event]:
        if self._worker_ids is None:
            window = self._shared.rounds.everybody()
        else:
            window = self._shared.changes.everybody(self._worker_ids)
        yield event("reset", {"reason": reason, "workers": len(window.worker_ids)})
        yield from self._pieces(window)
        self._revision = window.revision

    def _window(self) -> Window:
        if self._worker_ids is None:
            return self._shared.rounds.since(self._revision)
        return self._shared.changes.since(self._revision, self._worker_ids)

    def _pieces(self, window: Window) -> Iterator[Event]:
        """One at least. Others have their turn between two."""
        start, is_done = 0, False
        while not is_done and self._ending is None:
            piece = self._composer.piece(window, start)
            if piece.event is not None:
                yield piece.event
            start, is_done = piece.stop, piece.stop == len(window.worker_ids)
            if not is_done:
                gevent.sleep(0)
