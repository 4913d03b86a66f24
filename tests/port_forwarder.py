"""Forwards ports of the tests' loopback device to the same ports in another network namespace."""

import asyncio
import contextlib
import ctypes
import os
import socket
import threading
from pathlib import Path

from tests.ports import LOCALHOST

_CLONE_NEWNET = 0x40000000
_CHUNK_BYTES = 65536


class PortForwarder:
    """Listens in the current network namespace and connects in ``network``, which its thread enters."""

    def __init__(self, network: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, args=(network,), name="port-forwarder")
        self._thread.start()

    def forward(self, port: int) -> None:
        """Starts to accept connections on ``port``. Raises ``OSError``."""
        listener = socket.create_server((LOCALHOST, port))
        asyncio.run_coroutine_threadsafe(self._serve(listener, port), self._loop).result()

    def close(self) -> None:
        """Cuts all connections and stops the thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, network: Path) -> None:
        with network.open() as namespace:
            _enter(namespace.fileno())
        self._loop.run_forever()

    async def _serve(self, listener: socket.socket, port: int) -> None:
        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._connections.add(task)
            with contextlib.suppress(asyncio.CancelledError):  # by _end; asyncio would report it as an error
                await _connect(port, reader, writer)
            self._connections.discard(task)

        self._servers.append(await asyncio.start_server(connect, sock=listener))

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


async def _connect(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError), contextlib.closing(writer):
        far_reader, far_writer = await asyncio.open_connection(LOCALHOST, port)
        with contextlib.closing(far_writer):
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
