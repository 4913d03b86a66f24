"""Attacks on the HTTP port: coroutines that never end by themselves.

Each counts how its requests ended: by the status of the answer, or as ``cut``.
"""

import asyncio
import contextlib
import resource
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import NamedTuple

_CONNECT_SECONDS = 5.0
_PAUSE_SECONDS = 0.3
_POST = "POST /api/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_SPARE_FILES = 64


class Target(NamedTuple):
    """The port to attack, and the source address: any of 127.0.0.0/8."""

    port: int
    source: str
    ends: Counter[str]


Attack = Callable[[Target], Awaitable[None]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connected(target: Target) -> Streams:
    return await asyncio.wait_for(
        asyncio.open_connection("127.0.0.1", target.port, local_addr=(target.source, 0)), _CONNECT_SECONDS
    )


def over_and_over(how_many: int, one: Attack) -> Attack:
    """Runs so many at a time, and restarts each that ends."""

    async def attack(target: Target) -> None:
        async def again() -> None:
            while True:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                    await one(target)
                await asyncio.sleep(0.01)

        await asyncio.gather(*(again() for _ in range(how_many)))

    return attack


async def told(reader: asyncio.StreamReader, target: Target) -> None:
    """Counts how a request ended."""
    try:
        line = await reader.readline()
    except ConnectionError:
        line = b""
    target.ends[line.split(b" ")[1].decode() if line.startswith(b"HTTP/") else "cut"] += 1


async def trickled(target: Target, head: str, drop: bytes) -> None:
    """Sends a request a few bytes at a time."""
    reader, writer = await connected(target)
    try:
        writer.write(head.encode())
        answer = asyncio.ensure_future(told(reader, target))
        while not answer.done():
            writer.write(drop)
            await asyncio.wait([answer], timeout=_PAUSE_SECONDS)
        await answer
    finally:
        writer.transport.abort()


async def poured(target: Target, head: str, drop: bytes) -> None:
    """Sends an endless request until it is answered and cut."""
    reader, writer = await connected(target)
    try:
        writer.write(head.encode())
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(drop)
                await writer.drain()
                await asyncio.sleep(0)
        await told(reader, target)
    finally:
        writer.transport.abort()


async def sent(target: Target, request: bytes) -> None:
    """Sends a request and reads its answer."""
    reader, writer = await connected(target)
    try:
        writer.write(request)
        await told(reader, target)
    finally:
        writer.transport.abort()


async def kept_idle(target: Target) -> None:
    """Opens an idle connection."""
    reader, writer = await connected(target)
    try:
        await told(reader, target)
    finally:
        writer.transport.abort()


async def read_stream(target: Target) -> None:
    """Reads the telemetry stream."""
    reader, writer = await connected(target)
    try:
        writer.write(b"GET /telemetry/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await told(reader, target)
        while await reader.read(65536):
            continue
    finally:
        writer.transport.abort()


async def not_taken(target: Target) -> None:
    """Requests answer after answer and reads none."""
    _, writer = await connected(target)
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport has it
    try:
        while True:
            writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
            await writer.drain()
            await asyncio.sleep(_PAUSE_SECONDS)
    finally:
        target.ends["cut"] += 1
        writer.transport.abort()


async def flooded(target: Target) -> None:
    """Sends as many requests as fit on a connection."""
    reader, writer = await connected(target)
    try:
        while True:
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
            for _ in range(20):
                head = await reader.readuntil(b"\r\n\r\n")
                target.ends[head.split(b" ")[1].decode()] += 1
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
    finally:
        writer.transport.abort()


def room_for(how_many: int) -> int:
    """Opens so many connections, or as many as this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, how_many + _SPARE_FILES),) * 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    return min(how_many, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_FILES)


async def stayed_idle(target: Target) -> None:
    """Opens as many idle connections as possible."""
    await over_and_over(room_for(IDLE), kept_idle)(target)


def post(body: bytes) -> bytes:
    return f"{_POST}Content-Length: {len(body)}\r\n\r\n".encode() + body


MIB = 1024 * 1024
IDLE = 10_000

ATTACKS: dict[str, Attack] = {
    "answers-not-taken": over_and_over(100, not_taken),
    "body-to-get": over_and_over(4, lambda target: poured(
        target, "GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1099511627776\r\n\r\n", bytes(65536))),
    "deep-json": over_and_over(4, lambda target: sent(target, post(b"[" * MIB))),
    "endless-body": over_and_over(4, lambda target: poured(
        target, _POST + "Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + bytes(65536) + b"\r\n")),
    "flood": over_and_over(16, flooded),
    "huge-header": over_and_over(4, lambda target: sent(
        target, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * MIB + b"\r\n\r\n")),
    "idle": stayed_idle,
    "many-headers": over_and_over(4, lambda target: sent(
        target, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: x\r\n" * 100_000 + b"\r\n")),
    "readers": over_and_over(600, read_stream),
    "slow-body": over_and_over(200, lambda target: trickled(target, _POST + "Content-Length: 1000\r\n\r\n", b" ")),
    "slow-head": over_and_over(200, lambda target: trickled(
        target, "GET /health HTTP/1.1\r\nHost: localhost\r\nX: ", b"x")),
    "tiny-chunks": over_and_over(4, lambda target: poured(
        target, _POST + "Transfer-Encoding: chunked\r\n\r\n", b"1\r\n0\r\n" * 8192)),
}  # fmt: skip
"""The attacks by name."""
