"""A master on the real wire that follows the tasks of one worker over all its streams."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.tasks.engine import AttemptKey
from tests.worker.scripted import ScriptedMaster, ScriptedStream, scripted_master
from tests.worker.tasks.dialogue import Ears, start_order, until

INTERVAL_SECONDS = 0.2


class WireMaster(Ears):
    """Keeps what ``keeps`` says, acknowledges everything, and sends what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.keeps: set[AttemptKey] = set()
        self.registers: list[pb.Register] = []
        self.heartbeats: list[pb.Heartbeat] = []
        self.farewells: list[str] = []
        self.target = ""
        self._stream: ScriptedStream | None = None

    async def act(self, stream: ScriptedStream) -> None:
        """One stream, from its first message to its end."""
        first = await stream.receive()
        assert first is not None
        terms = self.keeping(*self.keeps)
        terms.heartbeat_interval_seconds, terms.inactivity_timeout_seconds = INTERVAL_SECONDS, 5.0
        await stream.send(pb.MasterMessage(registered=terms))
        self.registers.append(first.register)
        self._stream = stream
        said_goodbye = False
        while (message := await stream.receive()) is not None:
            if said_goodbye:
                self.problems.append("something was said after the goodbye")
            if message.HasField("goodbye"):
                said_goodbye = True
                self.farewells.append(message.goodbye.reason)
            elif message.HasField("heartbeat"):
                self.heartbeats.append(message.heartbeat)
            answer = self.hear(message)
            if answer is not None:
                await stream.send(answer)

    async def start(self, image: str, *command: str, task_id: str = "t") -> AttemptKey:
        """Order an attempt of the worker that registered last, and keep it from then on."""
        order = start_order(task_id, image, *command)
        key = AttemptKey.of(order.id)
        self.keeps.add(key)
        await self.send(order)
        return key

    async def send(self, order: pb.StartTask) -> None:
        """To the worker that registered last, whatever it says."""
        assert self._stream is not None
        await self._stream.send(pb.MasterMessage(start_task=order))

    async def is_registered(self, times: int = 1) -> pb.Register:
        """Wait for the n-th registration."""
        await until(lambda: len(self.registers) >= times)
        return self.registers[times - 1]


@contextlib.asynccontextmanager
async def wire_master() -> AsyncIterator[WireMaster]:
    """One that listens."""
    master = WireMaster()

    async def act(stream: ScriptedStream) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # a worker that was killed
            await master.act(stream)

    scripted: ScriptedMaster
    async with scripted_master(act) as scripted:
        master.target = scripted.target
        yield master
        assert master.problems == []
