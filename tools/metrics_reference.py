"""Writes docs/metrics.md from the code; with ``--check`` only reports whether that would change it."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase

from fleetpulse.master.instruments import Instruments
from fleetpulse.master.metrics.budget import MAX_FLEET_DEVICES, MAX_NEW_DEVICES_AN_HOUR
from fleetpulse.master.metrics.custom import MAX_FAMILIES, MAX_SAMPLES, PREFIX
from fleetpulse.master.metrics.families import FAMILIES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"

LABELS = {
    "worker_id": "the worker, on every series of a worker",
    "hostname": "the machine's own name",
    "version": "FleetPulse version: the worker's on `fleetpulse_worker_info`, the master's on `fleetpulse_build_info`",
    "how": "how a certificate was requested: `join`, with a token, or `renew`, with the previous certificate",
    "holder": "owner of the certificate: `master`, or `worker` for the connected workers together",
    "mountpoint": "mount point of a filesystem",
    "device": "a physical disk, as the kernel names it",
    "interface": "a network interface, as the kernel names it",
    "sensor": "chip and label of a temperature or fan, as `coretemp/Package id 0`",
    "gpu": "index of a GPU on its machine, from 0; may change at a reboot",
    "uuid": "UUID of a GPU; does not change",
    "name": "product name of a GPU",
    "task_id": "a task, only while it runs",
    "collector": "collector of the worker: `cpu`, `memory`, `filesystem`, `gpu` and so on",
    "state": "`active` or `inactive`",
    "reason": "why something was rejected, or why an attempt ended: one of a fixed set of words",
    "method": "gRPC or HTTP method of a call",
    "code": "status code of a gRPC call",
    "route": "path template, for example `/telemetry/{worker_id}`; `(none)` if no path matched",
    "event": "type of a server-sent event: `reset`, `snapshot`, `update`, `removed` or `problem`",
    "status": "status of an HTTP response; of a task: `queued`, `pending`, `running`, `completed`, `failed` or "
    "`cancelled`; of an ended attempt: `completed`, `failed`, `stopped` or `lost`",
    "python_version": "Python version of the master",
    "generation": "generation of Python's garbage collector",
    "implementation": "implementation of Python",
    "major": "part of Python's version",
    "minor": "part of Python's version",
    "patchlevel": "part of Python's version",
}

# Units of the master's metrics by the end of the name. All others are counts.
UNITS = {"_start_time_seconds": "Unix seconds", "_seconds": "seconds", "_bytes": "bytes", "_info": ""}

# Parts of a machine by their labels, with the number of each on a machine with 8 GPUs.
PARTS = {
    ("mountpoint",): ("filesystem", 2),
    ("device",): ("disk", 1),
    ("interface",): ("network interface", 1),
    ("sensor",): ("temperature or fan", 2),
    ("gpu", "uuid"): ("GPU", 8),
    ("collector",): ("collector", 11),
    ("task_id",): ("running task", 0),
}

RARE = frozenset({"fleetpulse_worker_left_out_devices", "fleetpulse_worker_systemd_failed_units"})
"""Metrics that a machine usually has no series of."""

INTRODUCTION = """\
# Metrics

The metrics of `GET /metrics` of a master, in Prometheus' text format or, if `Accept` requests it, in OpenMetrics.
`make docs` generates this page from the code, and a test checks it.

## Names

All names begin with `fleetpulse_`, and metrics of workers with `fleetpulse_worker_`. A name ends with its base unit:
bytes, seconds, degrees Celsius, watts. A ratio is between 0 and 1; REST has percent instead. The name of a counter ends
with `_total`; it counts since the boot of the machine, or since the start of the master or worker. A counter with
labels has no series before its first event. A histogram `x` has the series `x_bucket`, `x_sum` and `x_count`.

A missing reading has no series and is never 0: a machine without a GPU has no
`fleetpulse_worker_gpu_utilization_ratio`, and a GPU whose driver does not report power has only the other series.

## Inactive workers

When a worker has sent no heartbeat for the inactivity timeout, `fleetpulse_worker_up` becomes 0 and
`fleetpulse_worker_last_heartbeat_timestamp_seconds` keeps its value. `fleetpulse_worker_draining` remains, so that
alerts can exclude drained machines. All other series of the worker end, so Prometheus marks them stale and no graph
shows the last reading of a dead machine as live. They return with the next heartbeat. When the worker says goodbye, is
deleted, or has been inactive for the retention time (`FLEETPULSE_RETENTION`), all its series end. Series are generated
from the live table, so they cannot accumulate.

`fleetpulse_worker_up` differs from `up` of Prometheus, which says whether the master could be scraped: alert on both.
To list the machines that are down, with their host names:

    (fleetpulse_worker_up == 0)
      * on (worker_id) group_left (hostname)
    max by (worker_id, hostname) (last_over_time(fleetpulse_worker_info[1d]))

"""

LABELS_INTRODUCTION = """
## Labels

Prometheus adds `instance` and `job`. Properties that seldom change are labels of an `_info` metric, whose value is
always 1. Join it where they are needed:

    fleetpulse_worker_cpu_usage_ratio * on (worker_id) group_left (hostname) fleetpulse_worker_info

"""


BUDGET = f"""
## What is left out

What a worker names becomes a label, so the names have a budget. Of running tasks, only those are shown that the master
assigned to the worker. Of filesystems, disks, interfaces, GPUs and collectors, a worker may bring
{MAX_NEW_DEVICES_AN_HOUR} new names an hour, and the fleet may show {MAX_FLEET_DEVICES:,}; what is shown already stays.
`fleetpulse_metrics_names_left_out` counts what is left out, by reason, and `GET /api/overview` has the sum.
"""

CUSTOM_METRICS = f"""
## Custom metrics

Custom metrics of operators are `{PREFIX}<name>`, with `worker_id` and their own labels, as gauges, counters or untyped.
The first worker that sends a family determines its type and description. Samples with another type, counters below 0,
and samples beyond {MAX_FAMILIES} families or {MAX_SAMPLES:,} samples of the whole fleet, are dropped and counted by
`fleetpulse_custom_samples_dropped`. Like other readings they end while their worker is inactive.
"""


class Row(NamedTuple):
    """A metric as a row of the tables."""

    name: str
    kind: str
    labels: Sequence[str]
    unit: str
    help: str


def worker_rows() -> list[Row]:
    """Metrics of workers."""
    return [
        Row(family.name, family.kind, ("worker_id", *family.labels), family.unit, family.help) for family in FAMILIES
    ]


def master_rows() -> list[Row]:
    """Metrics of the master."""
    instruments = Instruments()
    labels = {
        next(iter(metric.describe())).name: metric._labelnames  # noqa: SLF001 - the only place before the first sample
        for group in (instruments, *vars(instruments).values())
        for metric in vars(group).values()
        if isinstance(metric, MetricWrapperBase)
    }
    return [
        Row(
            name=f"{family.name}_total" if family.type == "counter" else family.name,
            kind=family.type,
            labels=labels.get(family.name) or labels_of(family),
            unit=unit_of(family.name),
            help=family.documentation.removesuffix(".") + ".",
        )
        for family in instruments.registry.collect()
    ]


def labels_of(family: Metric) -> list[str]:
    """Labels of the samples, without ``le`` of histogram buckets."""
    return list(dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le"))


def unit_of(name: str) -> str:
    """Returns the unit at the end of a name."""
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "count")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def metrics_table(rows: Iterable[Row]) -> str:
    """Markdown."""
    return table(
        ["Name", "Type", "Labels", "Unit", "Description"],
        (
            [f"`{row.name}`", row.kind, ", ".join(f"`{label}`" for label in row.labels), row.unit, row.help]
            for row in rows
        ),
    )


def labels_table(rows: Iterable[Row]) -> str:
    """Markdown. Raises KeyError for a label that ``LABELS`` does not explain."""
    used = {label: None for row in rows for label in row.labels}
    return table(["Label", "Description"], ([f"`{label}`", LABELS[label]] for label in used))


def cardinality() -> str:
    """The number of series per worker, as Markdown."""
    counts: Counter[str] = Counter()
    for family in FAMILIES:
        if family.name in RARE:
            continue
        part, _ = PARTS.get(family.labels[:2], ("worker", 1))
        counts[part] += 1
    machine = counts["worker"] + sum(counts[part] * number for part, number in PARTS.values())
    return (
        "## Number of series\n\n"
        + table(["Per", "Series"], ([part, str(count)] for part, count in counts.items()))
        + "\nA machine with 2 filesystems, 1 disk, 1 network interface, 2 sensors, 8 GPUs and 11 collectors that runs "
        + f"no task has {machine} series,\nand {machine - 8 * counts['GPU']} without the GPUs. "
        + "The master's own series do not grow with the fleet.\n"
    )


def page() -> str:
    """The text of docs/metrics.md."""
    workers, own = worker_rows(), master_rows()
    ours = [row for row in own if row.name.startswith("fleetpulse_")]
    process = [row for row in own if row not in ours]
    return "".join(
        [
            INTRODUCTION, cardinality(), LABELS_INTRODUCTION, labels_table([*workers, *ours, *process]),
            "\n## Worker metrics\n\n", metrics_table(workers), BUDGET, CUSTOM_METRICS,
            "\n## Master metrics\n\n", metrics_table(ours),
            "\n## Process metrics of the master\n\n",
            "The standard metrics of Prometheus clients.\n\n",
            metrics_table(process),
        ]
    )  # fmt: skip


def main() -> int:
    """Returns the exit status: 1 when ``--check`` found a change."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if something would change")
    if not parser.parse_args().check:
        PAGE.write_text(page())
        return 0
    if PAGE.exists() and PAGE.read_text() == page():
        return 0
    print("docs/metrics.md is out of date. Run: make docs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
