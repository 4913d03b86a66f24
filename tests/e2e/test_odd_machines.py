"""A real worker on a machine with odd names and odd neighbours: all of it reaches a real master."""

import os
import sys
from typing import Any

import pytest

from tests.docker_engine import Engine
from tests.e2e.masters import Master
from tests.e2e.processes import Processes
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port

pytestmark = pytest.mark.e2e

WORKER_ID = "rack-7"
HEARTBEATS = 3

RELAY = """
import asyncio, sys

async def pipe(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def connect(reader, writer):
    engine_reader, engine_writer = await asyncio.open_unix_connection(sys.argv[2])
    await asyncio.gather(pipe(reader, engine_writer), pipe(engine_reader, writer))

async def main():
    await (await asyncio.start_server(connect, "127.0.0.1", int(sys.argv[1]))).serve_forever()

asyncio.run(main())
"""

WITH_HOST_NAME = """
import os, socket, sys
socket.sethostname(bytes.fromhex(sys.argv[1]))
os.execv(sys.executable, [sys.executable, "-m", "fleetpulse.worker", *sys.argv[2:]])
"""


def details(master: Master, worker_id: str = WORKER_ID) -> Any:
    return master.json(f"/api/workers/{worker_id}") if worker_id in master.workers() else None


def beats(master: Master, more_than: int = HEARTBEATS) -> bool:
    worker = details(master)
    return worker is not None and worker["heartbeats"]["received"] > more_than


def test_worker_without_an_engine_at_a_tcp_address_reports_its_readings(processes: Processes, master: Master) -> None:
    # The engine's error text is far longer than a text of a heartbeat may be.
    worker = processes.worker(
        master.target, "--worker-id", WORKER_ID, DOCKER_HOST=f"tcp://{LOCALHOST}:{free_port()}/{'v' * 300}"
    )
    eventually(lambda: beats(master))
    tasks = details(master)["tasks"]
    assert not tasks["supported"]
    assert tasks["support_reason"].endswith("…")
    assert "no stream to the master" not in worker.err


def test_worker_whose_relay_to_the_engine_stops_goes_on_with_its_readings(
    processes: Processes, master: Master, docker_engine: Engine
) -> None:
    if not docker_engine.host.startswith("unix://"):
        pytest.skip("the engine has no Unix socket")
    port = free_port()
    relay = processes.start("relay", sys.executable, "-c", RELAY, str(port), docker_engine.host.removeprefix("unix://"))
    worker = processes.worker(master.target, "--worker-id", WORKER_ID, DOCKER_HOST=f"tcp://{LOCALHOST}:{port}")
    eventually(lambda: beats(master) and details(master)["tasks"]["supported"])
    relay.kill_all()
    eventually(lambda: not details(master)["tasks"]["supported"])
    received = details(master)["heartbeats"]["received"]
    eventually(lambda: beats(master, received + HEARTBEATS))
    assert "no stream to the master" not in worker.err


@pytest.mark.parametrize(
    ("raw", "hostname", "worker_id"),
    [
        ("rack\xa07".encode(), r"rack\u00a07", "rack-7"),
        (b"rack\xe97", r"rack\xe97", "rack-7"),
        (b"r" * 64, "r" * 64, "r" * 64),
    ],
    ids=["no-break space", "not UTF-8", "64 characters"],
)
def test_worker_on_a_machine_with_an_odd_name_is_registered(
    raw: bytes, hostname: str, worker_id: str, processes: Processes, master: Master
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can rename a machine")
    data = processes.folder / "named"
    worker = processes.start(
        "worker", "unshare", "--uts", sys.executable, "-c", WITH_HOST_NAME, raw.hex(),
        "--master", master.target, "--data-dir", str(data), DOCKER_HOST=f"unix://{processes.folder}/nobody.sock",
    )  # fmt: skip
    eventually(lambda: details(master, worker_id))
    assert details(master, worker_id)["hostname"] == hostname
    assert "Traceback" not in worker.err


@pytest.mark.parametrize(
    "flags",
    [("--label", "rack nr=4"), ("--master", "http://host:50051"), ("--master", "a b:1")],
    ids=lambda flags: flags[1],
)
def test_what_the_operator_got_wrong_is_one_line_at_the_start(flags: tuple[str, ...], processes: Processes) -> None:
    command = processes.run(sys.executable, "-m", "fleetpulse.worker", *flags)
    assert command.code == 2
    assert flags[1] in command.error_line()
