"""REST with wrk, and /metrics, under the heartbeats of the fleet."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.client import fetch_repeatedly, percentile
from tests.bench.fleet import Fleet
from tests.bench.processes import BenchError, find_tool, run_json
from tests.ports import LOCALHOST

PACED_RATE = 200
PACED_CONNECTIONS = 16

_SCRIPT = Path(__file__).with_name("pace.lua")
_MICROSECONDS = 1e-6
_ROUTES = {
    "telemetry": "/telemetry",
    "workers": "/workers",
    "api_workers": "/api/workers",
    "health": "/health",
}


class Load(NamedTuple):
    """The figures of wrk."""

    requests_per_second: float
    p50_seconds: float
    p99_seconds: float


def measure_rest(fleet: Fleet, folder: Path, seconds: float) -> dict[str, float | None]:
    """Measures each route for ``seconds``: one record at a fixed rate, the rest back to back on one connection."""
    port = fleet.master.http_port
    records = [f"/telemetry/{worker_id}" for worker_id in fleet.records()]
    load = run_wrk(port, records, folder, seconds, PACED_CONNECTIONS, PACED_RATE)
    figures: dict[str, float | None] = {"telemetry_id_requests_per_second": load.requests_per_second}
    loads = {"telemetry_id": load} | {key: run_wrk(port, [path], folder, seconds) for key, path in _ROUTES.items()}
    for key, load in loads.items():
        figures[f"{key}_p50_seconds"] = load.p50_seconds
        figures[f"{key}_p99_seconds"] = load.p99_seconds
    return figures


def measure_metrics(fleet: Fleet, fetches: int) -> tuple[dict[str, float | None], str]:
    """Measures ``/metrics`` plain and compressed. Also returns the last plain text."""
    port = fleet.master.http_port
    plain = fetch_repeatedly(port, "/metrics", fetches)
    packed = fetch_repeatedly(port, "/metrics", fetches, packed=True)
    return {
        "metrics_p50_seconds": percentile(plain.seconds, 50),
        "metrics_p99_seconds": percentile(plain.seconds, 99),
        "metrics_gzip_p50_seconds": percentile(packed.seconds, 50),
        "metrics_gzip_p99_seconds": percentile(packed.seconds, 99),
        "metrics_bytes": plain.last.sent_bytes,
        "metrics_gzip_bytes": packed.last.sent_bytes,
    }, plain.last.body.decode()


def run_wrk(
    port: int, paths: Sequence[str], folder: Path, seconds: float, connections: int = 1, rate: int | None = None
) -> Load:
    """Runs wrk with one thread. Raises ``BenchError`` when a request failed."""
    listed = folder / "paths.txt"
    listed.write_text("".join(f"{path}\n" for path in paths))
    command: list[str | Path] = [
        find_tool("wrk"), "-t1", f"-c{connections}", f"-d{math.ceil(seconds)}s", "--timeout", "10s",
        "-s", _SCRIPT, f"http://{LOCALHOST}:{port}", "--", listed,
    ]  # fmt: skip
    command += [str(rate)] if rate else []
    output = run_json("wrk", command, folder, seconds + 30.0)
    if output["errors"] or not output["requests"]:
        raise BenchError(f"wrk of {paths[0]}: {output['requests']} requests, {output['errors']} of them failed")
    return Load(
        requests_per_second=output["requests"] / (output["duration"] * _MICROSECONDS),
        p50_seconds=output["p50"] * _MICROSECONDS,
        p99_seconds=output["p99"] * _MICROSECONDS,
    )
