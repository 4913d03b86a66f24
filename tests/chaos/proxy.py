"""The network between the workers and the master: TCP links that can be cut, stalled and healed."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self

from tests.ports import LOCALHOST

_CHUNK_BYTES = 64 * 1024
_RESET = struct.pack("ii", 1, 0)
"""``SO_LINGER`` with 0 seconds: close sends RST."""


class Link:
    """A TCP proxy to the master. Everything except ``port`` belongs to the loop of its network."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._flows = asyncio.Event()
        self._flows.set()
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._serve, LOCALHOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Breaks all connections and stops listening."""
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Resets every connection, also new ones."""
        self._is_cut = True
        for writer in list(self._writers):
            _reset(writer)

    def stall(self) -> None:
        """Stops all bytes without closing. New connections are accepted and carry nothing."""
        self._flows.clear()

    def heal(self) -> None:
        """Carries all bytes again, those held back first."""
        self._is_cut = False
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._is_cut:
                _reset(writer)
                return
            with self._kept(writer):
                await self._flows.wait()
                try:
                    master_reader, master_writer = await asyncio.open_connection(LOCALHOST, self._target_port)
                except OSError:
                    _reset(writer)
                    return
                with self._kept(master_writer):
                    self._reset_if_cut(master_writer)  # while it connected
                    await asyncio.gather(self._pump(reader, master_writer), self._pump(master_reader, writer))
        finally:
            writer.close()

    def _reset_if_cut(self, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            _reset(writer)

    @contextlib.contextmanager
    def _kept(self, writer: asyncio.StreamWriter) -> Any:
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_CHUNK_BYTES):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
            await self._flows.wait()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            # One side broke, so break the other.
            _reset(writer)


class Network:
    """The links and their thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network")
        self._links: list[Link] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for link in self._links:
            self._wait_for(link.close())
        self._wait_for(_cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def link(self, target_port: int) -> Link:
        """Makes a link to a port of 127.0.0.1, which need not be open yet."""
        link = Link(target_port)
        self._wait_for(link.open())
        self._links.append(link)
        return link

    def do(self, action: Callable[[], None]) -> None:
        """Runs ``cut``, ``stall`` or ``heal`` of a link in the loop and waits for it."""

        async def act() -> None:
            action()

        self._wait_for(act())

    def _wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10.0)


async def _cancel_all() -> None:
    """Cancels all connections."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
