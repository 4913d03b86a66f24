"""Attacks on the ports of a master: coroutines that never end by themselves.

Each counts the outcomes of its requests: the status of the answer, or ``cut``; of gRPC, the messages ``sent``, or the
status of a stream that ended.
"""

import asyncio
import contextlib
import itertools
import resource
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import grpc

from fleetpulse.proto import fleetpulse_pb2 as pb

_CONNECT_SECONDS = 5.0
_PAUSE_SECONDS = 0.3
_BEAT_SECONDS = 0.05
_POST = "POST /api/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_SPARE_FILES = 64


class Target(NamedTuple):
    """The ports to attack, and the source address: any of 127.0.0.0/8. gRPC comes from 127.0.0.1."""

    port: int
    source: str
    outcomes: Counter[str]
    grpc_port: int = 0


Attack = Callable[[Target], Awaitable[None]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(target: Target) -> Streams:
    return await asyncio.wait_for(
        asyncio.open_connection("127.0.0.1", target.port, local_addr=(target.source, 0)), _CONNECT_SECONDS
    )


def repeated(how_many: int, one: Attack, pause_seconds: float = 0.01) -> Attack:
    """Runs ``how_many`` at a time, and restarts each that ends, after a pause."""

    async def attack(target: Target) -> None:
        async def again() -> None:
            while True:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                    await one(target)
                await asyncio.sleep(pause_seconds)

        await asyncio.gather(*(again() for _ in range(how_many)))

    return attack


async def count_answer(reader: asyncio.StreamReader, target: Target) -> None:
    """Reads the status line of an answer and counts the outcome."""
    try:
        line = await reader.readline()
    except ConnectionError:
        line = b""
    target.outcomes[line.split(b" ")[1].decode() if line.startswith(b"HTTP/") else "cut"] += 1


async def trickle(target: Target, head: str, drop: bytes) -> None:
    """Sends a request a few bytes at a time."""
    reader, writer = await connect(target)
    try:
        writer.write(head.encode())
        answer = asyncio.ensure_future(count_answer(reader, target))
        while not answer.done():
            writer.write(drop)
            await asyncio.wait([answer], timeout=_PAUSE_SECONDS)
        await answer
    finally:
        writer.transport.abort()


async def pour(target: Target, head: str, drop: bytes) -> None:
    """Sends an endless request until it is answered and cut."""
    reader, writer = await connect(target)
    try:
        writer.write(head.encode())
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(drop)
                await writer.drain()
                await asyncio.sleep(0)
        await count_answer(reader, target)
    finally:
        writer.transport.abort()


async def send(target: Target, request: bytes) -> None:
    """Sends a request and reads its answer."""
    reader, writer = await connect(target)
    try:
        writer.write(request)
        await count_answer(reader, target)
    finally:
        writer.transport.abort()


async def hold_idle(target: Target) -> None:
    """Opens an idle connection."""
    reader, writer = await connect(target)
    try:
        await count_answer(reader, target)
    finally:
        writer.transport.abort()


async def read_stream(target: Target) -> None:
    """Reads the telemetry stream."""
    reader, writer = await connect(target)
    try:
        writer.write(b"GET /telemetry/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await count_answer(reader, target)
        while await reader.read(65536):
            continue
    finally:
        writer.transport.abort()


async def ignore_answers(target: Target) -> None:
    """Requests answer after answer and reads none."""
    _, writer = await connect(target)
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport has it
    try:
        while True:
            writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
            await writer.drain()
            await asyncio.sleep(_PAUSE_SECONDS)
    finally:
        target.outcomes["cut"] += 1
        writer.transport.abort()


async def flood(target: Target) -> None:
    """Sends as many requests as fit on a connection."""
    reader, writer = await connect(target)
    try:
        while True:
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
            for _ in range(20):
                head = await reader.readuntil(b"\r\n\r\n")
                target.outcomes[head.split(b" ")[1].decode()] += 1
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
    finally:
        writer.transport.abort()


def allow_connections(how_many: int) -> int:
    """Raises the limit of open files for ``how_many`` connections. Returns the possible number of connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, how_many + _SPARE_FILES),) * 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    return min(how_many, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_FILES)


async def hold_many_idle(target: Target) -> None:
    """Opens as many idle connections as possible."""
    await repeated(allow_connections(IDLE), hold_idle)(target)


async def sign_in_slowly(target: Target) -> None:
    """Sends the bodies of many sign-ins a byte at a time, for which no token is needed."""
    head = _POST.replace("/api/tasks", "/api/session") + "Content-Length: 1000\r\n\r\n"
    await repeated(allow_connections(SIGN_INS), lambda one: trickle(one, head, b" "), 1.0)(target)


async def refuse_slowly(target: Target) -> None:
    """The same with requests that are refused before their body is read."""
    head = _POST.replace("/api/tasks", "/nowhere") + "Content-Length: 1000\r\n\r\n"
    await repeated(allow_connections(SIGN_INS), lambda one: trickle_on(one, head, b" "), 1.0)(target)


async def trickle_on(target: Target, head: str, drop: bytes) -> None:
    """Sends a request a few bytes at a time, also after its answer, until the connection is closed."""
    reader, writer = await connect(target)
    try:
        writer.write(head.encode())
        await count_answer(reader, target)
        while not reader.at_eof():
            writer.write(drop)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(65536), _PAUSE_SECONDS)
    finally:
        writer.transport.abort()


async def fill_queue(target: Target) -> None:
    """Submits the largest tasks that there are, for which no worker has room."""
    text = "x" * (120 * 1024)
    body = (
        f'{{"docker_image": "busybox", "cpu_required": 1000, "command": ["{text}", "{text}"], '
        f'"env": {{"A": "{text}", "B": "{text}"}}}}'
    )
    await send(target, post(body.encode()))


async def submit_bad(target: Target) -> None:
    """Submits large tasks that are refused only once they have been read and checked."""
    await send(target, post(b'{"docker_image": "busybox", "command": ["' + b"x" * (MIB - 1000) + b'"]}'))


async def invent_tasks(target: Target) -> None:
    """A worker that says it runs a thousand tasks, new ones with every heartbeat."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{target.grpc_port}") as channel:
        call = channel.stream_stream(
            "/fleetpulse.v1.Fleet/Connect",
            request_serializer=pb.WorkerMessage.SerializeToString,
            response_deserializer=pb.MasterMessage.FromString,
        )()
        try:
            await call.write(pb.WorkerMessage(register=pb.Register(worker_id="inventor", incarnation_id="one")))
            await call.read()
            for beat in itertools.count():
                names = (f"invented-{beat}-{number}" for number in range(1000))
                tasks = [pb.RunningTask(task_id=name, attempt=1, cpu_usage_percent=1.0) for name in names]
                heartbeat = pb.Heartbeat(
                    worker_id="inventor", incarnation_id="one", sequence_number=beat + 1, running_tasks=tasks
                )
                await call.write(pb.WorkerMessage(heartbeat=heartbeat))
                target.outcomes["sent"] += 1
                await asyncio.sleep(_BEAT_SECONDS)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            target.outcomes[(await call.code()).name] += 1


def post(body: bytes) -> bytes:
    return f"{_POST}Content-Length: {len(body)}\r\n\r\n".encode() + body


MIB = 1024 * 1024
IDLE = 10_000
SIGN_INS = 2_200
"""More than the connections of a master."""

ATTACKS: dict[str, Attack] = {
    "answers-not-taken": repeated(100, ignore_answers),
    "bad-fields": repeated(4, submit_bad),
    "body-to-get": repeated(4, lambda target: pour(
        target, "GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1099511627776\r\n\r\n", bytes(65536))),
    "deep-json": repeated(4, lambda target: send(target, post(b"[" * MIB))),
    "endless-body": repeated(4, lambda target: pour(
        target, _POST + "Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + bytes(65536) + b"\r\n")),
    "flood": repeated(16, flood),
    "huge-header": repeated(4, lambda target: send(
        target, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * MIB + b"\r\n\r\n")),
    "full-queue": repeated(4, fill_queue),
    "idle": hold_many_idle,
    "invented-tasks": repeated(1, invent_tasks),
    "many-headers": repeated(4, lambda target: send(
        target, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: x\r\n" * 100_000 + b"\r\n")),
    "readers": repeated(600, read_stream),
    "slow-body": repeated(200, lambda target: trickle(target, _POST + "Content-Length: 1000\r\n\r\n", b" ")),
    "slow-refused": refuse_slowly,
    "slow-sign-in": sign_in_slowly,
    "slow-head": repeated(200, lambda target: trickle(
        target, "GET /health HTTP/1.1\r\nHost: localhost\r\nX: ", b"x")),
    "tiny-chunks": repeated(4, lambda target: pour(
        target, _POST + "Transfer-Encoding: chunked\r\n\r\n", b"1\r\n0\r\n" * 8192)),
}  # fmt: skip
"""The attacks by name."""
