"""The TelemetryManager without a network: ``python -m tests.bench.manager ROUNDS``.

A complete master runs, but heartbeats go directly into its TelemetryManager, one at a time, at the rate of a fleet with
an interval of 5 s. The time of a heartbeat lasts until queries show it. REST and /metrics are read, so the cost of
rendering them is included. Prints the figures as one line of JSON.
"""

import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
from falcon.testing import StartResponseMock, create_environ

from fleetpulse.master.addresses import LOOPBACK, Address
from fleetpulse.master.app import Master
from fleetpulse.master.config import MasterConfig, StoreConfig
from fleetpulse.master.telemetry.manager import TelemetryManager
from fleetpulse.proto import fleetpulse_pb2 as pb
from fleetpulse.worker.simulation.machine import SimulatedMachine
from tests.bench.client import percentile
from tests.bench.processes import BenchError
from tests.ports import LOCALHOST, free_port

WORKERS = 1_000

_INTERVAL_SECONDS = 5.0
_FLEET_QUERIES = 500


def main() -> None:
    """Measures and prints the figures."""
    data_dir = Path(tempfile.mkdtemp(prefix="fleetpulse-bench-"))
    master = Master(MasterConfig(StoreConfig(data_dir), grpc=Address(LOCALHOST, free_port())))
    master.start()
    machines = [
        SimulatedMachine(f"sim-{number:04}", gpu_count=2 if number % 4 == 0 else 0, seed=1, started_at=time.time())
        for number in range(1, WORKERS + 1)
    ]
    for heartbeat in _heartbeats(machines, range(1, 2)):
        _beat(master.telemetry, heartbeat)
    beats, cpu_seconds = _beat_in_pace(master, machines, rounds=int(sys.argv[1]))
    one = [_query_one(master.telemetry, machine.worker_id) for machine in machines]
    everyone = [_query_all(master.telemetry) for _ in range(_FLEET_QUERIES)]
    master.stop()
    shutil.rmtree(data_dir)
    figures = {
        "manager_heartbeat_mean_seconds": sum(beats) / len(beats),
        "manager_cpu_seconds_per_heartbeat": cpu_seconds / len(beats),
    }
    for key, seconds in (("heartbeat", beats), ("one", one), ("all", everyone)):
        figures[f"manager_{key}_p50_seconds"] = percentile(seconds, 50)
        figures[f"manager_{key}_p99_seconds"] = percentile(seconds, 99)
    print(json.dumps(figures))


def _beat_in_pace(master: Master, machines: list[SimulatedMachine], rounds: int) -> tuple[list[float], float]:
    """Returns the seconds of each heartbeat, and the CPU time of all of them with the work that they cause."""
    chance = random.Random(1)
    due = list(_heartbeats(machines, range(2, rounds + 2)))
    _read(master)
    seconds = []
    started_at, cpu_began = time.perf_counter(), time.process_time()
    at = 0.0
    for heartbeat in due:
        # Many independent workers form a Poisson process.
        at += chance.expovariate(WORKERS / _INTERVAL_SECONDS)
        gevent.sleep(max(started_at + at - time.perf_counter(), 0.0))
        seconds.append(_beat(master.telemetry, heartbeat))
    _read(master)
    return seconds, time.process_time() - cpu_began


def _heartbeats(machines: list[SimulatedMachine], turns: range) -> Iterator[pb.Heartbeat]:
    """Yields one decoded heartbeat of every machine per turn."""
    for number in turns:
        for machine in machines:
            sampled_at = time.time() + number * _INTERVAL_SECONDS
            heartbeat = machine.sample(sampled_at)
            heartbeat.worker_id = machine.worker_id
            heartbeat.sequence_number = number
            yield pb.Heartbeat.FromString(heartbeat.SerializeToString())


def _beat(manager: TelemetryManager, heartbeat: pb.Heartbeat) -> float:
    worker_id, count = heartbeat.worker_id, heartbeat.sequence_number
    started = time.perf_counter()
    manager.process_heartbeat(heartbeat)
    while manager.get_worker_telemetry(worker_id).counts.received != count:
        gevent.sleep(0)
    return time.perf_counter() - started


class _OwnConnection:
    """The connection of a request of the master's own user; there is no socket here."""

    def is_own_user(self) -> bool:
        return True


def _read(master: Master) -> None:
    """Reads REST and /metrics, so that the master renders both. As gunicorn does, without falcon's checks of chunks."""
    for path in ("/telemetry", "/metrics"):
        environ = create_environ(path=path, host=LOOPBACK)
        environ["gunicorn.socket"] = _OwnConnection()
        started = StartResponseMock()
        for _chunk in master.wsgi(environ, started):
            pass
        if not str(started.status).startswith("200 "):
            raise BenchError(f"{path} does not answer: {started.status}")


def _query_one(manager: TelemetryManager, worker_id: str) -> float:
    started = time.perf_counter()
    manager.get_worker_telemetry(worker_id)
    return time.perf_counter() - started


def _query_all(manager: TelemetryManager) -> float:
    started = time.perf_counter()
    manager.get_all_worker_telemetry()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
