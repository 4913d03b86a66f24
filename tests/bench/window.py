"""The steady window: the work and the cost of the master with the fleet's heartbeats and few readers.

Every 15 s there is a scrape of /metrics and a request for /telemetry. The master renders a view only while it is read,
so without them the figures would be too low.

The window begins after one scrape and ends after another. Both count the heartbeats, and CPU is read at the same times.
So the window contains the cost of the last scrape, not of the first.

The master renders shortly before it expects a read, so the scrapes begin before the window. Their times are measured
as well.
"""

import time
from typing import NamedTuple

from tests.bench.client import AS_PROMETHEUS, Answer, fetch
from tests.bench.exposition import Scrape, quantile_between
from tests.bench.fleet import INTERVAL_SECONDS, PREFIX, Fleet
from tests.bench.processes import BenchError, Usage, machine_busy_seconds

SCRAPE_SECONDS = 15.0
_SCRAPES_BEFORE = 2

_ACCEPTED = "fleetpulse_heartbeats_received_total"
_DROPPED = "fleetpulse_heartbeats_dropped_total"
_REJECTED = "fleetpulse_heartbeats_rejected_total"
_MISSED = "fleetpulse_worker_heartbeats_missed_total"
_UP = "fleetpulse_worker_up"
_HISTOGRAMS = {
    "receipt_to_visible": "fleetpulse_heartbeat_receipt_to_visible_seconds",
    "sent_to_visible": "fleetpulse_heartbeat_sent_to_visible_seconds",
}


class _Sample(NamedTuple):
    seconds: float
    pids: tuple[int, ...]
    master: Usage
    simulator: Usage
    bench_cpu_seconds: float
    machine_cpu_seconds: float
    scrape: Answer


def measure_window(fleet: Fleet, seconds: float) -> dict[str, float | None]:
    """Measures the fleet for ``seconds``."""
    first = fetch(fleet.master.http_port, "/metrics", accept=AS_PROMETHEUS)
    inactive = [_not_active(fleet)]
    if seconds > SCRAPE_SECONDS:
        for _ in range(_SCRAPES_BEFORE):
            time.sleep(SCRAPE_SECONDS)
            _scrape(fleet)
            inactive.append(_not_active(fleet))
        time.sleep(SCRAPE_SECONDS)
    opening = _sample(fleet)
    inactive.append(_not_active(fleet))
    scrape_seconds = [opening.scrape.seconds]
    while (left := opening.seconds + seconds - time.perf_counter()) > 0.0:
        time.sleep(min(left, SCRAPE_SECONDS))
        if left > SCRAPE_SECONDS:
            scrape_seconds.append(_scrape(fleet).seconds)
            inactive.append(_not_active(fleet))
    closing = _sample(fleet)
    scrape_seconds.append(closing.scrape.seconds)
    if opening.pids != closing.pids:
        raise BenchError(f"the master's processes changed in the window: {opening.pids} became {closing.pids}")
    before, after = (Scrape(sample.scrape.body.decode()) for sample in (opening, closing))
    inactive += [_not_active(fleet), before.count(_UP, 0.0), after.count(_UP, 0.0)]
    return {
        "metrics_first_seconds": first.seconds,
        "metrics_in_window_max_seconds": max(scrape_seconds),
        "window_seconds": closing.seconds - opening.seconds,
        **_heartbeats(fleet, before, after, closing.seconds - opening.seconds),
        "workers_seen_inactive": max(inactive),
        **_costs(opening, closing, after.total(_ACCEPTED) - before.total(_ACCEPTED)),
        **{
            f"{key}_p{percent}_seconds": quantile_between(before, after, name, percent / 100.0)
            for key, name in _HISTOGRAMS.items()
            for percent in (50, 99)
        },
    }


def measure_whole_run(fleet: Fleet) -> dict[str, float | None]:
    """Counts errors since the start, and the peak memory of the master. Called last."""
    usage = fleet.master.process.usage()
    scrape = Scrape(_scrape(fleet).body.decode())
    return {
        "run_heartbeats_lost": sum(scrape.total(name) for name in (_DROPPED, _REJECTED, _MISSED)),
        "run_workers_inactive": max(scrape.count(_UP, 0.0), _not_active(fleet), fleet.inactive_so_far()),
        "master_rss_after_reads_bytes": usage.rss_bytes,
        "master_peak_rss_bytes": usage.peak_rss_bytes,
    }


def _sample(fleet: Fleet) -> _Sample:
    scrape = _scrape(fleet)
    return _Sample(
        seconds=time.perf_counter(),
        pids=fleet.master.process.pids(),
        master=fleet.master.process.usage(),
        simulator=fleet.simulator.usage(),
        bench_cpu_seconds=time.process_time(),
        machine_cpu_seconds=machine_busy_seconds(),
        scrape=scrape,
    )


def _scrape(fleet: Fleet) -> Answer:
    return fetch(fleet.master.http_port, "/metrics", accept=AS_PROMETHEUS, packed=True)


def _not_active(fleet: Fleet) -> int:
    """The number of workers that ``/telemetry`` does not show as active."""
    records = fleet.records().items()
    return fleet.workers - sum(
        worker_id.startswith(PREFIX) and record["is_active"] is True for worker_id, record in records
    )


def _heartbeats(fleet: Fleet, before: Scrape, after: Scrape, seconds: float) -> dict[str, float | None]:
    accepted, dropped, rejected, missed = (
        after.total(name) - before.total(name) for name in (_ACCEPTED, _DROPPED, _REJECTED, _MISSED)
    )
    return {
        "heartbeats_accepted": accepted,
        "heartbeats_accepted_ratio": accepted / (fleet.workers * seconds / INTERVAL_SECONDS),
        "heartbeats_dropped": dropped,
        "heartbeats_rejected": rejected,
        "heartbeats_missed": missed,
    }


def _costs(opening: _Sample, closing: _Sample, heartbeats: float) -> dict[str, float | None]:
    seconds = closing.seconds - opening.seconds
    master = closing.master.cpu_seconds - opening.master.cpu_seconds
    simulator = closing.simulator.cpu_seconds - opening.simulator.cpu_seconds
    bench = closing.bench_cpu_seconds - opening.bench_cpu_seconds
    machine = closing.machine_cpu_seconds - opening.machine_cpu_seconds
    return {
        "master_cpu_seconds_per_heartbeat": master / heartbeats if heartbeats else None,
        "master_cores": master / seconds,
        "master_rss_bytes": closing.master.rss_bytes,
        "simulator_cpu_seconds_per_heartbeat": simulator / heartbeats if heartbeats else None,
        "simulator_cores": simulator / seconds,
        "other_cores": max(machine - master - simulator - bench, 0.0) / seconds,
    }
