"""Between grpc's thread and the gevent hub: calls, streams, and decoded messages."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from fleetpulse.master.errors import InvalidMessage
from fleetpulse.master.hub_queue import HubQueue
from fleetpulse.master.rpc.status import RpcStatus
from fleetpulse.proto.rules import MAX_MESSAGE_BYTES

RpcCall = grpc.aio.ServicerContext[bytes, bytes]
"""A call without (de)serializers: bytes in, bytes out, ``grpc.aio.EOF`` at the end."""

GATHER_SECONDS = 0.01
"""How long ``HubBridge.call_soon`` gathers calls."""

MAX_UNSENT_MESSAGES = 4_000
"""Per stream whose worker does not read; one that reads has a few."""

_CANCELLED_WITHIN_SECONDS = 0.05

M = TypeVar("M", bound=Message)


def decode(kind: type[M], data: bytes) -> M:
    """Parses a message. Raises ``InvalidMessage``; grpc itself would end the call with INTERNAL and count nothing."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise InvalidMessage(f"the message has {len(data)} bytes; at most {MAX_MESSAGE_BYTES} are accepted")
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidMessage(f"the message is not a {kind.__name__}: {error}") from error


class HubBridge:
    """Calls functions on the hub from grpc's thread. Made and closed on the hub.

    Handling one message between other work costs up to three times what it costs in a row: it has left the processor's
    caches, and the hub must be woken. So calls that can wait some milliseconds are gathered.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._wakes_soon = False
        self._queue = HubQueue("rpc")

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Calls ``function(*args)`` on the hub, after all earlier calls."""
        self._queue.post((partial(function, *args),))

    def call_soon(self, function: Callable[..., None], *args: Any) -> None:
        """Does the same, but does not wake the hub for this call alone. In the loop's thread only."""
        self._queue.put((partial(function, *args),))
        if not self._wakes_soon:
            self._wakes_soon = True
            self._loop.call_later(GATHER_SECONDS, self._wake)

    def close(self) -> None:
        """Makes no more calls."""
        self._queue.close()

    def _wake(self) -> None:
        self._wakes_soon = False
        self._queue.wake()


class Stream:
    """The outgoing side of an open ``Connect``. ``send`` and ``end`` are for the hub, all else for grpc's thread."""

    __slots__ = ("_loop", "_outbox", "_pump", "_waiter", "peer")

    def __init__(self, loop: asyncio.AbstractEventLoop, peer: str) -> None:
        self.peer = peer
        self._loop = loop
        # Not asyncio's Queue, which takes 3 KB per stream; nearly all streams have nothing to send.
        self._outbox: list[bytes | RpcStatus] = []
        self._waiter: asyncio.Future[None] | None = None
        self._pump: asyncio.Task[object] | None = None

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
            await call.abort(item.code, item.details)

    async def _next(self) -> bytes | RpcStatus:
        while not self._outbox:
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._outbox.pop(0)
