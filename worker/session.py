"""A worker's side of the stream: registers, sends heartbeats at the interval of its lease, reconnects.

Runs on one asyncio loop, so that a real worker (one session) and a simulated fleet (thousands of sessions in one
process) run the same code: each of grpc's synchronous streams would need a thread that wakes five times a second.
Nothing slow may run on the loop.
"""

import asyncio
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import grpc

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto import fleetpulse_pb2_grpc as pb_grpc
from fleetpulse.proto.cleaning import clean
from fleetpulse.proto.fields import UNIX_SECONDS
from fleetpulse.proto.listeners import ForeignListener
from fleetpulse.worker.connection import (
    Failure,
    MasterChannel,
    MasterStream,
    OpenChannel,
    OutageLog,
    ReconnectTimes,
    open_channel,
    pushback_seconds,
)

if TYPE_CHECKING:
    from fleetpulse.worker.credentials.renewer import CertificateRenewer

_LOGGER = logging.getLogger(__name__)

Sample = Callable[[], Awaitable[pb.Heartbeat]]
"""Takes the readings of one heartbeat; the session adds the sender and the time."""

GOODBYE_TIMEOUT_SECONDS = 1.0
_STOP_GRACE_SECONDS = 0.25
"""After a stop: for the answer to a registration, and for a heartbeat that is being written."""

_CONNECTION_CUT = re.compile("Socket closed|Connection reset|Broken pipe|GOAWAY", re.IGNORECASE)
"""grpc's words when a master with TLS ends a connection without TLS."""


class TaskExecutor(Protocol):
    """Runs the worker's tasks: ``tasks.executor.Executor`` or ``DisabledExecutor``. All on the session's loop."""

    async def describe(self, register: pb.Register) -> None:
        """Adds the tasks that the worker holds to a registration. Must return soon."""

    def registered(self, registered: pb.Registered) -> None:
        """A new stream is open: everything that is not acknowledged must be sent again."""

    async def must_register_again(self) -> None:
        """Waits until a new registration would hold more than the last one."""

    def disconnected(self) -> None:
        """The stream is gone."""

    def receive(self, message: pb.MasterMessage) -> None:
        """Handles a message of the master. Must not wait: the next message is behind it."""

    async def next_message(self) -> pb.WorkerMessage:
        """Waits for a message to send. A cancellation must lose nothing."""

    def report(self, heartbeat: pb.Heartbeat) -> None:
        """Adds the running tasks to a heartbeat. Must not wait."""


class _RegisterAgain(Exception):
    """The stream works, but needs a new registration or a newer certificate."""


class WorkerSession:
    """Keeps one worker connected. ``run`` until ``stop``; constructed and used on one asyncio loop."""

    def __init__(
        self,
        target: str,
        register: pb.Register,
        sample: Sample,
        rng: random.Random | None = None,
        tasks: TaskExecutor | None = None,
        credentials: "CertificateRenewer | None" = None,
        open_channel: OpenChannel = open_channel,
        check_master: Callable[[], None] = lambda: None,
    ) -> None:
        """``register`` identifies the worker; for each stream ``tasks`` adds what the worker holds.

        Without ``credentials`` no connection is encrypted; with them every one is. Simulated workers that share a
        connection give their own ``open_channel``. ``check_master`` is called before each try, and raises
        ``ForeignListener`` if the worker must not connect.
        """
        self._target = target
        self._credentials = credentials
        self._channel = MasterChannel(target, self._channel_credentials, open_channel)
        self._check_master = check_master
        self.report_cores: Callable[[float], None] = lambda _seconds: None
        """Has the heartbeats carry the cores for some seconds; the composition root sets it."""
        self._tasks = tasks
        self._register = register
        self._sample = sample
        self._rng = rng or random.Random()  # nosec B311 # chance without a secret
        self._times = ReconnectTimes(self._rng)
        self._outage = OutageLog(register.worker_id, target, _LOGGER)
        self.heartbeats_sent = 0
        """Over all streams of this session; the last sequence number."""
        self.is_connected = False
        """Whether the master has registered this worker on a stream that is open."""
        self._registered_at: float | None = None
        """When the last try registered the worker, on the monotonic clock; ``None`` when it did not."""
        self._stopped: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def failure(self) -> Failure | None:
        """Why the last try failed; ``None`` while it is connected and before the first try has ended."""
        return self._outage.failure

    async def run(self) -> None:
        """Stays connected until ``stop``; returns after the goodbye. A session runs once."""
        try:
            while not self._stopped.done():
                self._registered_at = None
                try:
                    await self._connect()
                except grpc.aio.AioRpcError as error:
                    failure = Failure(error.code(), self._explain(error), pushback_seconds(error))
                except ForeignListener as error:
                    failure = Failure(grpc.StatusCode.PERMISSION_DENIED, str(error))
                except _RegisterAgain:
                    _LOGGER.info("worker %s: registers again", self._register.worker_id)
                    continue
                except TimeoutError:
                    failure = self._times.no_answer()
                else:
                    return
                self._outage.failed(failure)
                await self._channel.failed(failure)
                await asyncio.wait({self._stopped}, timeout=self._delay_seconds(failure))
        finally:
            await self._channel.close()

    def _channel_credentials(self) -> grpc.ChannelCredentials | None:
        return None if self._credentials is None else self._credentials.channel_credentials()

    def _delay_seconds(self, failure: Failure) -> float:
        if self._registered_at is None:
            return self._times.delay_after_failure(failure)
        return self._times.delay_after_loss(time.monotonic() - self._registered_at)

    def stop(self, reason: str) -> None:
        """Says goodbye with this reason and ends ``run``, also before ``run`` has begun."""
        if not self._stopped.done():
            self._stopped.set_result(reason)

    def _explain(self, error: grpc.aio.AioRpcError) -> str:
        """Why a try failed: grpc says next to nothing about a failed handshake."""
        details = error.details() or "no details"
        if self._credentials is not None:
            if health_error := self._credentials.health_error():
                return health_error
            if "WRONG_VERSION_NUMBER" in details:
                return "the master does not speak TLS, and this worker has a certificate and connects only with TLS"
        elif not self.heartbeats_sent and _CONNECTION_CUT.search(details):
            return f"{details}; does the master want a certificate, which `--join` gets?"
        return details

    async def _connect(self) -> None:
        """One stream, from the registration to its end. Returns after a stop; raises ``AioRpcError``, ``TimeoutError``
        when there was no answer in time, ``ForeignListener``, ``_RegisterAgain``.
        """
        self._check_master()
        stub = pb_grpc.FleetStub(await self._channel.open())
        stream = MasterStream(stub.Connect())
        try:
            lease = await self._first_answer(stream)
            if lease is None:
                return
            self._registered_at = time.monotonic()
            self._channel.answered()
            self._times.registered(lease)
            self._outage.ended()
            _LOGGER.info(
                "worker %s: registered at %s, heartbeats every %g s",
                self._register.worker_id, self._target, lease.heartbeat_interval_seconds,
            )  # fmt: skip
            await self._serve(stream, lease, stub)
        finally:
            stream.cancel()

    async def _first_answer(self, stream: MasterStream) -> pb.Registered | None:
        """The answer to the registration; ``None`` after a stop. Raises as ``_connect``."""
        registration = asyncio.ensure_future(self._register_on(stream))
        loop, waits = asyncio.get_running_loop(), (registration, self._stopped)
        begins_at: float | None = loop.time()
        try:
            # The time begins anew when there is a connection: a handshake with a busy master takes long.
            while begins_at is not None and not any(wait.done() for wait in waits):
                timeout = begins_at + self._times.first_answer_seconds - loop.time()
                await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                begins_at = stream.written_at if stream.written_at != begins_at else None
            if self._stopped.done():
                # The master may know this worker already; only a registered worker can say goodbye.
                await asyncio.wait((registration,), timeout=_STOP_GRACE_SECONDS)
        finally:
            registration.cancel()  # no effect when it is done
        if registration.done():
            return registration.result()
        if self._stopped.done():
            return None
        raise TimeoutError

    async def _register_on(self, stream: MasterStream) -> pb.Registered:
        register = pb.Register()
        register.CopyFrom(self._register)
        if self._tasks is not None:
            await self._tasks.describe(register)
        if changes := clean(register):
            _LOGGER.info("worker %s: the registration was made to fit: %s", register.worker_id, "; ".join(changes))
        await stream.write(pb.WorkerMessage(register=register))
        first = await stream.read()
        if first is None or first.WhichOneof("message") != "registered":
            raise await stream.error()
        return first.registered

    async def _serve(self, stream: MasterStream, lease: pb.Registered, stub: "pb_grpc.FleetAsyncStub") -> None:
        """Sends heartbeats, receives and sends messages until the stream ends, or until the goodbye."""
        if self._tasks is not None:
            self._tasks.registered(lease)
        reader = asyncio.ensure_future(self._receive_messages(stream))
        sender = asyncio.ensure_future(self._send_messages(stream))
        outdated = asyncio.ensure_future(self._wait_until_outdated(stub))
        self.is_connected = True
        try:
            await self._send_heartbeats(stream, reader, outdated, lease.heartbeat_interval_seconds)
            if not self._stopped.done():
                raise _RegisterAgain
            # The goodbye must be the last message.
            sender.cancel()
            await self._say_goodbye(stream, reader, self._stopped.result())
        finally:
            self.is_connected = False
            for task in (reader, sender, outdated):
                task.cancel()
            if self._tasks is not None:
                self._tasks.disconnected()

    async def _receive_messages(self, stream: MasterStream) -> None:
        while (message := await stream.read()) is not None:
            if message.HasField("report_cores"):
                self.report_cores(message.report_cores.seconds)
            elif self._tasks is not None:
                self._tasks.receive(message)

    async def _send_messages(self, stream: MasterStream) -> None:
        """Sends the messages of the tasks at once."""
        if self._tasks is None:
            return
        try:
            while True:
                message = await self._tasks.next_message()
                writing = asyncio.ensure_future(stream.write(message))
                # The write goes on when this is cancelled, and may then fail with no task waiting for it.
                writing.add_done_callback(_ignore_exception)
                await asyncio.shield(writing)
        except grpc.aio.AioRpcError as error:
            # The reader meets the same error, and raises it.
            _LOGGER.debug("worker %s: a message was not sent (%s)", self._register.worker_id, error.code())

    async def _wait_until_outdated(self, stub: "pb_grpc.FleetAsyncStub") -> None:
        """Returns when the registration or the certificate of the stream is outdated."""
        waits = []
        if self._tasks is not None:
            waits.append(asyncio.ensure_future(self._tasks.must_register_again()))
        if self._credentials is not None:
            waits.append(asyncio.ensure_future(self._credentials.renew_when_due(stub.Renew)))
        if not waits:
            await asyncio.Event().wait()
        try:
            ended, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            ended.pop().result()
        finally:
            for wait in waits:
                wait.cancel()

    async def _send_heartbeats(
        self,
        stream: MasterStream,
        reader: "asyncio.Future[None]",
        outdated: "asyncio.Future[None]",
        interval_seconds: float,
    ) -> None:
        """Sends one at once, then one at each interval from a random phase on, so that a fleet spreads out.

        Returns after a stop and when ``outdated`` is done; raises ``AioRpcError`` when the stream has ended.
        """
        ends = reader, self._stopped, outdated
        loop = asyncio.get_running_loop()
        due = loop.time() + interval_seconds * self._rng.random() - interval_seconds
        while not reader.done():
            if self._stopped.done() or outdated.done():
                return
            heartbeat = await self._sample()
            writing = asyncio.ensure_future(stream.write(self._complete(heartbeat)))
            writing.add_done_callback(_ignore_exception)
            # A master that no longer reads must not delay the stop.
            await asyncio.wait((writing, *ends), return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
            else:
                await asyncio.wait((writing,), timeout=_STOP_GRACE_SECONDS)
            due = max(due + interval_seconds, loop.time())
            await asyncio.wait(ends, timeout=due - loop.time(), return_when=asyncio.FIRST_COMPLETED)
        reader.result()
        raise await stream.error()

    def _complete(self, heartbeat: pb.Heartbeat) -> pb.WorkerMessage:
        """Adds the sender, the sequence number, the time and the tasks."""
        self.heartbeats_sent += 1
        heartbeat.worker_id = self._register.worker_id
        heartbeat.incarnation_id = self._register.incarnation_id
        heartbeat.sequence_number = self.heartbeats_sent
        if UNIX_SECONDS.fits(now := time.time()):
            heartbeat.sent_time_unix_seconds = now
        if self._tasks is not None:
            self._tasks.report(heartbeat)
        return pb.WorkerMessage(heartbeat=heartbeat)

    async def _say_goodbye(self, stream: MasterStream, reader: "asyncio.Future[None]", reason: str) -> None:
        try:
            async with asyncio.timeout(GOODBYE_TIMEOUT_SECONDS):
                await stream.write(pb.WorkerMessage(goodbye=pb.Goodbye(reason=reason)))
                await stream.finish()
                await asyncio.wait({reader})
        except TimeoutError:
            _LOGGER.info("worker %s: the master did not answer the goodbye (%s)", self._register.worker_id, reason)
        else:
            _LOGGER.info("worker %s: said goodbye (%s)", self._register.worker_id, reason)


def _ignore_exception(writing: "asyncio.Future[None]") -> None:
    """Marks the exception of an abandoned write as retrieved: the reader raises why the stream ended."""
    if not writing.cancelled():
        writing.exception()
