"""Batches: agents that report for many workers on one stream, beside the floor of a stream for each worker."""

import time
from pathlib import Path

from tests.bench.client import fetch
from tests.bench.exposition import Scrape
from tests.bench.fleet import INTERVAL_SECONDS, Fleet, running_fleet

MACHINES_PER_AGENT = 64

_ACCEPTED = "fleetpulse_heartbeats_received_total"
_SCRAPE_SECONDS = 15.0


def measure_batch(folder: Path, workers: int, seconds: float) -> dict[str, float | None]:
    """CPU a heartbeat and memory of the master, scraped as in the window, with history."""
    with running_fleet(folder, workers, simulator_flags=("--batch", str(MACHINES_PER_AGENT))) as fleet:
        fleet.records()
        time.sleep(INTERVAL_SECONDS)
        text = _scrape(fleet)
        before, accepted_before = fleet.master.process.usage(), Scrape(text).total(_ACCEPTED)
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0.0:
            time.sleep(min(left, _SCRAPE_SECONDS))
            text = _scrape(fleet)
            fleet.records()
        after, accepted = fleet.master.process.usage(), Scrape(text).total(_ACCEPTED) - accepted_before
        return {
            "batch_cpu_seconds_per_heartbeat": (after.cpu_seconds - before.cpu_seconds) / accepted
            if accepted
            else None,
            "batch_heartbeats_per_second": accepted / seconds,
            "batch_rss_bytes": float(after.rss_bytes),
            "batch_inactive": float(fleet.inactive_so_far()),
        }


def _scrape(fleet: Fleet) -> str:
    return fetch(fleet.master.http_port, "/metrics", packed=True).body.decode()
