"""A real gRPC master whose streams follow a script, and sessions that connect to it."""

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
"""Far more than any wait takes."""
REGISTER = pb.Register(worker_id="rack-7", incarnation_id="one", hostname="rack-7.example.org")


class ScriptedStream:
    """The master's end of one stream, and all messages that it received."""

    def __init__(self, context: Any) -> None:
        self.messages: list[pb.WorkerMessage] = []
        self.was_closed = False
        """The worker closed its side."""
        self.peer: str = context.peer()
        """The address of the connection, which several streams may share."""
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
        """Wait for Register, and grant a lease."""
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

    async def abort(self, code: grpc.StatusCode, details: str, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        await self._context.abort(code, details, metadata)


Behavior = Callable[[ScriptedStream], Awaitable[None]]
"""How the master serves one stream. When it returns, the stream ends with OK."""


async def serve(stream: ScriptedStream) -> None:
    """Serve as a real master: register, and read until the worker closes its side."""
    await stream.register()
    while await stream.receive() is not None:
        continue


async def refuse(stream: ScriptedStream) -> None:
    await stream.receive()
    await stream.abort(grpc.StatusCode.ALREADY_EXISTS, "another one is connected")


async def register_and_break(stream: ScriptedStream) -> None:
    await stream.register()
    await stream.receive_heartbeats(3)
    await stream.abort(grpc.StatusCode.UNAVAILABLE, "the master is stopping")


async def register_and_end(stream: ScriptedStream) -> None:
    await stream.register()
    await stream.receive_heartbeats(1)


async def never_answer(stream: ScriptedStream) -> None:
    while await stream.receive() is not None:
        continue


class ScriptedMaster(pb_grpc.FleetServicer):
    """Serves each stream by the next behavior, and all further ones by the last."""

    def __init__(self, behaviors: tuple[Behavior, ...]) -> None:
        self.streams: list[ScriptedStream] = []
        self.target = ""
        self._behaviors = behaviors

    async def Connect(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802 - as an asyncio servicer has it
        stream = ScriptedStream(context)
        behavior = self._behaviors[min(len(self.streams), len(self._behaviors) - 1)]
        self.streams.append(stream)
        await behavior(stream)

    async def SendHeartbeat(self, request: Any, context: Any) -> Any:  # noqa: N802 - see above
        raise NotImplementedError("a worker sends heartbeats on its stream")

    async def Renew(self, request: Any, context: Any) -> Any:  # noqa: N802 - see above
        raise NotImplementedError("it has no CA")


@contextlib.asynccontextmanager
async def scripted_master(*behaviors: Behavior) -> AsyncIterator[ScriptedMaster]:
    """A listening master on the current asyncio loop."""
    master = ScriptedMaster(behaviors)
    server = grpc.aio.server()
    pb_grpc.add_FleetServicer_to_server(master, server)
    master.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield master
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def late_door(target: str, seconds: float) -> AsyncIterator[str]:
    """Another address of the master, at which a connection is accepted at once and gets through after so long."""
    copying: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        far_reader, far_writer = await asyncio.open_connection(*target.rsplit(":", 1))
        for ends in ((reader, far_writer), (far_reader, writer)):
            copying.add(asyncio.create_task(copy(*ends)))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*copying)


async def eventually(condition: Callable[[], object], within_seconds: float = TIMEOUT_SECONDS) -> None:
    """Wait until the condition holds; ``TimeoutError`` if it does not in time."""
    async with asyncio.timeout(within_seconds):
        while not condition():  # noqa: ASYNC110 - the condition is about the other end, which sets no event here
            await asyncio.sleep(0.002)


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test on a new loop, and check that no forgotten task failed."""
    unhandled: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        await test
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(watched())
    gc.collect()
    assert unhandled == [], unhandled


async def quick_sample() -> pb.Heartbeat:
    return pb.Heartbeat(cpu=pb.Cpu(usage_percent=12.5))


@contextlib.asynccontextmanager
async def session_at(
    target: str, sample: Callable[[], Awaitable[pb.Heartbeat]] = quick_sample
) -> AsyncIterator[WorkerSession]:
    """A running session, which is stopped at the end."""
    session = WorkerSession(target, REGISTER, sample, random.Random(1))
    running = asyncio.ensure_future(session.run())
    try:
        yield session
    finally:
        session.stop("the test ends")
        await running


def heartbeats_of(master: ScriptedMaster) -> list[pb.Heartbeat]:
    """The heartbeats of all streams."""
    return [heartbeat for stream in master.streams for heartbeat in stream.heartbeats]
