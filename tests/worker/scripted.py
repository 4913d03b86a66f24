"""For tests of the worker's side: a real gRPC server whose streams follow a script, and sessions beside it."""

import asyncio
import contextlib
import gc
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import grpc

from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.proto import fleetpulse_pb2_grpc as pb_grpc
from fleetpulse.worker.session import WorkerSession

INTERVAL_SECONDS = 0.02
TIMEOUT_SECONDS = 30.0
"""How long a test waits for what must happen; far more than it takes."""
REGISTER = pb.Register(worker_id="rack-7", incarnation_id="one", hostname="rack-7.example.org")


class ScriptedStream:
    """The master's end of one stream, and all that came up it."""

    def __init__(self, context: Any) -> None:
        self.messages: list[pb.WorkerMessage] = []
        self.was_closed = False
        """The worker said that nothing more will come."""
        self._context = context
        self._sending = asyncio.Lock()

    @property
    def heartbeats(self) -> list[pb.Heartbeat]:
        return [message.heartbeat for message in self.messages if message.WhichOneof("message") == "heartbeat"]

    async def receive(self) -> pb.WorkerMessage | None:
        """The next message; ``None`` when the worker closed its side."""
        message = await self._context.read()
        if message is grpc.aio.EOF:
            self.was_closed = True
            return None
        assert isinstance(message, pb.WorkerMessage)
        self.messages.append(message)
        return message

    async def send(self, message: pb.MasterMessage) -> None:
        async with self._sending:
            await self._context.write(message)

    async def register(self, interval_seconds: float = INTERVAL_SECONDS, timeout_seconds: float = 30.0) -> None:
        """Wait for Register, and grant terms."""
        first = await self.receive()
        assert first is not None
        assert first.WhichOneof("message") == "register"
        await self.send(
            pb.MasterMessage(
                registered=pb.Registered(
                    heartbeat_interval_seconds=interval_seconds, inactivity_timeout_seconds=timeout_seconds
                )
            )
        )

    async def receive_heartbeats(self, count: int) -> None:
        while len(self.heartbeats) < count:
            assert await self.receive() is not None

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        await self._context.abort(code, details)


Act = Callable[[ScriptedStream], Awaitable[None]]
"""What the master does on one stream. When it returns, the stream ends with OK."""


async def serve(stream: ScriptedStream) -> None:
    """As a master does: register, and listen until the worker closes its side."""
    await stream.register()
    while await stream.receive() is not None:
        continue


async def refuse(stream: ScriptedStream) -> None:
    await stream.receive()
    await stream.abort(grpc.StatusCode.ALREADY_EXISTS, "another one beats")


async def register_and_break(stream: ScriptedStream) -> None:
    await stream.register()
    await stream.receive_heartbeats(3)
    await stream.abort(grpc.StatusCode.UNAVAILABLE, "the master is stopping")


async def register_and_end(stream: ScriptedStream) -> None:
    await stream.register()
    await stream.receive_heartbeats(1)


async def say_nothing(stream: ScriptedStream) -> None:
    while await stream.receive() is not None:
        continue


class ScriptedMaster(pb_grpc.FleetServicer):
    """Plays one act for each stream, and the last one again and again."""

    def __init__(self, acts: tuple[Act, ...]) -> None:
        self.streams: list[ScriptedStream] = []
        self.target = ""
        self._acts = acts

    async def Connect(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802 - as an asyncio servicer has it
        stream = ScriptedStream(context)
        act = self._acts[min(len(self.streams), len(self._acts) - 1)]
        self.streams.append(stream)
        await act(stream)

    async def SendHeartbeat(self, request: Any, context: Any) -> Any:  # noqa: N802 - see above
        raise NotImplementedError("a worker beats on its stream")

    async def Renew(self, request: Any, context: Any) -> Any:  # noqa: N802 - see above
        raise NotImplementedError("it has no CA")


@contextlib.asynccontextmanager
async def scripted_master(*acts: Act) -> AsyncIterator[ScriptedMaster]:
    """A master that listens, for the current asyncio loop."""
    master = ScriptedMaster(acts)
    server = grpc.aio.server()
    pb_grpc.add_FleetServicer_to_server(master, server)
    master.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield master
    finally:
        await server.stop(None)


async def eventually(condition: Callable[[], object], within_seconds: float = TIMEOUT_SECONDS) -> None:
    """Wait until the condition holds; ``TimeoutError`` if it does not in time."""
    async with asyncio.timeout(within_seconds):
        while not condition():  # noqa: ASYNC110 - the condition is about another end, which sets no event here
            await asyncio.sleep(0.002)


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test on a loop of its own. What nobody waited for must not have failed either."""
    unheard: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        await test
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(watched())
    gc.collect()
    assert unheard == [], unheard


async def quick_sample() -> pb.Heartbeat:
    return pb.Heartbeat(cpu=pb.Cpu(usage_percent=12.5))


@contextlib.asynccontextmanager
async def session_at(
    target: str, sample: Callable[[], Awaitable[pb.Heartbeat]] = quick_sample
) -> AsyncIterator[WorkerSession]:
    """A session that runs, and is stopped at the end."""
    session = WorkerSession(target, REGISTER, sample, random.Random(1))
    running = asyncio.ensure_future(session.run())
    try:
        yield session
    finally:
        session.stop("the test ends")
        await running


def heartbeats_of(master: ScriptedMaster) -> list[pb.Heartbeat]:
    """All that came, over all streams."""
    return [heartbeat for stream in master.streams for heartbeat in stream.heartbeats]
