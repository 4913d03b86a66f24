"""Panels about GPUs, for one worker and for many."""

from collections.abc import Callable
from typing import NamedTuple

from grafana_foundation_sdk.models import dashboard as sdk

from grafana.builder.charts import lines
from grafana.builder.limits import PLAIN, Limits, alerting
from grafana.builder.panels import HALF, QUARTER, Size, Text
from grafana.builder.queries import ONE, Query, Workers, top


class Reading(NamedTuple):
    """One reading of a GPU. ``make`` writes it for the workers given, with something behind each selector."""

    title: str
    what: str
    unit: str
    make: Callable[[Workers, str], str]
    limits: Limits = PLAIN
    most: float | None = None


def _plain(name: str) -> Callable[[Workers, str], str]:
    return lambda workers, at: f"{workers(name)}{at}"


def _memory(workers: Workers, at: str) -> str:
    return f"{workers.recorded('worker_gpu_memory_used:ratio')}{at}"


UTILIZATION = Reading(
    "Utilization", "Share of time in which a kernel ran", "percentunit", _plain("gpu_utilization_ratio"), most=1
)
MEMORY = Reading("Memory", "Share of its memory in use", "percentunit", _memory, alerting("gpu_memory_ratio"), most=1)
TEMPERATURE = Reading(
    "Temperature", "Degrees", "celsius", _plain("gpu_temperature_celsius"), alerting("gpu_temperature_celsius")
)
POWER = Reading("Power", "What it draws", "watt", _plain("gpu_power_watts"))

READINGS = (UTILIZATION, MEMORY, TEMPERATURE, POWER)


def of_one_worker() -> list[sdk.Panel]:
    """A line for each GPU of ``$worker``; there are at most some 16."""
    return [
        _of(reading, ONE, "gpu", "GPU {{gpu}}", QUARTER, f"{reading.what}, by GPU. Empty without one.")
        for reading in READINGS
    ]


def those_that_stand_out(workers: Workers) -> list[sdk.Panel]:
    """The ten with most of each reading."""
    what = "the ten with most at the end of the time range"
    legend = "{{worker_id}} GPU {{gpu}}"
    return [_of(reading, workers, "worker_id, gpu", legend, HALF, f"{reading.what}; {what}.") for reading in READINGS]


def _of(reading: Reading, workers: Workers, by: str, legend: str, size: Size, description: str) -> sdk.Panel:
    expr = top(lambda at: reading.make(workers, at), by, 16 if workers is ONE else 10)
    text = Text(reading.title, description, reading.unit)
    per_worker = "worker_id" in by
    return lines(text, Query(expr, legend), limits=reading.limits, size=size, most=reading.most, per_worker=per_worker)
