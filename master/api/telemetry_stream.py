"""``/telemetry/stream``: the fleet as server-sent events, first as it is and then what changes."""

import re
import socket
import struct
import time
import uuid
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import falcon
import gevent
from gevent.event import Event as Wake

from fleetpulse.master.api.queries import StreamQuery
from fleetpulse.master.api.subscribers import (
    KEEPALIVE,
    RETRY,
    Client,
    ClientGone,
    HasFile,
    Subscribers,
    begin_events,
    plain_socket,
    problem_event,
    stop_reading,
    while_connected,
)
from fleetpulse.master.api.telemetry_broadcast import Broadcaster, Event, EventEncoder, Member, Timing, event
from fleetpulse.master.api.validation import query_of
from fleetpulse.master.api.views import FleetViews, StreamSummaries
from fleetpulse.master.errors import FleetPulseError, MasterStopping
from fleetpulse.master.instruments import StreamInstruments
from fleetpulse.master.telemetry.change_log import ChangeLog, ChangeWindow
from fleetpulse.master.telemetry.manager import TelemetryManager

MAX_READERS = 500
"""Each holds a connection and a greenlet."""

SEND_BUFFER_BYTES = 128 * 1024
"""What the system keeps for a slow reader is old already when it is read, so it must not keep much."""

REVOKE_SECONDS = 1.0
"""For a reader to take the event that is being sent when its access is revoked."""

_EVENT_ID = re.compile(r"([0-9a-f]{1,32})-([0-9]{1,18})")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Start(NamedTuple):
    """Where a reader begins: after a revision, or with a snapshot, for a reason."""

    revision: int | None
    reason: str = ""


class TelemetryStreamResource:
    """The resource. ``members`` makes a worker's JSON, by the form that ``fields`` asks for."""

    def __init__(
        self,
        changes: ChangeLog,
        members: Mapping[str, Member],
        instruments: StreamInstruments,
        subscribers: Subscribers,
        boot_id: str,
        timing: Timing = Timing(),  # noqa: B008 - immutable
    ) -> None:
        self.changes, self.subscribers, self.keepalive_seconds = changes, subscribers, timing.keepalive
        self.events = instruments.events
        self._boot_id = boot_id
        self._encoders = {form: EventEncoder(boot_id, member) for form, member in members.items()}
        self.broadcaster = Broadcaster(changes, self._encoders.values(), timing, instruments.readers_cut.inc)
        instruments.readers.set_function(partial(len, subscribers))

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        query = query_of(req, StreamQuery)
        begin_events(resp)
        if req.method == "HEAD":
            return
        resp.stream = TelemetryStream(
            self,
            self._encoders[query.fields],
            self._start(req.get_header("Last-Event-ID")),
            query.worker_id or None,
            req.env.get("gunicorn.socket"),
            Client.of(req),
        )

    on_head = on_get

    def _start(self, last_event_id: str | None) -> Start:
        """An id that is not of this start of the master is no error: the reader was there before a restart."""
        if not last_event_id:
            return Start(None, "start")
        match = _EVENT_ID.fullmatch(last_event_id)
        if match is None or match[1] != self._boot_id or int(match[2]) > self.changes.revision:
            return Start(None, "unknown_id")
        return Start(int(match[2]))


class TelemetryStream:
    """One reader's events, iterated once, in the greenlet of its request. Raises when the reader is not admitted.

    It keeps the revision up to which the reader has everything, and no queue.
    """

    def __init__(
        self,
        resource: TelemetryStreamResource,
        encoder: EventEncoder,
        start: Start,
        worker_ids: frozenset[str] | None,
        connection: HasFile | None,
        client: Client,
    ) -> None:
        self._resource = resource
        self._encoder = encoder
        self._start = start
        self._worker_ids = worker_ids
        self._connection = connection
        self._revision = 0
        self._wake = Wake()
        self._is_waiting = False
        self._revoked: FleetPulseError | None = None
        self._sending_since: float | None = None
        self._events = self._guarded()
        resource.subscribers.add(self, client)
        resource.broadcaster.add(self)
        if connection is not None:
            with plain_socket(connection) as plain:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    # For the web server

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._sending_since = None
        kind, data = next(self._events)
        if kind:
            self._resource.events.labels(kind).inc()
        self._sending_since = time.monotonic()
        return data

    def close(self) -> None:
        """Called by the web server when the answer is over, whatever happened."""
        self._sending_since = None
        self._events.close()
        self._resource.subscribers.remove(self)
        self._resource.broadcaster.remove(self)

    # For the broadcaster and the subscribers; nothing here switches

    @property
    def is_filtered(self) -> bool:
        """Whether it reads some workers only."""
        return self._worker_ids is not None

    def notify(self, revision: int, changed: frozenset[str] | None) -> None:
        """The revision was reached by changes of these workers; ``None``: of any."""
        if self._worker_ids is None or changed is None or not self._worker_ids.isdisjoint(changed):
            self._wake.set()
        elif self._is_waiting:
            # None of its workers changed, so it has everything up to there and need not wake.
            self._revision = max(self._revision, revision)

    def stalled_seconds(self, now: float) -> float:
        """Return for how long the reader has not taken an event."""
        return 0.0 if self._sending_since is None else now - self._sending_since

    def disconnect(self) -> None:
        """End the connection, and drop what the system still holds for it."""
        self._sending_since = None
        if self._connection is not None:
            with suppress(OSError), plain_socket(self._connection) as plain:  # the client may have gone meanwhile
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                plain.shutdown(socket.SHUT_RDWR)

    def revoke(self, reason: FleetPulseError) -> None:
        """End the events soon, with a last one that says why."""
        if self._revoked is not None:
            return
        self._revoked = reason
        self._wake.set()
        if self._sending_since is not None:
            gevent.spawn_later(REVOKE_SECONDS, self._disconnect_if_sending)

    def _disconnect_if_sending(self) -> None:
        if self._sending_since is not None:
            self.disconnect()

    # The events

    def _guarded(self) -> Generator[Event, None, None]:
        try:
            yield from self._all_events()
        except ClientGone:
            return
        except Exception as error:  # noqa: BLE001 - logged, and told to the reader
            yield Event("problem", problem_event(error, "the telemetry stream"))
            if isinstance(error, MasterStopping):
                stop_reading(self._connection)

    def _all_events(self) -> Iterator[Event]:
        yield Event("", RETRY)
        if self._start.revision is None:
            yield from self._snapshot(self._start.reason)
        else:
            self._revision = self._start.revision
            yield from self._changes()
        while self._revoked is None:
            if not self._wait():
                yield Event("", KEEPALIVE)
            elif self._revoked is None:
                yield from self._changes()
        raise self._revoked

    def _wait(self) -> bool:
        """Wait for changes; false when it is time for a keepalive."""
        self._is_waiting = True
        try:
            with while_connected(self._connection):
                return self._wake.wait(self._resource.keepalive_seconds)
        finally:
            self._is_waiting = False

    def _changes(self) -> Iterator[Event]:
        self._wake.clear()
        if not self._resource.changes.covers(self._revision):
            yield from self._snapshot("too_old")
            return
        if self._worker_ids is None:
            window = self._resource.broadcaster.since(self._revision)
        else:
            window = self._resource.changes.since(self._revision, self._worker_ids)
        yield from self._encoder.removed(window)
        if window.worker_ids:
            yield from self._chunks(window)
        self._revision = window.revision

    def _snapshot(self, reason: str) -> Iterator[Event]:
        if self._worker_ids is None:
            window = self._resource.broadcaster.snapshot()
        else:
            window = self._resource.changes.all_workers(self._worker_ids)
        yield event("reset", {"reason": reason, "workers": len(window.worker_ids)})
        yield from self._chunks(window)
        self._revision = window.revision

    def _chunks(self, window: ChangeWindow) -> Iterator[Event]:
        """Yield at least one. Other greenlets have their turn between two."""
        start, is_done = 0, False
        while not is_done and self._revoked is None:
            chunk = self._encoder.chunk(window, start)
            if chunk.event is not None:
                yield chunk.event
            start, is_done = chunk.stop, chunk.stop == len(window.worker_ids)
            if not is_done:
                gevent.sleep(0)


def create_telemetry_stream(
    telemetry: TelemetryManager, views: FleetViews, instruments: StreamInstruments, subscribers: Subscribers
) -> TelemetryStreamResource:
    """Build the resource, which observes the table from now on: to be called before there is any worker.

    Its readers are a group of the ``subscribers``.
    """
    changes, summaries = ChangeLog(), StreamSummaries()
    for observer in (summaries, changes):
        telemetry.add_observer(observer)
    members = {"all": views.member, "summary": summaries.member}
    readers = subscribers.group(MAX_READERS, "read the stream")
    return TelemetryStreamResource(changes, members, instruments, readers, uuid.uuid4().hex[:12])
