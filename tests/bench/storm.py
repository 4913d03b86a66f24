"""A storm: all workers of a fleet connect at the same moment, as after a power failure or a master's restart.

Nothing is spread by the simulator (``--ramp 0``). The clock starts with its first tries and stops when the master shows
every worker as active. A storm that does not end in time has no time, and its row says how many were active.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.client import fetch, fetch_json, percentile
from tests.bench.exposition import Scrape
from tests.bench.fleet import Fleet, for_size, running_master, running_simulator, simulator_status, simulator_statuses
from tests.bench.processes import wait_until

STORM_SECONDS = 120.0
"""How long a storm may take."""

_FIRST_STATUS_SECONDS = 60.0
_POLL_SECONDS = 0.25
_POLLS_BETWEEN_COUNTS = 4
_CALLS = "fleetpulse_grpc_requests_total"
_NO_REFUSALS = {"connecting", "not started", "cut off"}


def measure_storm(
    folder: Path,
    workers: int,
    timeout_seconds: float = STORM_SECONDS,
    flags: Sequence[str] = (),
    quiet_seconds: float = 10.0,
) -> dict[str, float | None]:
    """The storm of ``workers`` at a master that has just started, with these flags.

    ``quiet_seconds`` after it: a worker that is found inactive because of the storm is found by then.
    """
    with (
        running_master(folder, flags=(*for_size(workers), *flags)) as master,
        running_simulator(folder, master.grpc_port, workers, "--ramp", "0") as simulator,
    ):
        fleet = Fleet(master, simulator, workers)
        wait_until(lambda: bool(simulator.last_output), _FIRST_STATUS_SECONDS, "the simulator is silent", simulator)
        begun = time.monotonic() - max(time.time() - float(simulator_status(simulator)["time"]), 0.0)
        seconds, active, answers = _watch(fleet, begun, timeout_seconds)
        time.sleep(quiet_seconds)
        calls = Scrape(fetch(master.http_port, "/metrics").body.decode())
        return {
            "storm_seconds": seconds,
            "storm_active": float(active),
            "storm_refusals": calls.total(_CALLS, method="Connect") - calls.total(_CALLS, method="Connect", code="OK"),
            "storm_refused_peak": float(max(_refused(status) for status in simulator_statuses(simulator))),
            "storm_inactive": float(fleet.inactive_so_far()),
            "storm_health_p50_seconds": percentile(answers, 50),
            "storm_health_p99_seconds": percentile(answers, 99),
        }


def _watch(fleet: Fleet, begun: float, timeout_seconds: float) -> tuple[float | None, int, list[float]]:
    """When all were active if they were, how many at last, and the times of the answers meanwhile."""
    answers: list[float] = []
    active = 0
    while time.monotonic() - begun < timeout_seconds:
        answers.append(fetch(fleet.master.http_port, "/health").seconds)
        if len(answers) % _POLLS_BETWEEN_COUNTS == 0:
            shown = fetch_json(fleet.master.http_port, "/workers").values()
            active = sum(worker["is_active"] for worker in shown)
            if active == fleet.workers:
                return time.monotonic() - begun, active, answers
        time.sleep(_POLL_SECONDS)
    return None, active, answers


def _refused(status: dict[str, Any]) -> int:
    """How many workers waited after a try that failed."""
    return sum(group["workers"] for group in status["waiting"] if group["reason"] not in _NO_REFUSALS)
