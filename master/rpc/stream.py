"""One call as grpc's thread sees it: what the hub wants to send, and how the call shall end."""

import asyncio
import contextlib
from typing import NamedTuple

import grpc

Call = grpc.aio.ServicerContext[bytes, bytes]
"""A call without (de)serializers: bytes in, bytes out, ``grpc.aio.EOF`` at the end."""


_CANCELLED_WITHIN_SECONDS = 0.05

MAX_UNSENT_MESSAGES = 4_000
"""For a worker that sends and does not read; one that reads has a few."""


class RpcStatus(NamedTuple):
    """How the master ends a call."""

    code: grpc.StatusCode
    details: str = ""


class Stream:
    """The way from the hub to one open ``Connect``. ``send`` and ``end`` are for the hub, all else for grpc."""

    __slots__ = ("_loop", "_outbox", "_pump", "_waiter", "peer")

    def __init__(self, loop: asyncio.AbstractEventLoop, peer: str) -> None:
        self.peer = peer
        self._loop = loop
        # Not asyncio's Queue: that takes 3 KB a stream, of which nearly all have nothing to send.
        self._outbox: list[bytes | RpcStatus] = []
        self._waiter: asyncio.Future[None] | None = None
        self._pump: asyncio.Task[object] | None = None

    def send(self, message: bytes) -> None:
        """Send a ``MasterMessage``, serialized."""
        self._put(message)

    def end(self, ending: RpcStatus) -> None:
        """End the call after what was sent before."""
        self._put(ending)

    def _put(self, item: bytes | RpcStatus) -> None:
        # A closed loop: the server has stopped, and the call with it.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._enqueue, item)

    def _enqueue(self, item: bytes | RpcStatus) -> None:
        if len(self._outbox) >= MAX_UNSENT_MESSAGES and self._pump is not None:
            # It waits for a write that the worker does not let happen, so nothing can be said any more.
            self._pump.cancel()
        else:
            self._append(item)

    def _append(self, item: bytes | RpcStatus) -> None:
        self._outbox.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def hang_up(self) -> None:
        """The worker closed its side, cancelled the call, or the connection broke.

        To read is the same for all three. In the latter two grpc cancels the pump next; so the first waits for that.
        """
        self._loop.call_later(_CANCELLED_WITHIN_SECONDS, self._append, RpcStatus(grpc.StatusCode.OK))

    async def pump(self, call: Call) -> None:
        """Carry out what the hub wants until the call ends. Cancelled when the worker does not read."""
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
