"""prometheus_client with the samples of a fleet. ``python -m tests.bench.latest FILE PORT``.

FILE is a master's /metrics. The samples of its workers become gauges and counters with labels, as in a program that
exposes them itself. Prints the time of ``generate_latest`` as one line of JSON, then serves /metrics.
"""

import json
import sys
import threading
import time
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
    start_http_server,
)

from tests.bench.client import percentile
from tests.bench.exposition import Family, fleet_families
from tests.ports import LOCALHOST

_BUDGET_SECONDS = 20.0
_LEAST_RUNS, _MOST_RUNS = 5, 20


def main() -> None:
    """Measures, prints, and serves until the process is stopped."""
    registry = CollectorRegistry()
    disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types
    for family in fleet_families(Path(sys.argv[1]).read_text()):
        _hold(family, registry)
    runs = _time_runs(registry)
    start_http_server(int(sys.argv[2]), addr=LOCALHOST, registry=registry)
    print(json.dumps({"p50_seconds": percentile(runs, 50), "runs": len(runs)}), flush=True)
    threading.Event().wait()


def _hold(family: Family, registry: CollectorRegistry) -> None:
    label_names = list(family.samples[0].labels)
    if family.kind == "counter":
        counter = Counter(family.name, family.help, label_names, registry=registry)
        for sample in family.samples:
            counter.labels(**sample.labels).inc(sample.value)
    else:
        gauge = Gauge(family.name, family.help, label_names, registry=registry)
        for sample in family.samples:
            gauge.labels(**sample.labels).set(sample.value)


def _time_runs(registry: CollectorRegistry) -> list[float]:
    deadline = time.monotonic() + _BUDGET_SECONDS
    runs: list[float] = []
    while len(runs) < _LEAST_RUNS or (len(runs) < _MOST_RUNS and time.monotonic() < deadline):
        started = time.perf_counter()
        generate_latest(registry)
        runs.append(time.perf_counter() - started)
    return runs


if __name__ == "__main__":
    main()
