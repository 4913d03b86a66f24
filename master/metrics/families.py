"""Every metric family of the workers: one row each, from which the exposition and docs/metrics.md are made.

Base units, ratios from 0 to 1, ``worker_id`` on every sample. A reading that is ``None`` gives no sample.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from master.telemetry.records import WorkerTelemetry

Number = float | int | None


Labelled = tuple[tuple[str, ...], Number]
"""The values of the labels beside worker_id, unescaped, and the reading."""


class Family(NamedTuple):
    """One metric family. ``read`` gives a number where worker_id is the only label, else a list of ``Labelled``."""

    name: str
    kind: str
    unit: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[WorkerTelemetry], Any]
    seldom_changes: bool = False
    """Sizes, names, states: the exposition renders them when they differ, not at every heartbeat."""

    outlives_silence: bool = False
    """An inactive worker keeps it."""


def _one(
    name: str,
    kind: str,
    unit: str,
    text: str,
    read: Callable[[WorkerTelemetry], Number],
    *,
    seldom_changes: bool = False,
    outlives_silence: bool = False,
) -> Family:
    return Family(f"fleetpulse_worker_{name}", kind, unit, text, (), read, seldom_changes, outlives_silence)


def _many(
    name: str,
    kind: str,
    unit: str,
    text: str,
    labels: tuple[str, ...],
    read: Callable[[WorkerTelemetry], list[Labelled]],
    *,
    seldom_changes: bool = False,
) -> Family:
    return Family(f"fleetpulse_worker_{name}", kind, unit, text, labels, read, seldom_changes)


def _ratio(percent: float | None) -> float | None:
    return None if percent is None else percent / 100.0


FAMILIES: tuple[Family, ...] = (
    _one("up", "gauge", "", "1 while the worker beats, 0 when it has been silent for the inactivity timeout.",
         lambda t: 1 if t.is_active else 0, seldom_changes=True, outlives_silence=True),
    _one("last_heartbeat_timestamp_seconds", "gauge", "Unix seconds",
         "When the master last heard the worker, by the master's clock.",
         lambda t: t.last_update, outlives_silence=True),
    _many("info", "gauge", "", "Always 1; the labels say what the worker said of itself.",
          ("hostname", "version"),
          lambda t: [((t.registration.hostname, t.registration.version), 1)], seldom_changes=True),
    _one("boot_time_seconds", "gauge", "Unix seconds", "When the machine booted.",
         lambda t: t.registration.boot_time, seldom_changes=True),
    _one("cpu_usage_ratio", "gauge", "ratio", "Share of all cores' time that was used, 0 to 1.",
         lambda t: _ratio(t.reading.cpu_usage_percent)),
    _one("cpu_logical_cores", "gauge", "cores", "Logical cores of the machine.",
         lambda t: t.reading.cpu_logical_cores, seldom_changes=True),
    _one("load1", "gauge", "processes", "Mean number of processes that ran or waited, over 1 minute.",
         lambda t: t.reading.load1),
    _one("load5", "gauge", "processes", "Mean number of processes that ran or waited, over 5 minutes.",
         lambda t: t.reading.load5),
    _one("load15", "gauge", "processes", "Mean number of processes that ran or waited, over 15 minutes.",
         lambda t: t.reading.load15),
    _one("memory_used_bytes", "gauge", "bytes", "Memory that cannot be given to a new process without swapping.",
         lambda t: t.reading.memory_used_bytes),
    _one("memory_size_bytes", "gauge", "bytes", "Memory of the machine.",
         lambda t: t.reading.memory_size_bytes, seldom_changes=True),
    _one("swap_used_bytes", "gauge", "bytes", "Swap space in use.",
         lambda t: t.reading.swap_used_bytes, seldom_changes=True),
    _one("swap_size_bytes", "gauge", "bytes", "Swap space of the machine.",
         lambda t: t.reading.swap_size_bytes, seldom_changes=True),
    _many("filesystem_used_bytes", "gauge", "bytes", "Space in use on a filesystem.", ("mountpoint",),
          lambda t: [((f.mountpoint,), f.used_bytes) for f in t.reading.filesystems]),
    _many("filesystem_size_bytes", "gauge", "bytes", "Space of a filesystem.", ("mountpoint",),
          lambda t: [((f.mountpoint,), f.size_bytes) for f in t.reading.filesystems], seldom_changes=True),
    _many("disk_read_bytes_total", "counter", "bytes", "Read from a physical disk since boot.", ("device",),
          lambda t: [((d.device,), d.read_bytes) for d in t.reading.disk_devices]),
    _many("disk_written_bytes_total", "counter", "bytes", "Written to a physical disk since boot.", ("device",),
          lambda t: [((d.device,), d.written_bytes) for d in t.reading.disk_devices]),
    _many("network_received_bytes_total", "counter", "bytes", "Received on a network interface since boot.",
          ("interface",),
          lambda t: [((n.interface,), n.received_bytes) for n in t.reading.network_interfaces]),
    _many("network_transmitted_bytes_total", "counter", "bytes", "Sent on a network interface since boot.",
          ("interface",),
          lambda t: [((n.interface,), n.transmitted_bytes) for n in t.reading.network_interfaces]),
    _many("gpu_info", "gauge", "", "Always 1; the labels name the GPU.", ("gpu", "uuid", "name"),
          lambda t: [((str(g.gpu_index), g.uuid, g.name), 1) for g in t.reading.gpus], seldom_changes=True),
    _many("gpu_utilization_ratio", "gauge", "ratio", "Share of time in which the GPU ran a kernel, 0 to 1.",
          ("gpu", "uuid"),
          lambda t: [((str(g.gpu_index), g.uuid), _ratio(g.utilization_percent)) for g in t.reading.gpus]),
    _many("gpu_memory_used_bytes", "gauge", "bytes", "GPU memory in use.", ("gpu", "uuid"),
          lambda t: [((str(g.gpu_index), g.uuid), g.memory_used_bytes) for g in t.reading.gpus]),
    _many("gpu_memory_size_bytes", "gauge", "bytes", "GPU memory in all.", ("gpu", "uuid"),
          lambda t: [((str(g.gpu_index), g.uuid), g.memory_size_bytes) for g in t.reading.gpus], seldom_changes=True),
    _many("gpu_temperature_celsius", "gauge", "degrees Celsius", "Temperature of the GPU.", ("gpu", "uuid"),
          lambda t: [((str(g.gpu_index), g.uuid), g.temperature_celsius) for g in t.reading.gpus]),
    _many("gpu_power_watts", "gauge", "watts", "Power that the GPU draws.", ("gpu", "uuid"),
          lambda t: [((str(g.gpu_index), g.uuid), g.power_watts) for g in t.reading.gpus]),
    _one("running_tasks", "gauge", "tasks", "Tasks that the worker runs.",
         lambda t: len(t.reading.running_tasks) if t.counts.received else None, seldom_changes=True),
    _many("task_cpu_usage_ratio", "gauge", "ratio", "CPU that a running task uses, of one core: 2 is two cores.",
          ("task_id",),
          lambda t: [((k.task_id,), _ratio(k.cpu_usage_percent)) for k in t.reading.running_tasks]),
    _many("task_memory_used_bytes", "gauge", "bytes", "Memory that a running task uses.", ("task_id",),
          lambda t: [((k.task_id,), k.memory_used_bytes) for k in t.reading.running_tasks]),
    _many("collector_success", "gauge", "", "1 when the worker's collector gave its readings, 0 when it failed.",
          ("collector",),
          lambda t: [((c.collector,), int(c.success)) for c in t.reading.collectors], seldom_changes=True),
    _one("collectors_duration_seconds", "gauge", "seconds", "Time that the slowest of the worker's collectors took.",
         lambda t: max((c.duration_seconds for c in t.reading.collectors), default=None)),
    _one("heartbeats_dropped_total", "counter", "heartbeats",
         "Heartbeats of this worker that a newer one overtook in its queue.",
         lambda t: t.counts.dropped, seldom_changes=True),
    _one("heartbeats_missed_total", "counter", "heartbeats",
         "Heartbeats of this worker that never arrived, by the gaps in its sequence numbers.",
         lambda t: t.counts.missed, seldom_changes=True),
)  # fmt: skip
