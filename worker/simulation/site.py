"""A simulated site: an agent that speaks for many machines, in ``Report`` messages on one stream.

Each machine is registered and has its own incarnation, readings and sequence numbers, as with a stream of its own; only
the stream is shared. Reports of a large site are spread over the interval. All on one asyncio loop.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence

import grpc

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto import fleetpulse_pb2_grpc as pb_grpc
from fleetpulse.worker.connection import (
    Failure,
    MasterChannel,
    MasterStream,
    OpenChannel,
    ReconnectTimes,
    pushback_seconds,
)
from fleetpulse.worker.identity import new_incarnation_id
from fleetpulse.worker.simulation.machine import SimulatedMachine
from fleetpulse.worker.simulation.status import CONNECTING, NOT_STARTED, Reason

MACHINES_PER_REPORT = 64
"""A report holds at most two entries of each. With all custom metrics it stays under ``MAX_MESSAGE_BYTES``."""

_GOODBYE_SECONDS = 1.0


class SimulatedSite:
    """Keeps the machines of one site connected. ``run`` until ``stop``."""

    def __init__(
        self,
        target: str,
        machines: Sequence[SimulatedMachine],
        version: str,
        rng: random.Random,
        ramp_seconds: float,
        open_channel: OpenChannel,
    ) -> None:
        self._machines = machines
        self._registers = {machine.worker_id: machine.register(new_incarnation_id(), version) for machine in machines}
        self._rng, self._ramp_seconds = rng, ramp_seconds
        self._times = ReconnectTimes(rng)
        self._channel = MasterChannel(target, lambda: None, open_channel)
        self._stopped: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._failure: Failure | None = None
        self._has_started = False
        self._registered_at: float | None = None
        self._carried: set[str] = set()
        """The workers that the master took, on the stream that is open."""
        self._refused: dict[str, Failure] = {}
        self._unanswered: deque[list[str]] = deque()
        """The ids that each report without an answer registers."""
        self._rounds = 0
        self.heartbeats_sent = 0

    def reasons(self) -> list[Reason]:
        """Why each machine is not connected."""
        common = self._failure or (CONNECTING if self._has_started else NOT_STARTED)
        return [
            None if worker_id in self._carried else self._refused.get(worker_id, common)
            for worker_id in self._registers
        ]

    def stop(self) -> None:
        """Says goodbye for all machines and ends ``run``."""
        if not self._stopped.done():
            self._stopped.set_result("the simulation ends")

    async def run(self) -> None:
        """Stays connected until ``stop``."""
        await asyncio.wait({self._stopped}, timeout=self._rng.uniform(0.0, self._ramp_seconds))
        self._has_started = True
        try:
            while not self._stopped.done():
                self._registered_at = None
                try:
                    await self._connect()
                except grpc.aio.AioRpcError as error:
                    failure = Failure(error.code(), error.details() or "no details", pushback_seconds(error))
                except TimeoutError:
                    failure = self._times.no_answer()
                else:
                    return
                self._failure = failure
                await self._channel.failed(failure)
                await asyncio.wait({self._stopped}, timeout=self._delay_seconds(failure))
        finally:
            await self._channel.close()

    def _delay_seconds(self, failure: Failure) -> float:
        if self._registered_at is None:
            return self._times.delay_after_failure(failure)
        return self._times.delay_after_loss(time.monotonic() - self._registered_at)

    async def _connect(self) -> None:
        """One stream. Returns after a stop; raises ``AioRpcError``, ``TimeoutError`` when no answer came in time."""
        stream = MasterStream(pb_grpc.FleetStub(await self._channel.open()).Connect())
        self._unanswered.clear()
        try:
            interval_seconds = await self._register(stream)
            self._failure = None
            reader = asyncio.ensure_future(self._receive_all(stream))
            try:
                if not self._stopped.done():
                    await self._send_reports(stream, reader, interval_seconds)
                await self._say_goodbye(stream, reader)
            finally:
                reader.cancel()
        finally:
            self._carried.clear()
            self._refused.clear()
            stream.cancel()

    async def _register(self, stream: MasterStream) -> float:
        """Reports every machine once, a report after the other. Returns the interval in seconds."""
        self._rounds += 1
        interval_seconds = 0.0
        for first in range(0, len(self._machines), MACHINES_PER_REPORT):
            await stream.write(self._report(first))
            async with asyncio.timeout(self._times.first_answer_seconds):
                interval_seconds = (await self._receive(stream)).heartbeat_interval_seconds
            self._channel.answered()
            if self._stopped.done():
                break
        self._registered_at = time.monotonic()
        return interval_seconds

    async def _receive(self, stream: MasterStream) -> pb.ReportAnswer:
        message = await stream.read()
        if message is None:
            raise await stream.error()
        answer = message.report_answer
        lease = pb.Registered(
            heartbeat_interval_seconds=answer.heartbeat_interval_seconds,
            inactivity_timeout_seconds=answer.inactivity_timeout_seconds,
            reconnect_spread_seconds=answer.reconnect_spread_seconds,
        )
        self._times.registered(lease)
        # The heartbeat of a worker whose registration is refused is refused too: the first refusal says why.
        refused = {refusal.worker_id: refusal for refusal in reversed(answer.refused)}
        for worker_id in self._unanswered.popleft():
            if worker_id not in refused:
                self._carried.add(worker_id)
                self._refused.pop(worker_id, None)
        for worker_id, refusal in refused.items():
            self._carried.discard(worker_id)
            self._refused[worker_id] = Failure(_status_code(refusal.code), refusal.message)
        return answer

    async def _send_reports(
        self, stream: MasterStream, reader: "asyncio.Future[None]", interval_seconds: float
    ) -> None:
        """Reports every machine once an interval until a stop. Raises ``AioRpcError`` when the stream has ended."""
        loop = asyncio.get_running_loop()
        reports = range(0, len(self._machines), MACHINES_PER_REPORT)
        due = loop.time() + interval_seconds * self._rng.random()
        while True:
            self._rounds += 1
            for first in reports:
                await asyncio.wait(
                    (reader, self._stopped), timeout=due - loop.time(), return_when=asyncio.FIRST_COMPLETED
                )
                if reader.done():
                    reader.result()
                if self._stopped.done():
                    return
                await stream.write(self._report(first))
                due = max(due + interval_seconds / len(reports), loop.time())

    async def _receive_all(self, stream: MasterStream) -> None:
        while True:
            await self._receive(stream)

    def _report(self, first: int) -> pb.WorkerMessage:
        """A heartbeat of each machine of a report, and the registration of those that the master does not carry."""
        message = pb.WorkerMessage()
        registered, heartbeats, now = [], message.report.heartbeats, time.time()
        for machine in self._machines[first : first + MACHINES_PER_REPORT]:
            worker_id = machine.worker_id
            register = self._registers[worker_id]
            if worker_id not in self._carried:
                message.report.registrations.append(register)
                registered.append(worker_id)
            heartbeat = machine.sample(now)
            heartbeat.worker_id, heartbeat.incarnation_id = worker_id, register.incarnation_id
            heartbeat.sequence_number, heartbeat.sent_time_unix_seconds = self._rounds, now
            heartbeats.append(heartbeat)
        self.heartbeats_sent += len(heartbeats)
        self._unanswered.append(registered)
        return message

    async def _say_goodbye(self, stream: MasterStream, reader: "asyncio.Future[None]") -> None:
        """The reader is at work until the master ends the stream: to cancel a read is to cancel the stream."""
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await stream.write(pb.WorkerMessage(goodbye=pb.Goodbye(reason=self._stopped.result())))
                await stream.finish()
                await asyncio.wait({reader})
        except TimeoutError:
            return
        if not reader.cancelled():
            reader.exception()  # the stream has ended, as was asked for


def _status_code(name: str) -> grpc.StatusCode:
    """``UNKNOWN`` for a name that this version of gRPC does not know."""
    return grpc.StatusCode.__members__.get(name, grpc.StatusCode.UNKNOWN)
