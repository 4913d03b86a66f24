"""Starts a master, and a simulated fleet or a worker, as processes on free ports."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.client import fetch, fetch_json
from tests.bench.processes import Child, Command, running, wait_until
from tests.ports import LOCALHOST, free_port

INTERVAL_SECONDS = 5.0
PREFIX = "sim"
"""The prefix of the ids of simulated workers."""

_ARRIVALS_PER_SECOND = 150.0
_TIMEOUT_SECONDS = 120.0
_UP_SECONDS = 20.0
_SETTLING_SECONDS = 3.0
_POLL_SECONDS = 0.005
_INACTIVE_IN_LOG = " is inactive: "


class Master(NamedTuple):
    """A healthy master."""

    process: Child
    http_port: int
    grpc_port: int
    up_seconds: float
    """From its start to the first healthy answer."""


class Fleet(NamedTuple):
    """A master and its simulated workers, all with heartbeats."""

    master: Master
    simulator: Child
    workers: int

    def records(self) -> dict[str, dict[str, Any]]:
        """``/telemetry``."""
        answer: dict[str, dict[str, Any]] = fetch_json(self.master.http_port, "/telemetry")
        return answer

    def inactive_so_far(self) -> int:
        """How often the master found a worker inactive, by its log. The expected number is 0."""
        return self.master.process.log.count(_INACTIVE_IN_LOG)


@contextmanager
def running_master(folder: Path, data_dir: Path | None = None, flags: Sequence[str] = ()) -> Iterator[Master]:
    """Runs a master with default settings except ports, data directory and ``flags``."""
    http_port, grpc_port = free_port(), free_port()
    command: list[str | Path] = [
        sys.executable, "-m", "fleetpulse.master", "--http-port", str(http_port), "--grpc-port", str(grpc_port),
        "--heartbeat-interval", f"{INTERVAL_SECONDS:g}s", "--data-dir", data_dir or folder / f"data-{http_port}",
        *flags,
    ]  # fmt: skip
    started = time.perf_counter()
    with running("master", command, folder) as process:
        wait_until(lambda: _is_healthy(http_port), _UP_SECONDS, "not healthy", process, poll_seconds=_POLL_SECONDS)
        yield Master(process, http_port, grpc_port, time.perf_counter() - started)


@contextmanager
def running_fleet(folder: Path, workers: int, flags: Sequence[str] = ()) -> Iterator[Fleet]:
    """Runs a fleet. Every worker has sent a heartbeat."""
    ramp_seconds = max(workers / _ARRIVALS_PER_SECOND, 1.0)
    with (
        running_master(folder, flags=flags) as master,
        running_simulator(folder, master, workers, ramp_seconds) as simulator,
    ):
        fleet = Fleet(master, simulator, workers)
        patience_seconds = ramp_seconds + _TIMEOUT_SECONDS
        needed = (master.process, simulator)
        wait_until(lambda: _connected(simulator) == workers, patience_seconds, "not all are connected", *needed)
        wait_until(lambda: _have_beaten(fleet), _TIMEOUT_SECONDS, "not all have beaten", *needed, poll_seconds=1.0)
        # The large answers above delay the master; let it catch up.
        time.sleep(_SETTLING_SECONDS)
        yield fleet


@contextmanager
def running_simulator(folder: Path, master: Master, workers: int, ramp_seconds: float) -> Iterator[Child]:
    """Runs simulated workers. They may not have connected yet."""
    command: Command = [
        Path(sys.executable).with_name("fleetpulse"), "simulate", "--master", f"{LOCALHOST}:{master.grpc_port}",
        "--workers", str(workers), "--prefix", PREFIX, "--ramp", str(ramp_seconds), "--no-goodbye", "--json",
    ]  # fmt: skip
    with running("simulator", command, folder) as simulator:
        yield simulator


@contextmanager
def running_worker(folder: Path, master: Master, **env: str) -> Iterator[Child]:
    """Runs a real worker and waits until it is active."""
    command: Command = [
        sys.executable, "-m", "fleetpulse.worker", "--master", f"{LOCALHOST}:{master.grpc_port}", "--worker-id",
        "bench", "--data-dir", folder / "worker",
    ]  # fmt: skip
    with running("worker", command, folder, env=env) as process:
        wait_until(lambda: fetch(master.http_port, "/telemetry/bench").status == 200, _UP_SECONDS, "no worker", process)
        yield process


def _is_healthy(http_port: int) -> bool:
    with contextlib.suppress(OSError):
        return fetch(http_port, "/health").status == 200
    return False


def _connected(simulator: Child) -> int:
    line = simulator.last_output
    return int(json.loads(line)["connected"]) if line else 0


def _have_beaten(fleet: Fleet) -> bool:
    details = fetch_json(fleet.master.http_port, "/api/workers")
    return len(details) == fleet.workers and all(worker["heartbeats"]["received"] for worker in details)
