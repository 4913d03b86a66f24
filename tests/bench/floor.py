"""The cost of a stream that nobody reads: the same simulator at a bare ``grpc.aio`` server (``tests.bench.bare``)."""

import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.bench.fleet import INTERVAL_SECONDS, connected, running_simulator, simulator_status
from tests.bench.processes import ROOT, Child, Usage, running, wait_until

_UP_SECONDS = 20.0
_CONNECT_SECONDS = 240.0
_SETTLING_SECONDS = INTERVAL_SECONDS + 1.0


class _Sample(NamedTuple):
    at_seconds: float
    server: Usage
    sent: int
    sent_at_seconds: float


def measure_floor(folder: Path, workers: int, seconds: float) -> dict[str, float | None]:
    """CPU a heartbeat and memory a stream of the bare server."""
    command = [sys.executable, "-m", "tests.bench.bare", str(INTERVAL_SECONDS)]
    with running("bare", command, folder, cwd=ROOT) as server:
        wait_until(lambda: bool(server.last_output), _UP_SECONDS, "no bare server", server)
        empty_rss_bytes = server.usage().rss_bytes
        with running_simulator(folder, int(json.loads(server.last_output)["port"]), workers) as simulator:
            wait_until(lambda: connected(simulator) == workers, _CONNECT_SECONDS, "not all are connected", simulator)
            time.sleep(_SETTLING_SECONDS)
            before = _sample(server, simulator)
            time.sleep(seconds)
            after = _sample(server, simulator)
    # A status may be a second old: rates are compared, each of its own time.
    beats_per_second = (after.sent - before.sent) / (after.sent_at_seconds - before.sent_at_seconds)
    cores = (after.server.cpu_seconds - before.server.cpu_seconds) / (after.at_seconds - before.at_seconds)
    return {
        "floor_cpu_seconds_per_heartbeat": cores / beats_per_second if beats_per_second else None,
        "floor_rss_bytes_per_worker": (after.server.rss_bytes - empty_rss_bytes) / workers,
    }


def _sample(server: Child, simulator: Child) -> _Sample:
    status = simulator_status(simulator)
    return _Sample(time.monotonic(), server.usage(), status["heartbeats_sent"], status["time"])
