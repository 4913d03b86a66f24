"""A worker's side of the stream: register, beat at the interval that the master grants, come back when it breaks.

Runs on one asyncio loop, so that a real worker (one session) and a simulated fleet (thousands of them in one process)
run the very same code: a thread for each of grpc's synchronous streams would wake five times a second for nothing.
Nothing slow may run on the loop; readings are awaited from wherever they are taken.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

import grpc

from proto import fleetpulse_pb2 as pb
from proto import fleetpulse_pb2_grpc as pb_grpc
from worker.backoff import Backoff

_LOGGER = logging.getLogger(__name__)

Sample = Callable[[], Awaitable[pb.Heartbeat]]
"""Takes the readings of one heartbeat; the session adds who it is from."""

FIRST_ANSWER_SECONDS = 10.0
LAST_ANSWER_SECONDS = 0.25
GOODBYE_SECONDS = 1.0
LASTING_SECONDS = 5.0
"""A stream that lived this long was good: the next outage starts with short delays again."""

_CHANNEL_OPTIONS = (
    # One connection a worker, also where a process holds thousands of them.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.http2.bdp_probe", 0),
    # With keepalive on, grpc also sets TCP_USER_TIMEOUT: heartbeats that nobody acknowledges end the stream.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_retries", 0),
)


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

    def __init__(self, target: str, register: pb.Register, sample: Sample, rng: random.Random | None = None) -> None:
        self._target = target
        self._register = register
        self._sample = sample
        self._rng = rng or random.Random()
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
                self._outage.failed(error.code(), error.details() or "no details")
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

    def _stopping(self) -> "asyncio.Future[str]":
        if self._stop_reason is None:
            self._stop_reason = asyncio.get_running_loop().create_future()
        return self._stop_reason

    async def _connect_and_beat(self, stop_reason: "asyncio.Future[str]") -> None:
        async with grpc.aio.insecure_channel(self._target, options=_CHANNEL_OPTIONS) as channel:
            call: grpc.aio.StreamStreamCall[pb.WorkerMessage, pb.MasterMessage] = pb_grpc.FleetStub(channel).Connect()
            registered = asyncio.ensure_future(self._registered(call))
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
            self._outage.over()
            _LOGGER.info(
                "worker %s: registered at %s, beats every %g s",
                self._register.worker_id, self._target, terms.heartbeat_interval_seconds,
            )  # fmt: skip
            reader = asyncio.ensure_future(_drain(call))
            self.is_connected = True
            try:
                await self._beat(call, reader, terms.heartbeat_interval_seconds, stop_reason)
            finally:
                self.is_connected = False
                reader.cancel()

    async def _registered(self, call: "grpc.aio.StreamStreamCall[pb.WorkerMessage, pb.MasterMessage]") -> pb.Registered:
        await _write(call, pb.WorkerMessage(register=self._register))
        first = await call.read()
        if not isinstance(first, pb.MasterMessage) or first.WhichOneof("message") != "registered":
            raise await _error_of(call)
        return first.registered

    async def _beat(
        self,
        call: "grpc.aio.StreamStreamCall[pb.WorkerMessage, pb.MasterMessage]",
        reader: "asyncio.Future[None]",
        interval_seconds: float,
        stop_reason: "asyncio.Future[str]",
    ) -> None:
        """Beat at once, then at the interval from a random phase on, so that a fleet that came at once spreads out."""
        loop = asyncio.get_running_loop()
        due = loop.time() + interval_seconds * self._rng.random() - interval_seconds
        while not reader.done():
            if stop_reason.done():
                await self._say_goodbye(call, reader, stop_reason.result())
                return
            heartbeat = await self._sample()
            await _write(call, self._stamped(heartbeat))
            due = max(due + interval_seconds, loop.time())
            await asyncio.wait((reader, stop_reason), timeout=due - loop.time(), return_when=asyncio.FIRST_COMPLETED)
        reader.result()
        raise await _error_of(call)

    def _stamped(self, heartbeat: pb.Heartbeat) -> pb.WorkerMessage:
        self._sequence += 1
        heartbeat.worker_id = self._register.worker_id
        heartbeat.incarnation_id = self._register.incarnation_id
        heartbeat.sequence_number = self._sequence
        heartbeat.sent_time_unix_seconds = time.time()
        return pb.WorkerMessage(heartbeat=heartbeat)

    async def _say_goodbye(
        self,
        call: "grpc.aio.StreamStreamCall[pb.WorkerMessage, pb.MasterMessage]",
        reader: "asyncio.Future[None]",
        reason: str,
    ) -> None:
        await _write(call, pb.WorkerMessage(goodbye=pb.Goodbye(reason=reason)))
        await call.done_writing()
        await asyncio.wait({reader}, timeout=GOODBYE_SECONDS)
        _LOGGER.info("worker %s: said goodbye (%s)", self._register.worker_id, reason)


async def _drain(call: "grpc.aio.StreamStreamCall[pb.WorkerMessage, pb.MasterMessage]") -> None:
    """Read what the master sends until the stream ends; what this worker does not know is none of its business."""
    while await call.read() is not grpc.aio.EOF:
        continue


async def _write(
    call: "grpc.aio.StreamStreamCall[pb.WorkerMessage, pb.MasterMessage]", message: pb.WorkerMessage
) -> None:
    try:
        await call.write(message)
    except asyncio.InvalidStateError:
        # The stream ended under our hands; its status says why.
        raise await _error_of(call) from None


async def _error_of(call: "grpc.aio.StreamStreamCall[pb.WorkerMessage, pb.MasterMessage]") -> grpc.aio.AioRpcError:
    """The end of a stream as an error, also where the master ended it with OK."""
    code = await call.code()
    return grpc.aio.AioRpcError(
        code, await call.initial_metadata(), await call.trailing_metadata(),
        details=await call.details() or "the master ended the stream",
    )  # fmt: skip
