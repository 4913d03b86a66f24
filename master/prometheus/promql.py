"""Each field of the history in PromQL, over the series that ``/metrics`` has of a worker.

The series of one master may come under several jobs and instances; ``max`` makes them one again.
"""

from collections.abc import Sequence
from typing import NamedTuple

RATE_SECONDS = 60
"""Over how long a rate is taken at least: Prometheus needs two scrapes in it, and better four."""

MAX_INNER_POINTS = 60
"""How often an expression is looked at within one step, at most."""

STATS = ("mean", "min", "max")

_PREFIX = "fleetpulse_worker_"
_OVER_TIME = {"mean": "avg_over_time", "min": "min_over_time", "max": "max_over_time"}


class _Gauge(NamedTuple):
    """``template`` has a hole for the selector of the worker."""

    template: str


class _Rate(NamedTuple):
    """Of a counter with this label beside ``worker_id``, summed over it."""

    counter: str
    label: str


_EXPRESSIONS: dict[str, _Gauge | _Rate] = {
    "cpu_usage": _Gauge("100 * max(fleetpulse_worker_cpu_usage_ratio{0})"),
    "memory_usage": _Gauge(
        "100 * max(fleetpulse_worker_memory_used_bytes{0}) / max(fleetpulse_worker_memory_size_bytes{0} > 0)"
    ),
    "gpu_usage": _Gauge("100 * avg(max by (gpu, uuid) (fleetpulse_worker_gpu_utilization_ratio{0}))"),
    "filesystem_usage": _Gauge(
        "100 * max(fleetpulse_worker_filesystem_used_bytes{0} / (fleetpulse_worker_filesystem_size_bytes{0} > 0))"
    ),
    "memory_used_bytes": _Gauge("max(fleetpulse_worker_memory_used_bytes{0})"),
    "load1": _Gauge("max(fleetpulse_worker_load1{0})"),
    "running_tasks": _Gauge("max(fleetpulse_worker_running_tasks{0})"),
    "gpu_temperature_celsius": _Gauge("max(fleetpulse_worker_gpu_temperature_celsius{0})"),
    "disk_read_bytes_per_second": _Rate("disk_read_bytes_total", "device"),
    "disk_written_bytes_per_second": _Rate("disk_written_bytes_total", "device"),
    "network_received_bytes_per_second": _Rate("network_received_bytes_total", "interface"),
    "network_transmitted_bytes_per_second": _Rate("network_transmitted_bytes_total", "interface"),
}


def query_for(worker_id: str, fields: Sequence[str], step: int) -> str:
    """One expression with a series for each field and number, told by the labels ``field`` and ``stat``.

    ``worker_id`` obeys the rule for ids, so that nothing in it needs to be escaped.
    """
    selector = f'{{worker_id="{worker_id}"}}'
    return " or ".join(
        f'label_replace(label_replace({_stat(name, selector, stat, step)}, "field", "{name}", "", ""), '
        f'"stat", "{stat}", "", "")'
        for name in fields
        for stat in STATS
    )


def _stat(name: str, selector: str, stat: str, step: int) -> str:
    expression = _EXPRESSIONS[name]
    if isinstance(expression, _Rate):
        if stat == "mean":
            return _rate(expression, selector, max(step, RATE_SECONDS))
        return _over_time(_rate(expression, selector, RATE_SECONDS), stat, step)
    return _over_time(expression.template.replace("{0}", selector), stat, step)


def _rate(expression: _Rate, selector: str, seconds: int) -> str:
    return f"sum(max by ({expression.label}) (rate({_PREFIX}{expression.counter}{selector}[{seconds}s])))"


def _over_time(expression: str, stat: str, step: int) -> str:
    """Looked at within the step alone: in Prometheus 2 a range has its first moment, which is of the step before."""
    inner = max(5, step // MAX_INNER_POINTS)
    return f"{_OVER_TIME[stat]}(({expression})[{1000 * step - 1}ms:{inner}s])"
