"""The connection of a worker to its master: the channel, its stream, the delays between tries, the log of outages."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

import grpc

from fleetpulse.proto import fleetpulse_pb2 as pb

_CHANNEL_OPTIONS = (
    # One connection for each worker, also where a process holds thousands of them.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.http2.bdp_probe", 0),
    # With keepalive on, grpc also sets TCP_USER_TIMEOUT: heartbeats that are not acknowledged end the stream.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_retries", 0),
)


OpenChannel = Callable[[str, grpc.ChannelCredentials | None], AbstractAsyncContextManager[grpc.aio.Channel]]
"""Opens a channel for one try, or gives a share of an open one. Called with the target and the credentials."""


class Failure(NamedTuple):
    """Why a try failed."""

    code: grpc.StatusCode
    details: str


def open_channel(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """Without ``credentials`` the connection is not encrypted."""
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(target, credentials, options=_CHANNEL_OPTIONS)


class MasterStream:
    """One ``Connect`` stream. All methods belong to one asyncio loop."""

    def __init__(self, call: grpc.aio.StreamStreamCall[pb.WorkerMessage, pb.MasterMessage]) -> None:
        self._call = call
        self._writing = asyncio.Lock()

    async def write(self, message: pb.WorkerMessage) -> None:
        """Returns when grpc has taken the message, in the order of the calls. Raises ``AioRpcError``.

        A cancellation meanwhile ends the whole stream: shield this call where more is to be sent.
        """
        async with self._writing:
            try:
                await self._call.write(message)
            except asyncio.InvalidStateError:
                # The stream ended meanwhile; its status says why.
                raise await self.error() from None

    async def read(self) -> pb.MasterMessage | None:
        """The next message; ``None`` when the master ended the stream with OK. Raises ``AioRpcError``."""
        message = await self._call.read()
        return message if isinstance(message, pb.MasterMessage) else None

    async def finish(self) -> None:
        """Closes the worker's side."""
        await self._call.done_writing()

    async def error(self) -> grpc.aio.AioRpcError:
        """The end of the stream as an error, also where the master ended it with OK."""
        code = await self._call.code()
        return grpc.aio.AioRpcError(
            code, await self._call.initial_metadata(), await self._call.trailing_metadata(),
            details=await self._call.details() or "the master ended the stream",
        )  # fmt: skip


class Backoff:
    """Delays that grow by a factor up to a cap, each shortened at random by up to half.

    The jitter keeps a fleet that lost its master at one moment from coming back at one moment.
    """

    def __init__(
        self,
        initial_seconds: float = 0.25,
        factor: float = 1.6,
        cap_seconds: float = 15.0,
        rng: random.Random | None = None,
    ) -> None:
        self._initial_seconds, self._factor, self._cap_seconds = initial_seconds, factor, cap_seconds
        self._rng = rng or random.Random()  # nosec B311 # chance without a secret
        self._limit_seconds = cap_seconds
        self._next_seconds = initial_seconds

    def limit(self, seconds: float) -> None:
        """Sets the longest delay from now on, within the first delay and the cap."""
        self._limit_seconds = max(self._initial_seconds, seconds)

    def next_delay_seconds(self) -> float:
        """The delay before the next try."""
        delay = min(self._next_seconds, self._limit_seconds)
        self._next_seconds = min(delay * self._factor, self._cap_seconds)
        return delay * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Starts over with the first delay."""
        self._next_seconds = self._initial_seconds


class OutageLog:
    """Logs an outage once for each status code, however often the master is tried, and its end."""

    def __init__(self, worker_id: str, target: str, logger: logging.Logger) -> None:
        self._worker_id, self._target, self._logger = worker_id, target, logger
        self._since = 0.0
        self.failure: Failure | None = None
        """Of the last try, during an outage."""

    def failed(self, code: grpc.StatusCode, details: str) -> None:
        """A try failed."""
        if self.failure is None:
            self._since = time.monotonic()
        is_known = self.failure is not None and code is self.failure.code
        level = logging.DEBUG if is_known else logging.WARNING
        self.failure = Failure(code, details)
        self._logger.log(
            level, "worker %s: no stream to the master at %s (%s: %s); it will be tried until it works",
            self._worker_id, self._target, code.name, details,
        )  # fmt: skip

    def ended(self) -> None:
        """The master answered."""
        if self.failure is not None:
            seconds = time.monotonic() - self._since
            self._logger.info("worker %s: connected again after %.1f s", self._worker_id, seconds)
        self.failure = None
