"""The start time of a master, and its cost with one worker."""

import statistics
import time
from pathlib import Path

from tests.bench.fleet import running_master, running_worker


def measure_idle(folder: Path, seconds: float, starts: int) -> dict[str, float | None]:
    """Starts the master ``starts`` times. Measures the last for ``seconds`` with one real worker and no requests."""
    up_seconds = []
    for _ in range(starts - 1):
        with running_master(folder) as master:
            up_seconds.append(master.up_seconds)
    with running_master(folder) as master, running_worker(folder, master) as worker:
        up_seconds.append(master.up_seconds)
        time.sleep(seconds / 4.0)
        started = time.perf_counter()
        before, worker_before = master.process.usage(), worker.usage()
        time.sleep(seconds)
        after, worker_after = master.process.usage(), worker.usage()
        watched_seconds = time.perf_counter() - started
    return {
        "idle_up_seconds": statistics.median(up_seconds),
        "idle_cores": (after.cpu_seconds - before.cpu_seconds) / watched_seconds,
        "idle_rss_bytes": after.rss_bytes,
        "idle_worker_cores": (worker_after.cpu_seconds - worker_before.cpu_seconds) / watched_seconds,
        "idle_worker_rss_bytes": worker_after.rss_bytes,
    }
