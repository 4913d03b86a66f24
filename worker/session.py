"""A worker's side of the stream: register, beat at the interval that the master grants, come back when it breaks.

Runs on one asyncio loop, so that a real worker (one session) and a simulated fleet (thousands of them in one process)
run the very same code: a thread for each of grpc's synchronous streams would wake five times a second for nothing.
Nothing slow may run on the loop; readings are awaited from wherever they are taken.
"""

import asyncio
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import grpc

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto import fleetpulse_pb2_grpc as pb_grpc
from fleetpulse.worker.backoff import Backoff
from fleetpulse.worker.stream import MasterStream

_LOGGER = logging.getLogger(__name__)

Sample = Callable[[], Awaitable[pb.Heartbeat]]
"""Takes the readings of one heartbeat; the session adds who it is from."""

FIRST_ANSWER_SECONDS = 10.0
LAST_ANSWER_SECONDS = 0.25
GOODBYE_SECONDS = 1.0
LASTING_SECONDS = 5.0
"""A stream that lived this long was good: the next outage starts with short delays again."""

LONGEST_DELAY_RATIO = 0.5
"""Of the inactivity timeout: between two tries to reach the master."""

_CUT_SHORT = re.compile("Socket closed|Connection reset|Broken pipe|GOAWAY", re.IGNORECASE)
"""What grpc says of a connection that a master with TLS ends, because it does not understand it."""

_CHANNEL_OPTIONS = (
    # One connection a worker, also where a process holds thousands of them.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.http2.bdp_probe", 0),
    # With keepalive on, grpc also sets TCP_USER_TIMEOUT: heartbeats that nobody acknowledges end the stream.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_retries", 0),
)


class Tasks(Protocol):
    """What a session needs of the worker's tasks; ``tasks.executor.Executor`` is one. All on the session's loop."""

    async def describe(self, register: pb.Register) -> None:
        """Say in a registration what the worker holds. Must come back soon."""
        ...

    def registered(self, terms: pb.Registered) -> None:
        """A new stream is open, on which everything that is not acknowledged is to be sent again."""
        ...

    async def must_register_again(self) -> None:
        """Wait until there is more to say in a registration than there was."""
        ...

    def disconnected(self) -> None:
        """The stream is gone."""
        ...

    def receive(self, message: pb.MasterMessage) -> None:
        """Must not wait: the next message is behind it."""
        ...

    async def next_message(self) -> pb.WorkerMessage:
        """Wait for what is to be sent. Cancelling it must lose nothing."""
        ...

    def report(self, heartbeat: pb.Heartbeat) -> None:
        """Add what runs. Must not wait."""
        ...


class Credentials(Protocol):
    """What a session needs of a certificate; ``credentials.keeper.CertificateRenewer`` is one. All on its loop."""

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For a new connection."""
        ...

    def health_error(self) -> str | None:
        """Why no master will take the certificate."""
        ...

    async def renew_when_due(self, renew: Callable[..., Awaitable[pb.CertificateChain]]) -> None:
        """Wait until there is a newer certificate, for which a new connection is needed."""
        ...


class _RegisterAgain(Exception):
    """The stream is good, but its registration did not say all, or its certificate is not the newest."""


class _Outage:
    """What is wrong with the way to the master, said once however often it is tried."""

    def __init__(self, worker_id: str, target: str) -> None:
        self._worker_id = worker_id
        self._target = target
        self._said: grpc.StatusCode | None = None
        self._since = 0.0

    def failed(self, code: grpc.StatusCode, details: str) -> None:
        """A try ended like this."""
        if self._said is None:
            self._since = time.monotonic()
        level = logging.DEBUG if code is self._said else logging.WARNING
        self._said = code
        _LOGGER.log(
            level, "worker %s: no stream to the master at %s (%s: %s); it will be tried until it works",
            self._worker_id, self._target, code.name, details,
        )  # fmt: skip

    def over(self) -> None:
        """The master answered."""
        if self._said is not None:
            _LOGGER.info("worker %s: connected again after %.1f s", self._worker_id, time.monotonic() - self._since)
        self._said = None


class WorkerSession:
    """Keeps one worker connected. ``run`` until ``stop``; all methods belong to one asyncio loop."""

    def __init__(
        self,
        target: str,
        register: pb.Register,
        sample: Sample,
        rng: random.Random | None = None,
        tasks: Tasks | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        """``register`` says who the worker is; what it holds, ``tasks`` adds anew for each stream.

        Without ``credentials`` the connection is not encrypted; with them there is never one that is not.
        """
        self._target = target
        self._credentials = credentials
        self._tasks = tasks
        self._register = register
        self._sample = sample
        self._rng = rng or random.Random()  # nosec B311 # chance without a secret
        self._backoff = Backoff(rng=self._rng)
        self._outage = _Outage(register.worker_id, target)
        self._sequence = 0
        self.is_connected = False
        """Whether the master has registered this worker on a stream that is open."""
        self._stop_reason: asyncio.Future[str] | None = None

    @property
    def heartbeats_sent(self) -> int:
        """Since the session was made, over all its streams."""
        return self._sequence

    async def run(self) -> None:
        """Stay connected until ``stop``; returns when the goodbye is said. A session runs once."""
        stop_reason = self._stopping()
        while not stop_reason.done():
            started = time.monotonic()
            try:
                await self._connect_and_beat(stop_reason)
            except grpc.aio.AioRpcError as error:
                self._outage.failed(error.code(), self._why(error))
            except _RegisterAgain:
                _LOGGER.info("worker %s: registers again", self._register.worker_id)
                continue
            except TimeoutError:
                self._outage.failed(grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer within {FIRST_ANSWER_SECONDS:.0f} s")
            if time.monotonic() - started >= LASTING_SECONDS:
                self._backoff.reset()
            await asyncio.wait({stop_reason}, timeout=self._backoff.next_delay_seconds())

    def stop(self, reason: str) -> None:
        """Say goodbye with this reason and end ``run``, also when it has not begun."""
        stop_reason = self._stopping()
        if not stop_reason.done():
            stop_reason.set_result(reason)

    def _why(self, error: grpc.aio.AioRpcError) -> str:
        """Why a try failed, for people: of a handshake that fails, grpc tells next to nothing."""
        details = error.details() or "no details"
        own = self._credentials and self._credentials.health_error()
        if own:
            return own
        if self._credentials is not None and "WRONG_VERSION_NUMBER" in details:
            return "the master does not speak TLS, and this worker has a certificate and goes nowhere without"
        if self._credentials is None and not self._sequence and _CUT_SHORT.search(details):
            return f"{details}; does the master want a certificate, which `--join` gets?"
        return details

    def _open_channel(self) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(self._target, options=_CHANNEL_OPTIONS)
        credentials = self._credentials.channel_credentials()
        return grpc.aio.secure_channel(self._target, credentials, options=_CHANNEL_OPTIONS)

    def _stopping(self) -> "asyncio.Future[str]":
        if self._stop_reason is None:
            self._stop_reason = asyncio.get_running_loop().create_future()
        return self._stop_reason

    async def _connect_and_beat(self, stop_reason: "asyncio.Future[str]") -> None:
        async with self._open_channel() as channel:
            stub = pb_grpc.FleetStub(channel)
            stream = MasterStream(stub.Connect())
            registered = asyncio.ensure_future(self._registered(stream))
            try:
                await asyncio.wait(
                    (registered, stop_reason), timeout=FIRST_ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if stop_reason.done():
                    # The master may know this worker already; only who is registered can say goodbye.
                    await asyncio.wait((registered,), timeout=LAST_ANSWER_SECONDS)
            finally:
                registered.cancel()  # in vain when it is done
            if not registered.done():
                if not stop_reason.done():
                    raise TimeoutError
                return
            terms = registered.result()
            # A master that is started again gives up what its workers ran when they are not back in that time.
            self._backoff.limit(terms.inactivity_timeout_seconds * LONGEST_DELAY_RATIO)
            self._outage.over()
            _LOGGER.info(
                "worker %s: registered at %s, beats every %g s",
                self._register.worker_id, self._target, terms.heartbeat_interval_seconds,
            )  # fmt: skip
            await self._talk(stream, terms, stop_reason, stub)

    async def _registered(self, stream: MasterStream) -> pb.Registered:
        register = pb.Register()
        register.CopyFrom(self._register)
        if self._tasks is not None:
            await self._tasks.describe(register)
        await stream.write(pb.WorkerMessage(register=register))
        first = await stream.read()
        if first is None or first.WhichOneof("message") != "registered":
            raise await stream.error()
        return first.registered

    async def _talk(
        self,
        stream: MasterStream,
        terms: pb.Registered,
        stop_reason: "asyncio.Future[str]",
        stub: "pb_grpc.FleetAsyncStub",
    ) -> None:
        """Beat, receive and send until the stream ends, or with a goodbye."""
        if self._tasks is not None:
            self._tasks.registered(terms)
        reader = asyncio.ensure_future(self._receive(stream))
        sender = asyncio.ensure_future(self._send(stream))
        again = asyncio.ensure_future(self._must_register_again(stub))
        self.is_connected = True
        try:
            await self._beat(stream, (reader, stop_reason, again), terms.heartbeat_interval_seconds)
            if not stop_reason.done():
                raise _RegisterAgain
            # It ended by a stop: the goodbye is the last word.
            sender.cancel()
            await self._say_goodbye(stream, reader, stop_reason.result())
        finally:
            self.is_connected = False
            for task in (reader, sender, again):
                task.cancel()
            if self._tasks is not None:
                self._tasks.disconnected()

    async def _receive(self, stream: MasterStream) -> None:
        """Hand on what the master sends until the stream ends; what nobody knows here is none of its business."""
        while (message := await stream.read()) is not None:
            if self._tasks is not None:
                self._tasks.receive(message)

    async def _send(self, stream: MasterStream) -> None:
        """Send what the tasks have to say, at once."""
        if self._tasks is None:
            return
        try:
            while True:
                message = await self._tasks.next_message()
                writing = asyncio.ensure_future(stream.write(message))
                # It goes on when this is cancelled, and may then fail with nobody there.
                writing.add_done_callback(_hear)
                await asyncio.shield(writing)
        except grpc.aio.AioRpcError as error:
            # The reader meets the same end, and tells it.
            _LOGGER.debug("worker %s: a message was not sent (%s)", self._register.worker_id, error.code())

    async def _must_register_again(self, stub: "pb_grpc.FleetAsyncStub") -> None:
        reasons = []
        if self._tasks is not None:
            reasons.append(asyncio.ensure_future(self._tasks.must_register_again()))
        if self._credentials is not None:
            reasons.append(asyncio.ensure_future(self._credentials.renew_when_due(stub.Renew)))
        if not reasons:
            await asyncio.Event().wait()
        try:
            ended, _ = await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
            ended.pop().result()
        finally:
            for reason in reasons:
                reason.cancel()

    async def _beat(
        self,
        stream: MasterStream,
        ends: "tuple[asyncio.Future[None], asyncio.Future[str], asyncio.Future[None]]",
        interval_seconds: float,
    ) -> None:
        """Beat at once, then at the interval from a random phase on, so that a fleet that came at once spreads out.

        ``ends`` are the reader, whose end is the stream's and raises ``AioRpcError``, and what else ends the beating:
        a stop, and a reason to register again; then it returns.
        """
        reader, stop_reason, again = ends
        loop = asyncio.get_running_loop()
        due = loop.time() + interval_seconds * self._rng.random() - interval_seconds
        while not reader.done():
            if stop_reason.done() or again.done():
                return
            heartbeat = await self._sample()
            writing = asyncio.ensure_future(stream.write(self._stamped(heartbeat)))
            writing.add_done_callback(_hear)
            # A master that reads nothing any more must not keep this worker from its stop.
            await asyncio.wait((writing, *ends), return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
            else:
                await asyncio.wait((writing,), timeout=LAST_ANSWER_SECONDS)
            due = max(due + interval_seconds, loop.time())
            await asyncio.wait(ends, timeout=due - loop.time(), return_when=asyncio.FIRST_COMPLETED)
        reader.result()
        raise await stream.error()

    def _stamped(self, heartbeat: pb.Heartbeat) -> pb.WorkerMessage:
        self._sequence += 1
        heartbeat.worker_id = self._register.worker_id
        heartbeat.incarnation_id = self._register.incarnation_id
        heartbeat.sequence_number = self._sequence
        heartbeat.sent_time_unix_seconds = time.time()
        if self._tasks is not None:
            self._tasks.report(heartbeat)
        return pb.WorkerMessage(heartbeat=heartbeat)

    async def _say_goodbye(self, stream: MasterStream, reader: "asyncio.Future[None]", reason: str) -> None:
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await stream.write(pb.WorkerMessage(goodbye=pb.Goodbye(reason=reason)))
                await stream.finish()
                await asyncio.wait({reader})
        except TimeoutError:
            _LOGGER.info("worker %s: the master did not answer the goodbye (%s)", self._register.worker_id, reason)
        else:
            _LOGGER.info("worker %s: said goodbye (%s)", self._register.worker_id, reason)


def _hear(writing: "asyncio.Future[None]") -> None:
    """One that nobody waits for any more may fail: the reader tells why the stream ended."""
    if not writing.cancelled():
        writing.exception()
