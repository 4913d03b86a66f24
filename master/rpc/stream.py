"""Between grpc's thread and the gevent hub: calls, streams, and decoded messages."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from fleetpulse.master.errors import InvalidMessage
from fleetpulse.master.hub_queue import HubQueue
from fleetpulse.master.rpc.status import RpcStatus
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.rules import MAX_MESSAGE_BYTES

RpcCall = grpc.aio.ServicerContext[bytes, bytes]
"""A call without (de)serializers: bytes in, bytes out, ``grpc.aio.EOF`` at the end."""

GATHER_SECONDS = 0.01
"""How long ``HubBridge.call_soon`` gathers calls."""

LISTEN_SECONDS = 0.5
"""How often grpc's thread notes that it listens."""

BEHIND_SECONDS = 1.0
"""Age of the oldest message that waits, above which the master judges nobody by silence."""

MAX_UNSENT_MESSAGES = 4_000
"""Per stream whose worker does not read; one that reads has a few."""

_CANCELLED_WITHIN_SECONDS = 0.05

_HEARTBEAT_START = bytes((pb.WorkerMessage.HEARTBEAT_FIELD_NUMBER << 3 | 2,))
"""Its tag: the number of the field, and that a length follows."""

_SPARE_CONNECTIONS = 1000
_STREAMS_PER_CONNECTION = 1000
"""A worker needs one; the simulator and a relay have several workers on one connection."""

# Above what the contract accepts, so that the session refuses a message that is too large with a reason and a count.
_MAX_RECEIVE_BYTES = 4 * 1024 * 1024

_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_RECEIVE_BYTES),
    # Of a call's headers: beyond the first some calls are refused, beyond the second all are.
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", _STREAMS_PER_CONNECTION),
    # A connection without calls.
    ("grpc.max_connection_idle_ms", 300_000),
    # Calls that were not taken up yet: beyond the first some are refused, beyond the second all. A whole fleet may come
    # back at once; grpc's default is 1000.
    ("grpc.server.max_pending_requests", 30_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    # A second master on this port must fail, not share it.
    ("grpc.so_reuseport", 0),
    # Workers send every few seconds: a bandwidth probe with every message costs more than it gains.
    ("grpc.http2.bdp_probe", 0),
    # A machine that lost power sends no FIN, so ping it; and accept the workers' own pings, which come every 60 s, but
    # not a flood of them.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 5),
)

_HANDSHAKE_MILLISECONDS = 10_000
"""For a connection that does not begin to speak HTTP/2."""

_TLS_HANDSHAKE_MILLISECONDS = 60_000
"""A whole fleet may come back at once, and each handshake costs milliseconds: one that is cut is done twice."""

M = TypeVar("M", bound=Message)


def server_options(max_streams: int, *, has_tls: bool) -> tuple[tuple[str, int], ...]:
    """Returns the limits of grpc's core for the port of workers."""
    return (
        *_OPTIONS,
        ("grpc.server_handshake_timeout_ms", _TLS_HANDSHAKE_MILLISECONDS if has_tls else _HANDSHAKE_MILLISECONDS),
        ("grpc.max_allowed_incoming_connections", max_streams + _SPARE_CONNECTIONS),
    )


def decode(kind: type[M], data: bytes) -> M:
    """Parses a message. Raises ``InvalidMessage``; grpc itself would end the call with INTERNAL and count nothing."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise InvalidMessage(f"the message has {len(data)} bytes; at most {MAX_MESSAGE_BYTES} are accepted")
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidMessage(f"the message is not a {kind.__name__}: {error}") from error


def is_heartbeat(data: bytes) -> bool:
    """Whether a serialized ``WorkerMessage`` is one heartbeat and nothing else. Does not decode it."""
    if data[:1] != _HEARTBEAT_START:
        return False
    # What follows is its length, seven bits in a byte, the lowest first.
    length = shift = 0
    for place in range(1, min(len(data), 5)):
        length |= (data[place] & 0x7F) << shift
        if data[place] < 0x80:
            return place + 1 + length == len(data)
        shift += 7
    return False


class HubBridge:
    """Calls functions on the hub from grpc's thread. Made and closed on the hub.

    Handling one message between other work costs up to three times what it costs in a row: it has left the processor's
    caches, and the hub must be woken. So calls that can wait some milliseconds are gathered.

    Knows how far behind the master is, from either thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._clock = clock
        self._gathering = False
        # When each gathering began whose calls the hub has not all made; the first is the age of the oldest call.
        self._gathered_at: deque[float] = deque()
        self._looked_at: float | None = None
        self._listened_at: float | None = None
        self._queue = HubQueue("rpc", clock)

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Calls ``function(*args)`` on the hub, after all earlier calls."""
        self._queue.post((partial(function, *args),))

    def call_soon(self, call: Callable[[], None]) -> None:
        """Does the same, but does not wake the hub for this call alone. In the loop's thread only."""
        if not self._gathering:
            self._gathering = True
            # First, so that the hub never sees the call without its time.
            self._gathered_at.append(self._clock())
            self._loop.call_later(GATHER_SECONDS, self._wake)
        self._queue.put(call)

    def listen(self) -> None:
        """Notes now and every ``LISTEN_SECONDS`` that grpc's thread is at its work. In the loop's thread."""
        now, before = self._clock(), self._looked_at
        # After a delay, what arrived meanwhile is about to be read.
        is_late = before is not None and now - before > 2 * LISTEN_SECONDS
        self._listened_at = before if is_late else now
        self._looked_at = now
        self._loop.call_later(LISTEN_SECONDS, self.listen)

    def heard_until(self, now: float) -> float:
        """Returns the time up to which all that arrived has been handled: ``now`` if nothing waits.

        What came later may wait for the hub, or for grpc's thread. From any thread.
        """
        try:
            until = min(now, self._gathered_at[0])
        except IndexError:
            until = now
        listened_at = self._listened_at
        if listened_at is not None and now - listened_at > 2 * LISTEN_SECONDS:
            until = min(until, listened_at)
        return until

    def backlog_seconds(self) -> float:
        """Returns the age of the oldest message that waits, 0 if none does. From any thread."""
        now = self._clock()
        return now - self.heard_until(now)

    def is_behind(self) -> bool:
        """Whether what has just arrived may wait for long to be handled. From any thread."""
        return self.backlog_seconds() > BEHIND_SECONDS

    def close(self) -> None:
        """Makes no more calls."""
        self._queue.close()

    def _wake(self) -> None:
        self._gathering = False
        self._queue.put(self._gathered_at.popleft)
        self._queue.wake()


class Received(NamedTuple):
    """What ``Stream.take`` returns: the messages in order, of which at most one is a heartbeat."""

    messages: list[bytes]
    heartbeat_at: float
    """Monotonic time at which the heartbeat arrived."""
    superseded: int
    """Heartbeats that the one among the messages replaced."""


class Stream:
    """An open ``Connect``. ``take``, ``send`` and ``end`` are for the hub, all else for grpc's thread.

    Of the heartbeats that wait for the hub, the newest replaces the one before it; all other messages keep their order.
    """

    __slots__ = (
        *("_heartbeat_at", "_heartbeat_place", "_inbox", "_is_announced", "_lock", "_loop", "_outbox", "_pump"),
        *("_superseded", "_waiter", "deadline", "heard_at", "peer"),
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, peer: str) -> None:
        self.peer = peer
        self.heard_at: float | None = None
        """Monotonic time at which the last message arrived; read by the hub."""

        self.deadline: asyncio.TimerHandle | None = None
        """When the stream is ended if nothing has arrived."""

        self._loop = loop
        # For the inbox: the only data that both threads change.
        self._lock = threading.Lock()
        self._inbox: list[bytes] = []
        self._is_announced = False
        self._heartbeat_place = -1
        self._heartbeat_at = 0.0
        self._superseded = 0
        # Not asyncio's Queue, which takes 3 KB per stream; nearly all streams have nothing to send.
        self._outbox: list[bytes | RpcStatus] = []
        self._waiter: asyncio.Future[None] | None = None
        self._pump: asyncio.Task[object] | None = None

    def put(self, data: bytes, now: float) -> bool:
        """Keeps a message for the hub; returns whether the hub must be told, because it has taken all earlier ones."""
        self.heard_at = now
        with self._lock:
            inbox = self._inbox
            if data[:1] == _HEARTBEAT_START:
                if self._heartbeat_place >= 0 and is_heartbeat(inbox[self._heartbeat_place]) and is_heartbeat(data):
                    # It never overtakes what was sent before it.
                    del inbox[self._heartbeat_place]
                    self._superseded += 1
                self._heartbeat_place = len(inbox)
                self._heartbeat_at = now
            inbox.append(data)
            is_first, self._is_announced = not self._is_announced, True
        return is_first

    @property
    def waiting(self) -> int:
        """The number of messages that the hub has not taken."""
        return len(self._inbox)

    def take(self) -> Received:
        """Returns what has arrived since the last time."""
        with self._lock:
            received = Received(self._inbox, self._heartbeat_at, self._superseded)
            self._inbox = []
            self._is_announced = False
            self._heartbeat_place = -1
            self._superseded = 0
        return received

    def send(self, message: bytes) -> None:
        """Sends a serialized ``MasterMessage``."""
        self._put(message)

    def end(self, status: RpcStatus) -> None:
        """Ends the call after what was sent before."""
        self._put(status)

    def _put(self, item: bytes | RpcStatus) -> None:
        # A closed loop: the server has stopped, and the call with it.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._enqueue, item)

    def _enqueue(self, item: bytes | RpcStatus) -> None:
        if len(self._outbox) >= MAX_UNSENT_MESSAGES and self._pump is not None:
            # A write waits for a worker that does not read, so the call can only be cancelled.
            self._pump.cancel()
        else:
            self._append(item)

    def _append(self, item: bytes | RpcStatus) -> None:
        self._outbox.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def refuse(self, status: RpcStatus) -> None:
        """Ends the call from grpc's thread, with nothing for the hub to do."""
        self._append(status)

    def hang_up(self) -> None:
        """The worker closed its side, cancelled the call, or the connection broke.

        Reading cannot tell these apart. After the latter two grpc cancels the pump; the delay waits for that.
        """
        self._loop.call_later(_CANCELLED_WITHIN_SECONDS, self._append, RpcStatus(grpc.StatusCode.OK))

    async def pump(self, call: RpcCall) -> None:
        """Writes what the hub sends until the call ends. Cancelled when the worker does not read."""
        self._pump = asyncio.current_task()
        while not isinstance(item := await self._next(), RpcStatus):
            await call.write(item)
        if item.code is not grpc.StatusCode.OK:
            await call.abort(item.code, item.details, item.trailing_metadata)

    async def _next(self) -> bytes | RpcStatus:
        while not self._outbox:
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._outbox.pop(0)
