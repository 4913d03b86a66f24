"""Writes docs/metrics.md from the code; with ``--check``, only tells whether doing so would change it."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase

from fleetpulse.master.instruments import Instruments
from fleetpulse.master.metrics.custom import MAX_FAMILIES, MAX_SAMPLES, PREFIX
from fleetpulse.master.metrics.families import FAMILIES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"

LABELS = {
    "worker_id": "the worker, on every series of a worker",
    "hostname": "the machine's own name",
    "version": "of FleetPulse: the worker's on `fleetpulse_worker_info`, the master's on `fleetpulse_build_info`",
    "how": "with what a certificate was asked for: `join`, a token, or `renew`, the one before",
    "holder": "whose certificate it is: `master`, or `worker` for the oldest of those of the connected ones",
    "mountpoint": "where a filesystem is mounted",
    "device": "a physical disk, as the kernel names it",
    "interface": "a network interface, as the kernel names it",
    "gpu": "position of a GPU on its machine, from 0; may change at a reboot",
    "uuid": "of a GPU; stays with the device",
    "name": "product name of a GPU",
    "task_id": "a task, only while it runs",
    "collector": "a part of the worker that takes readings: `cpu`, `memory`, `filesystem`, `gpu` and so on",
    "state": "`active` or `inactive`",
    "reason": "why something was refused, or why an attempt ended as it did: one of a fixed set of words",
    "method": "of a call: the gRPC method, or the HTTP method",
    "code": "how a gRPC call ended",
    "route": "the template of a path, `/telemetry/{worker_id}` for one; `(none)` where no path matched",
    "event": "kind of a server-sent event: `reset`, `snapshot`, `update`, `removed` or `problem`",
    "status": "of an HTTP answer; of a task: `queued`, `pending`, `running`, `completed`, `failed` or `cancelled`; how "
    "an attempt ended: `completed`, `failed`, `stopped` or `lost`",
    "python_version": "of the interpreter that runs the master",
    "generation": "of Python's garbage collector",
    "implementation": "of Python",
    "major": "of Python's version",
    "minor": "of Python's version",
    "patchlevel": "of Python's version",
}

# Of metrics whose unit is not in a column of its own, by how the name ends; anything else is a count.
UNITS = {"_start_time_seconds": "Unix seconds", "_seconds": "seconds", "_bytes": "bytes", "_info": ""}

# What a worker may have several of, by the labels that tell them apart, and how many a machine with 8 GPUs has.
THINGS = {
    ("mountpoint",): ("filesystem", 2),
    ("device",): ("disk", 1),
    ("interface",): ("network interface", 1),
    ("gpu", "uuid"): ("GPU", 8),
    ("collector",): ("collector", 8),
    ("task_id",): ("running task", 0),
}

INTRODUCTION = """\
# Metrics

What `GET /metrics` of a master shows, in Prometheus' text format or, where `Accept` asks for it, in OpenMetrics.
`make docs` writes this page from the code, and a test keeps it true.

## Names

Every name begins with `fleetpulse_`, and those that come from a worker with `fleetpulse_worker_`. Units are base units
and stand at the end of the name: bytes, seconds, degrees Celsius, watts. A ratio runs from 0 to 1, where REST shows
percent. A counter ends in `_total`; it counts since the machine booted, or since the master or the worker was started.
A counter with labels has a series once there was something to count. A histogram `x` is shown as `x_bucket`, `x_sum`
and `x_count`.

A reading that a machine does not give has no series. It is never shown as 0: a machine without a GPU has no
`fleetpulse_worker_gpu_utilization_ratio`, and one whose driver gives no power has the other series of that GPU.

## When a worker falls silent

When nothing was heard of a worker for the inactivity timeout, `fleetpulse_worker_up` turns 0 and
`fleetpulse_worker_last_heartbeat_timestamp_seconds` stays as it is; `fleetpulse_worker_draining` is still told, so that
nobody is paged for a machine that was drained. All other series of the worker end there, so Prometheus marks them stale
and no graph shows a dead machine's last reading as if it were live. They are back with the next heartbeat. When the
worker says goodbye, is deleted, or has been gone for the retention time (`FLEETPULSE_RETENTION`), nothing of it is
left. Series are made from the live table, so they cannot pile up.

`fleetpulse_worker_up` is not Prometheus' own `up`, which tells whether the master could be scraped: alert on both.
To see which machines are down, with what they were called:

    (fleetpulse_worker_up == 0)
      * on (worker_id) group_left (hostname)
    max by (worker_id, hostname) (last_over_time(fleetpulse_worker_info[1d]))

"""

LABELS_INTRODUCTION = """
## Labels

`instance` and `job` are left to Prometheus. What identifies something and seldom changes is a label of an `_info`
metric, whose value is always 1; join it where it is needed:

    fleetpulse_worker_cpu_usage_ratio * on (worker_id) group_left (hostname) fleetpulse_worker_info

"""


CUSTOM_METRICS = f"""
## Of each worker's operator

Custom metrics, which operators add, are `{PREFIX}<name>`, with `worker_id` and their own labels, as gauges, counters or
untyped. Type and description of a family are those of the worker that brought it first. A worker that has it with
another type, and what goes beyond {MAX_FAMILIES} families or {MAX_SAMPLES:,} samples of the whole fleet, is left out
and counted by `fleetpulse_custom_samples_dropped`. Like other readings they end while their worker is silent.
"""


class Row(NamedTuple):
    """One metric as the tables list it."""

    name: str
    kind: str
    labels: Sequence[str]
    unit: str
    help: str


def worker_rows() -> list[Row]:
    """The metrics that each worker has."""
    return [
        Row(family.name, family.kind, ("worker_id", *family.labels), family.unit, family.help) for family in FAMILIES
    ]


def master_rows() -> list[Row]:
    """The metrics that the master has of itself."""
    instruments = Instruments()
    labels = {
        next(iter(metric.describe())).name: metric._labelnames  # noqa: SLF001 - nowhere else before there is a sample
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
    """The labels of its samples, but for that of a histogram's buckets."""
    return list(dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le"))


def unit_of(name: str) -> str:
    """The unit that a name ends with."""
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "count")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def metrics_table(rows: Iterable[Row]) -> str:
    """Markdown."""
    return table(
        ["Name", "Type", "Labels", "Unit", "What it says"],
        (
            [f"`{row.name}`", row.kind, ", ".join(f"`{label}`" for label in row.labels), row.unit, row.help]
            for row in rows
        ),
    )


def labels_table(rows: Iterable[Row]) -> str:
    """Markdown. Raises KeyError for a label that ``LABELS`` does not explain."""
    used = {label: None for row in rows for label in row.labels}
    return table(["Label", "What it names"], ([f"`{label}`", LABELS[label]] for label in used))


def cardinality() -> str:
    """How many series a worker has, as Markdown."""
    counts: Counter[str] = Counter()
    for family in FAMILIES:
        thing, _ = THINGS.get(family.labels[:2], ("worker", 1))
        counts[thing] += 1
    machine = counts["worker"] + sum(counts[thing] * number for thing, number in THINGS.values())
    return (
        "## How many series\n\n"
        + table(["For each", "Series"], ([thing, str(count)] for thing, count in counts.items()))
        + "\nA machine with 2 filesystems, 1 disk, 1 network interface, 8 GPUs and 8 collectors that runs no task has "
        + f"{machine} series,\nand {machine - 8 * counts['GPU']} without the GPUs. "
        + "The master's own series do not grow with the fleet.\n"
    )


def page() -> str:
    """The whole of docs/metrics.md."""
    workers, own = worker_rows(), master_rows()
    ours = [row for row in own if row.name.startswith("fleetpulse_")]
    process = [row for row in own if row not in ours]
    return "".join(
        [
            INTRODUCTION, cardinality(), LABELS_INTRODUCTION, labels_table([*workers, *ours, *process]),
            "\n## Of each worker\n\n", metrics_table(workers), CUSTOM_METRICS,
            "\n## Of the master\n\n", metrics_table(ours),
            "\n## Of the master's process\n\n",
            "As every client of Prometheus names them.\n\n",
            metrics_table(process),
        ]
    )  # fmt: skip


def main() -> int:
    """The exit status: 1 when ``--check`` found that the page is not what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if something would change")
    if not parser.parse_args().check:
        PAGE.write_text(page())
        return 0
    if PAGE.exists() and PAGE.read_text() == page():
        return 0
    print("docs/metrics.md is not what the code says. Run: make docs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
