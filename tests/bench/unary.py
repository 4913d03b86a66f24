"""Heartbeats by single calls (``SendHeartbeat``), as small agents send them, each on a connection that it keeps.

``python -m tests.bench.unary PORT WORKERS SECONDS`` is the client: so many machines, a heartbeat of each at this
interval, and a status as JSON every second until SIGTERM. A call that fails is counted and not repeated.
"""

import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import grpc

from fleetpulse.proto import fleetpulse_pb2_grpc as pb_grpc
from fleetpulse.worker.simulation.connections import allow_connections
from fleetpulse.worker.simulation.fleet import SimulationConfig
from fleetpulse.worker.simulation.machine import SimulatedMachine
from tests.bench.client import fetch
from tests.bench.exposition import Scrape
from tests.bench.fleet import INTERVAL_SECONDS, Fleet, Master, connected, for_size, running_master, simulator_status
from tests.bench.processes import ROOT, Child, running, wait_until
from tests.ports import LOCALHOST

_ARRIVALS_PER_SECOND = 400.0
_CALL_SECONDS = 20.0
_CONNECT_SECONDS = 240.0
_STATUS_SECONDS = 1.0
_ACCEPTED = "fleetpulse_heartbeats_received_total"


class _Sample(NamedTuple):
    cpu_seconds: float
    accepted: float
    ended: Counter[str]


def measure_unary(folder: Path, workers: int, seconds: float) -> dict[str, float | None]:
    """CPU a heartbeat of the master, and the calls that it refused."""
    with running_master(folder, flags=for_size(workers)) as master, _running_agents(folder, master, workers) as agents:
        fleet = Fleet(master, agents, workers)
        needed = (master.process, agents)
        wait_until(lambda: connected(agents) == workers, _CONNECT_SECONDS, "not all have been answered", *needed)
        time.sleep(INTERVAL_SECONDS)
        before = _sample(master, agents)
        time.sleep(seconds)
        after = _sample(master, agents)
        accepted = after.accepted - before.accepted
        return {
            "unary_cpu_seconds_per_heartbeat": (after.cpu_seconds - before.cpu_seconds) / accepted
            if accepted
            else None,
            "unary_heartbeats_per_second": accepted / seconds,
            "unary_failed": float((after.ended - before.ended).total() - (after.ended - before.ended)["OK"]),
            "unary_inactive": float(fleet.inactive_so_far()),
        }


def _running_agents(folder: Path, master: Master, workers: int) -> AbstractContextManager[Child]:
    command = [sys.executable, "-m", "tests.bench.unary", str(master.grpc_port), str(workers), str(INTERVAL_SECONDS)]
    return running("agents", command, folder, cwd=ROOT)


def _sample(master: Master, agents: Child) -> _Sample:
    scrape = Scrape(fetch(master.http_port, "/metrics").body.decode())
    return _Sample(
        master.process.usage().cpu_seconds, scrape.total(_ACCEPTED), Counter(simulator_status(agents)["ended"])
    )


class Agents:
    """Machines that send single heartbeats. On one asyncio loop."""

    def __init__(self, target: str, workers: int, interval_seconds: float) -> None:
        self.ended: Counter[str] = Counter()
        """Calls by status code."""
        self.connected = 0
        """Machines that have had an answer."""
        self._target, self._workers, self._interval_seconds = target, workers, interval_seconds

    async def run(self) -> None:
        """Runs until it is cancelled."""
        config = SimulationConfig(self._target, self._workers)
        async with asyncio.TaskGroup() as group:
            for machine in config.machines(time.time()):
                group.create_task(self._run_machine(machine))

    async def _run_machine(self, machine: SimulatedMachine) -> None:
        rng = random.Random(machine.worker_id)
        await asyncio.sleep(rng.uniform(0.0, max(self._interval_seconds, self._workers / _ARRIVALS_PER_SECOND)))
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0))
        loop = asyncio.get_running_loop()
        async with grpc.aio.insecure_channel(self._target, options=options) as channel:
            send = pb_grpc.FleetStub(channel).SendHeartbeat
            due, number, was_answered = loop.time(), 0, False
            while True:
                number += 1
                heartbeat = machine.sample(time.time())
                heartbeat.worker_id, heartbeat.incarnation_id = machine.worker_id, machine.worker_id
                heartbeat.sequence_number, heartbeat.sent_time_unix_seconds = number, time.time()
                code = grpc.StatusCode.OK
                try:
                    await send(heartbeat, timeout=_CALL_SECONDS)
                except grpc.aio.AioRpcError as error:
                    code = error.code()
                self.ended[code.name] += 1
                if code is grpc.StatusCode.OK and not was_answered:
                    was_answered = True
                    self.connected += 1
                due = max(due + self._interval_seconds, loop.time())
                await asyncio.sleep(due - loop.time())


async def _main(port: int, workers: int, interval_seconds: float) -> None:
    agents = Agents(f"{LOCALHOST}:{port}", workers, interval_seconds)
    running_agents = asyncio.ensure_future(agents.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running_agents.cancel)
    while not running_agents.done():
        print(json.dumps({"time": time.time(), "connected": agents.connected, "ended": agents.ended}), flush=True)
        await asyncio.wait({running_agents}, timeout=_STATUS_SECONDS)
    if not running_agents.cancelled():
        running_agents.result()


if __name__ == "__main__":
    allow_connections(int(sys.argv[2]))
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
