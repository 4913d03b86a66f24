"""The connection of a worker to its master: the channel, its stream, the delays between tries, the log of outages."""

import asyncio
import ipaddress
import logging
import math
import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

import grpc

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto.listeners import is_loopback

_CHANNEL_OPTIONS = (
    # One connection for each worker, also where a process holds thousands of them.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.http2.bdp_probe", 0),
    # With keepalive on, grpc also sets TCP_USER_TIMEOUT: heartbeats that are not acknowledged end the stream.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_retries", 0),
)
_TLS_OPTION = ("grpc.min_reconnect_backoff_ms", 60_000)
"""The time for a connection with its handshake, 20 s by default. The master allows as much. When a whole fleet returns,
a handshake takes long, and one that is given up is done twice.
"""

OpenChannel = Callable[[str, grpc.ChannelCredentials | None], AbstractAsyncContextManager[grpc.aio.Channel]]
"""Opens a channel, or gives a share of an open one. Called with the target and the credentials. The context is left
when the channel is of no use, and entered again for the next try.
"""

_PUSHBACK_KEY = "grpc-retry-pushback-ms"
_MAX_PUSHBACK_DIGITS = 9
_PASSING_CODES = frozenset(
    (
        *(grpc.StatusCode.OK, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED),
        *(grpc.StatusCode.ABORTED, grpc.StatusCode.UNAVAILABLE),
    )
)
"""Ends of a stream after which the next try may well work. After others, the wait must not occupy a connection."""


_MAX_UNANSWERED_SECONDS = 120.0
"""After so long without an answer to any try, a connection is given up."""

_STATUS_TRIES, _STATUS_WAIT_SECONDS = 50, 0.01
"""How long a status may be behind the failure of a write. grpc tells both when it sees the end of a stream."""


class Failure(NamedTuple):
    """Why a try failed, or how a stream that worked has ended."""

    code: grpc.StatusCode
    details: str
    pushback_seconds: float | None = None
    """How long the master asks the worker to wait."""

    unanswered_seconds: float = 0.0
    """How long the worker waited for an answer to its registration, if none came."""


def pushback_seconds(error: grpc.aio.AioRpcError) -> float | None:
    """The delay that the master asks for in the trailing metadata of a refusal; ``None`` without a valid one.

    The format is that of https://github.com/grpc/proposal/blob/master/A6-client-retries.md: milliseconds.
    """
    for key, value in error.trailing_metadata() or ():
        text = value.decode(errors="replace") if isinstance(value, bytes) else value
        if key == _PUSHBACK_KEY and text.isascii() and text.isdecimal() and len(text) <= _MAX_PUSHBACK_DIGITS:
            return int(text) / 1000.0
    return None


class MasterChannel:
    """The channel of a worker, which it keeps over its tries: a connection, above all with TLS, costs the master more
    than a stream. All methods belong to one asyncio loop.
    """

    def __init__(
        self, target: str, credentials: Callable[[], grpc.ChannelCredentials | None], open_channel: OpenChannel
    ) -> None:
        """``credentials`` returns the same object until there are newer ones, and ``None`` for no encryption."""
        self._target, self._credentials = target, credentials
        self._open_channel = open_channel
        self._opened_with: grpc.ChannelCredentials | None = None
        self._context: AbstractAsyncContextManager[grpc.aio.Channel] | None = None
        self._channel: grpc.aio.Channel | None = None
        self._unanswered_seconds = 0.0

    async def open(self) -> grpc.aio.Channel:
        """Returns the channel for the next stream: the same one, unless it is of no use or the certificate is new."""
        wanted = self._credentials()
        if self._opened_with is not wanted:
            await self.close()
        if self._channel is None:
            context = self._open_channel(self._target, wanted)
            self._channel = await context.__aenter__()
            self._context, self._opened_with, self._unanswered_seconds = context, wanted, 0.0
        return self._channel

    def answered(self) -> None:
        """The master answered on this channel."""
        self._unanswered_seconds = 0.0

    async def failed(self, failure: Failure) -> None:
        """A stream ended. Closes the channel unless the next stream is better off on it."""
        self._unanswered_seconds += failure.unanswered_seconds
        if self._channel is not None and not is_worth_keeping(
            self._channel.get_state(), failure, self._unanswered_seconds
        ):
            await self.close()

    async def close(self) -> None:
        """Ends the connection and its streams."""
        context, self._context, self._channel = self._context, None, None
        if context is not None:
            await context.__aexit__(None, None, None)


def is_worth_keeping(state: grpc.ChannelConnectivity, failure: Failure, unanswered_seconds: float) -> bool:
    """Whether the next stream should use a channel in this state, on which the master has left the last tries without
    an answer for so long.

    A channel that could not connect goes on trying by itself, when *it* wants; a new one connects when the session
    wants. On one that is connected and silent the master may only be slow, but not for ever.
    """
    if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
        return False
    if failure.code not in _PASSING_CODES and failure.pushback_seconds is None:
        return False
    return unanswered_seconds < _MAX_UNANSWERED_SECONDS


def open_channel(
    target: str, credentials: grpc.ChannelCredentials | None, proxy: str | None = None
) -> grpc.aio.Channel:
    """Without ``credentials`` the connection is not encrypted. ``proxy``: the URL of an HTTP proxy that can CONNECT."""
    # The proxies of the environment are for other programs.
    options = (*_CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0) if proxy is None else ("grpc.http_proxy", proxy))
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials, options=(*options, _TLS_OPTION))


def bypasses_proxy(host: str, exceptions: str) -> bool:
    """Whether connections to a host or address go past the proxy. ``exceptions`` is the value of ``NO_PROXY``: host
    names, which stand for all below them too, addresses, networks as ``10.0.0.0/8``, or ``*``; separated by commas.
    """
    name = host.strip("[]").rstrip(".").lower()
    if is_loopback(name):
        return True
    for entry in exceptions.lower().split(","):
        word = entry.strip().lstrip(".").removeprefix("*.")
        if word and (word in ("*", name) or name.endswith(f".{word}") or _is_in_network(name, word)):
            return True
    return False


def _is_in_network(address: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network.strip("[]"), strict=False)
    except ValueError:
        return False


class MasterStream:
    """One ``Connect`` stream. All methods belong to one asyncio loop."""

    def __init__(self, call: grpc.aio.StreamStreamCall[pb.WorkerMessage, pb.MasterMessage]) -> None:
        self._call = call
        self._writing = asyncio.Lock()
        self._first_error: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._note_end)
        self.written_at: float | None = None
        """When grpc first took a message, on the loop's clock: there was a connection then."""

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
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.INTERNAL:
                    raise
                raise await self._why_write_failed() from None
        if self.written_at is None:
            self.written_at = asyncio.get_running_loop().time()

    async def read(self) -> pb.MasterMessage | None:
        """The next message; ``None`` when the master ended the stream with OK. Raises ``AioRpcError``."""
        message = await self._call.read()
        return message if isinstance(message, pb.MasterMessage) else None

    async def finish(self) -> None:
        """Closes the worker's side."""
        await self._call.done_writing()

    def cancel(self) -> None:
        """Ends the stream, and leaves its connection open. Does nothing when it has ended."""
        self._call.cancel()

    def _note_end(self, _call: object) -> None:
        """The status is there, so nothing that ``error`` awaits has to wait."""
        if self._call.cancelled():
            return
        reading = self.error()
        try:
            reading.send(None)
        except StopIteration as ended:
            self._first_error = ended.value
        finally:
            reading.close()

    async def _why_write_failed(self) -> grpc.aio.AioRpcError:
        """The status that the stream has ended with.

        grpc calls each write that comes after the end INTERNAL, and writes that over the status of the master, or sets
        it before that one arrives: https://github.com/grpc/grpc/issues/36066.
        """
        first = self._first_error
        if first is not None and first.code() is not grpc.StatusCode.INTERNAL:
            return first
        tries = _STATUS_TRIES
        while (error := await self.error()).code() is grpc.StatusCode.INTERNAL and tries:
            await asyncio.sleep(_STATUS_WAIT_SECONDS)
            tries -= 1
        return error

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


class ReconnectTimes:
    """When a worker tries again, and how long it waits for the answer to its registration. Pure; in seconds.

    * Delays grow (``Backoff``) up to half the inactivity timeout: a master that starts again gives up the tasks of
      workers that are not back in time.
    * A large fleet spreads out. ``reconnect_spread_seconds`` of the last ``Registered`` is about what it costs the
      master to register all workers. After the loss of a stream a worker waits a random time within it. While its
      tries fail, they are about as far apart, so the fleet is spread out whenever the master returns.
    * The spread never endangers the lease. The last heartbeat may be one interval old when the stream is lost, so the
      spread is cut to half of what is then left of the inactivity timeout. A master with more workers than it can
      register in that time refuses the rest with a pushback.
    * A worker keeps to the pushback of a refusal, at most two minutes, so that no master can send a fleet away. It adds
      up to a quarter at random.
    * The time for the first answer doubles with each try without one, because a master that is slow only gets slower
      when its workers give up and start over. At a wrong address a new worker says so after 10 s. One that was
      registered before waits for the longest time from the first try.
    """

    FIRST_ANSWER_SECONDS = 10.0
    LONGEST_FIRST_ANSWER_SECONDS = 60.0
    LONGEST_PUSHBACK_SECONDS = 120.0

    _STABLE_SECONDS = 5.0
    """After a stream that lasted so long, the next outage starts with short delays again."""

    _MAX_DELAY_RATIO = 0.5
    """Longest delay between two tries, as a share of the inactivity timeout."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._backoff = Backoff(rng=rng)
        self._spread_seconds = 0.0
        self.first_answer_seconds = self.FIRST_ANSWER_SECONDS
        """How long the next try waits for the answer to its registration."""

    def registered(self, lease: pb.Registered) -> None:
        """The master answered the registration."""
        timeout = lease.inactivity_timeout_seconds
        self._backoff.limit(timeout * self._MAX_DELAY_RATIO)
        told = lease.reconnect_spread_seconds
        if not (math.isfinite(told) and told > 0.0):
            told = 0.0
        self._spread_seconds = min(told, max(timeout - lease.heartbeat_interval_seconds, 0.0) / 2.0)
        self.first_answer_seconds = self.LONGEST_FIRST_ANSWER_SECONDS

    def no_answer(self) -> Failure:
        """The failure of a try whose time for the first answer is over."""
        waited = self.first_answer_seconds
        details = f"no answer within {waited:.0f} s"
        return Failure(grpc.StatusCode.DEADLINE_EXCEEDED, details, unanswered_seconds=waited)

    def delay_after_loss(self, lasted_seconds: float) -> float:
        """The delay after the end of a stream on which the worker was registered."""
        if lasted_seconds >= self._STABLE_SECONDS:
            self._backoff.reset()
        return max(self._backoff.next_delay_seconds(), self._rng.uniform(0.0, self._spread_seconds))

    def delay_after_failure(self, failure: Failure) -> float:
        """The delay after a try on which the worker was not registered."""
        if failure.unanswered_seconds:
            self.first_answer_seconds = min(self.first_answer_seconds * 2.0, self.LONGEST_FIRST_ANSWER_SECONDS)
        delay = self._backoff.next_delay_seconds()
        if failure.pushback_seconds is not None:
            asked = min(failure.pushback_seconds, self.LONGEST_PUSHBACK_SECONDS)
            return max(delay, asked * self._rng.uniform(1.0, 1.25))
        return max(delay, self._spread_seconds * self._rng.uniform(0.5, 1.0))


class OutageLog:
    """Logs an outage once for each status code, however often the master is tried, and its end."""

    def __init__(self, worker_id: str, target: str, logger: logging.Logger) -> None:
        self._worker_id, self._target, self._logger = worker_id, target, logger
        self._since = 0.0
        self.failure: Failure | None = None
        """Of the last try, during an outage."""

    def failed(self, failure: Failure) -> None:
        """A try failed, or a stream has ended."""
        if self.failure is None:
            self._since = time.monotonic()
        is_known = self.failure is not None and failure.code is self.failure.code
        level = logging.DEBUG if is_known else logging.WARNING
        self.failure = failure
        self._logger.log(
            level, "worker %s: no stream to the master at %s (%s: %s); it will be tried until it works",
            self._worker_id, self._target, failure.code.name, failure.details,
        )  # fmt: skip

    def ended(self) -> None:
        """The master answered."""
        if self.failure is not None:
            seconds = time.monotonic() - self._since
            self._logger.info("worker %s: connected again after %.1f s", self._worker_id, seconds)
        self.failure = None
