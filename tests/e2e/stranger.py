"""Another user of this machine: a process that gives up root and forwards connections to a master under its own uid.

So whatever a test sends through it comes from a stranger.
"""

import asyncio
import contextlib
import os
import sys

import pytest

from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST

UID = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def stranger_to(processes: Processes, port: int) -> int:
    """Starts a stranger that forwards to the port; returns the port on which it listens."""
    command = (sys.executable, "-m", "tests.e2e.stranger", str(port))
    stranger = processes.start("stranger", *command, PYTHONPATH=":".join(sys.path))
    return int(eventually(lambda: stranger.out, 20.0))


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def main(port: int) -> None:
    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            target, to_target = await asyncio.open_connection(LOCALHOST, port)
            await asyncio.gather(copy(reader, to_target), copy(target, writer))

    # The modules are loaded by now; this user may not be able to read them.
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    server = await asyncio.start_server(forward, LOCALHOST, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
