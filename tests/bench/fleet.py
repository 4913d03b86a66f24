"""Starts a master, and a simulated fleet or a worker, as processes on free ports."""

import contextlib
import json
import math
import resource
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

_TIMEOUT_SECONDS = 120.0
_CONNECT_SECONDS = 240.0
_DEFAULT_MAX_WORKERS = 15_000
_OTHER_FILES = 1_000
"""Of the master or the simulator, beside their connections."""

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
    connect_seconds: float | None = None
    """From the simulator's first try until all were connected, by its own statuses; they come every second."""

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
def running_fleet(
    folder: Path, workers: int, flags: Sequence[str] = (), simulator_flags: Sequence[str] = ()
) -> Iterator[Fleet]:
    """Runs a fleet that comes up as the simulator lets it by default. Every worker has sent a heartbeat."""
    with (
        running_master(folder, flags=(*for_size(workers), *flags)) as master,
        running_simulator(folder, master.grpc_port, workers, *simulator_flags) as simulator,
    ):
        needed = (master.process, simulator)
        wait_until(lambda: connected(simulator) == workers, _CONNECT_SECONDS, "not all are connected", *needed)
        statuses = simulator_statuses(simulator)
        fleet = Fleet(master, simulator, workers, statuses[-1]["time"] - statuses[0]["time"])
        wait_until(lambda: _have_beaten(fleet), _TIMEOUT_SECONDS, "not all have beaten", *needed, poll_seconds=1.0)
        # The large answers above delay the master; let it catch up.
        time.sleep(_SETTLING_SECONDS)
        yield fleet


@contextmanager
def running_simulator(folder: Path, grpc_port: int, workers: int, *flags: str) -> Iterator[Child]:
    """Runs simulated workers with the default settings but ``flags``. They may not have connected yet."""
    command: Command = [
        Path(sys.executable).with_name("fleetpulse"), "simulate", "--master", f"{LOCALHOST}:{grpc_port}",
        "--workers", str(workers), "--prefix", PREFIX, "--no-goodbye", "--json",
        "--streams-per-connection", str(streams_per_connection(workers)), *flags,
    ]  # fmt: skip
    with running("simulator", command, folder) as simulator:
        yield simulator


def streams_per_connection(workers: int) -> int:
    """1 as in a real fleet, unless this machine's limit of open files is too low for so many connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 if hard == resource.RLIM_INFINITY else math.ceil(workers / max(hard - _OTHER_FILES, 1))


def for_size(workers: int) -> tuple[str, ...]:
    """The master's flags for more workers than it takes by default."""
    return () if workers <= _DEFAULT_MAX_WORKERS else ("--max-workers", str(workers))


def simulator_status(simulator: Child) -> dict[str, Any]:
    """The last status of the simulator, at most a second old; an empty fleet before the first."""
    line = simulator.last_output
    status: dict[str, Any] = json.loads(line) if line else {"time": 0.0, "connected": 0, "heartbeats_sent": 0}
    return status


def simulator_statuses(simulator: Child) -> list[dict[str, Any]]:
    """All its statuses, one a second."""
    return [json.loads(line) for line in simulator.output_lines]


def connected(simulator: Child) -> int:
    """How many simulated workers are connected."""
    return int(simulator_status(simulator)["connected"])


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


def _have_beaten(fleet: Fleet) -> bool:
    details = fetch_json(fleet.master.http_port, "/api/workers")
    return len(details) == fleet.workers and all(worker["heartbeats"]["received"] for worker in details)
