"""Ports of the tests' loopback device that lead to the same ports in another network namespace."""

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
    """Listens where it is made, and connects in ``network``: a thread enters that namespace and stays there."""

    def __init__(self, network: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(network,), name="port-forwarder")
        self._thread.start()

    def forward(self, port: int) -> None:
        """Accept connections on ``port`` from now on. Raises ``OSError``."""
        listener = socket.create_server((LOCALHOST, port))

        async def serve() -> None:
            await asyncio.start_server(lambda *near: self._connect(port, *near), sock=listener)

        asyncio.run_coroutine_threadsafe(serve(), self._loop).result()

    def close(self) -> None:
        """Cut every connection."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, network: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with network.open() as namespace:
            if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _connect(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            far_reader, far_writer = await asyncio.open_connection(LOCALHOST, port)
            with contextlib.closing(far_writer):
                await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
