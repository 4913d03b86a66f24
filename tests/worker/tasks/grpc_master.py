"""A master on real gRPC that follows the tasks of one worker over all its streams."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.tasks.container_spec import AttemptKey
from tests.worker.scripted import ScriptedMaster, ScriptedStream, scripted_master
from tests.worker.tasks.fake_master import ReceivedReports, start_request, until

INTERVAL_SECONDS = 0.2


class GrpcMaster(ReceivedReports):
    """Keeps the attempts in ``keeps`` and acknowledges everything."""

    def __init__(self) -> None:
        super().__init__()
        self.keeps: set[AttemptKey] = set()
        self.registers: list[pb.Register] = []
        self.heartbeats: list[pb.Heartbeat] = []
        self.goodbyes: list[str] = []
        self.target = ""
        self._stream: ScriptedStream | None = None

    async def serve(self, stream: ScriptedStream) -> None:
        """One stream, from its first message to its end."""
        first = await stream.receive()
        assert first is not None
        registered = self.registered(*self.keeps)
        registered.heartbeat_interval_seconds, registered.inactivity_timeout_seconds = INTERVAL_SECONDS, 5.0
        await stream.send(pb.MasterMessage(registered=registered))
        self.registers.append(first.register)
        self._stream = stream
        said_goodbye = False
        while (message := await stream.receive()) is not None:
            if said_goodbye:
                self.problems.append("a message after the goodbye")
            if message.HasField("goodbye"):
                said_goodbye = True
                self.goodbyes.append(message.goodbye.reason)
            elif message.HasField("heartbeat"):
                self.heartbeats.append(message.heartbeat)
            ack = self.receive(message)
            if ack is not None:
                await stream.send(ack)

    async def start(self, image: str, *command: str, task_id: str = "t") -> AttemptKey:
        """Starts an attempt on the worker that registered last, and keeps it from then on."""
        request = start_request(task_id, image, *command)
        key = AttemptKey.of(request.id)
        self.keeps.add(key)
        await self.send(request)
        return key

    async def send(self, request: pb.StartTask) -> None:
        """To the worker that registered last, whatever the request has."""
        assert self._stream is not None
        await self._stream.send(pb.MasterMessage(start_task=request))

    async def wait_for_registration(self, times: int = 1) -> pb.Register:
        """Returns the n-th registration."""
        await until(lambda: len(self.registers) >= times)
        return self.registers[times - 1]


@contextlib.asynccontextmanager
async def grpc_master() -> AsyncIterator[GrpcMaster]:
    """A master that listens."""
    master = GrpcMaster()

    async def serve(stream: ScriptedStream) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # a worker that was killed
            await master.serve(stream)

    scripted: ScriptedMaster
    async with scripted_master(serve) as scripted:
        master.target = scripted.target
        yield master
        assert master.problems == []
