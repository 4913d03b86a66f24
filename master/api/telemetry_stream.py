"""``/telemetry/stream``: the fleet as server-sent events, first as it is and then what changes."""

import re
import socket
import struct
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial

import falcon
import gevent
from gevent.event import Event

from fleetpulse.master.api.queries import StreamQuery
from fleetpulse.master.api.subscribers import EventStream, Subscribers, begin_events, event_bytes, plain_socket
from fleetpulse.master.api.telemetry_broadcast import Broadcaster, EventEncoder, Member, Timing
from fleetpulse.master.api.validation import query_of
from fleetpulse.master.api.views import FleetViews, StreamSummaries
from fleetpulse.master.errors import FleetPulseError
from fleetpulse.master.hub_queue import give_way
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
        self.counter = instruments.events
        self._boot_id = boot_id
        self._encoders = {form: EventEncoder(boot_id, member) for form, member in members.items()}
        self.broadcaster = Broadcaster(changes, self._encoders.values(), timing, instruments.readers_cut.inc)
        instruments.readers.set_function(partial(len, subscribers))

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        query = query_of(req, StreamQuery)
        begin_events(resp)
        if req.method == "HEAD":
            return
        start = self._start(req.get_header("Last-Event-ID") or "")
        resp.stream = TelemetryStream(self, self._encoders[query.fields], start, query.worker_id or None, req)

    on_head = on_get

    def _start(self, last_event_id: str) -> int | str:
        """Returns the revision after which a reader begins, or the reason for which it begins with a snapshot.

        An unknown id is no error: the reader may have got it before a restart of the master.
        """
        match = _EVENT_ID.fullmatch(last_event_id)
        if match is None or match[1] != self._boot_id or int(match[2]) > self.changes.revision:
            return "unknown_id" if last_event_id else "start"
        return int(match[2])


class TelemetryStream(EventStream):
    """One reader's events. The subscribers may refuse the reader: see ``EventStream``.

    It keeps the revision up to which the reader has everything, and no queue.
    """

    def __init__(
        self,
        resource: TelemetryStreamResource,
        encoder: EventEncoder,
        start: int | str,
        worker_ids: frozenset[str] | None,
        req: falcon.Request,
    ) -> None:
        super().__init__("the telemetry stream", req, resource.subscribers, resource.keepalive_seconds)
        self._changes, self._broadcaster, self._counter = resource.changes, resource.broadcaster, resource.counter
        self._encoder, self._start, self._worker_ids = encoder, start, worker_ids
        self._revision = 0
        self._wake = Event()
        self._sending_since: float | None = None
        self._broadcaster.add(self)
        if self._connection is not None:
            with plain_socket(self._connection) as plain:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def __next__(self) -> bytes:
        self._sending_since = None
        data = super().__next__()
        if data.startswith(b"event: "):
            self._counter.labels(data[7 : data.index(b"\n")].decode()).inc()
        self._sending_since = time.monotonic()
        return data

    def close(self) -> None:
        """Called by the web server when the answer is over, whatever happened."""
        self._sending_since = None
        super().close()
        self._broadcaster.remove(self)

    def revoke(self, reason: FleetPulseError) -> None:
        """Ends the events soon, with a last one that says why. A reader that does not take it is disconnected."""
        must_check = self._revoked is None and self._sending_since is not None
        super().revoke(reason)
        if must_check:
            gevent.spawn_later(REVOKE_SECONDS, self._disconnect_if_sending)

    def _disconnect_if_sending(self) -> None:
        if self._sending_since is not None:
            self.disconnect()

    # For the broadcaster; nothing here switches

    @property
    def is_filtered(self) -> bool:
        """Whether it reads some workers only."""
        return self._worker_ids is not None

    def notify(self, revision: int, changed: frozenset[str] | None) -> None:
        """The revision was reached by changes of these workers; ``None``: of any."""
        if self._worker_ids is None or changed is None or not self._worker_ids.isdisjoint(changed):
            self._wake.set()
        elif self._waiting is not None:
            # None of its workers changed, so it has everything up to there and need not wake.
            self._revision = max(self._revision, revision)

    def stalled_seconds(self, now: float) -> float:
        """Returns for how long the reader has not taken an event."""
        return 0.0 if self._sending_since is None else now - self._sending_since

    def disconnect(self) -> None:
        """Ends the connection, and drops what the system still holds for it."""
        self._sending_since = None
        if self._connection is not None:
            with suppress(OSError), plain_socket(self._connection) as plain:  # the client may have gone meanwhile
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                plain.shutdown(socket.SHUT_RDWR)

    # The events

    def _events(self) -> Iterator[bytes]:
        if isinstance(self._start, str):
            yield from self._snapshot(self._start)
        else:
            self._revision = self._start
            yield from self._updates()
        while True:
            yield from self._wait(self._wake.wait)
            if self._wake.is_set():
                yield from self._updates()

    def _updates(self) -> Iterator[bytes]:
        self._wake.clear()
        if not self._changes.covers(self._revision):
            yield from self._snapshot("too_old")
            return
        window = self._broadcaster.since(self._revision, self._worker_ids)
        yield from self._encoder.removed(window)
        if window.worker_ids:
            yield from self._chunks(window)
        self._revision = window.revision

    def _snapshot(self, reason: str) -> Iterator[bytes]:
        window = self._broadcaster.snapshot(self._worker_ids)
        yield event_bytes("reset", {"reason": reason, "workers": len(window.worker_ids)})
        yield from self._chunks(window)
        self._revision = window.revision

    def _chunks(self, window: ChangeWindow) -> Iterator[bytes]:
        """Yields at least one. Other greenlets have their turn between two."""
        start, is_done = 0, False
        while not is_done:
            self._raise_if_revoked()
            chunk = self._encoder.chunk(window, start)
            if chunk.event is not None:
                yield chunk.event
            start, is_done = chunk.stop, chunk.stop == len(window.worker_ids)
            if not is_done:
                give_way()


def create_telemetry_stream(
    telemetry: TelemetryManager, views: FleetViews, instruments: StreamInstruments, subscribers: Subscribers
) -> TelemetryStreamResource:
    """Builds the resource, which observes the table from now on: to be called before there is any worker.

    Its readers are a group of the ``subscribers``.
    """
    changes, summaries = ChangeLog(), StreamSummaries()
    for observer in (summaries, changes):
        telemetry.add_observer(observer)
    members = {"all": views.member, "summary": summaries.member}
    readers = subscribers.group(MAX_READERS, "read the stream")
    return TelemetryStreamResource(changes, members, instruments, readers, uuid.uuid4().hex[:12])
