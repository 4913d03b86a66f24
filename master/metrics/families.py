"""Every metric family of the workers: one row each, from which the exposition and docs/metrics.md are made.

Base units, ratios from 0 to 1, ``worker_id`` on every sample. A reading that is ``None`` gives no sample.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from master.telemetry.records import WorkerTelemetry

Number = float | int | None


class Family(NamedTuple):
    """One metric family, either with one value a worker or with one for each of its devices, collectors or tasks."""

    name: str
    kind: str
    unit: str
    help: str
    value: Callable[[WorkerTelemetry], Number] | None = None
    """The reading of a family whose only label is worker_id."""

    labels: tuple[str, ...] = ()
    """The labels beside worker_id."""

    values: Callable[[WorkerTelemetry], Iterable[tuple[tuple[str, ...], Number]]] | None = None
    """The readings of a family with more labels, each behind the values of those labels, unescaped."""

    outlives_silence: bool = False
    """Whether an inactive worker keeps it."""


def _one(
    name: str,
    kind: str,
    unit: str,
    text: str,
    value: Callable[[WorkerTelemetry], Number],
    *,
    outlives_silence: bool = False,
) -> Family:
    return Family(f"fleetpulse_worker_{name}", kind, unit, text, value, outlives_silence=outlives_silence)


def _many(
    name: str,
    kind: str,
    unit: str,
    text: str,
    labels: tuple[str, ...],
    values: Callable[[WorkerTelemetry], Iterable[tuple[tuple[str, ...], Number]]],
) -> Family:
    return Family(f"fleetpulse_worker_{name}", kind, unit, text, labels=labels, values=values)


def _ratio(percent: float | None) -> float | None:
    return None if percent is None else percent / 100.0


FAMILIES: tuple[Family, ...] = (
    _one("up", "gauge", "", "1 while the worker beats, 0 when it has been silent for the inactivity timeout.",
         lambda t: 1 if t.is_active else 0, outlives_silence=True),
    _one("last_heartbeat_timestamp_seconds", "gauge", "Unix seconds",
         "When the master last heard the worker, by the master's clock.",
         lambda t: t.last_update, outlives_silence=True),
    _many("info", "gauge", "", "Always 1; the labels say what the worker said of itself.",
          ("hostname", "version"), lambda t: [((t.registration.hostname, t.registration.version), 1)]),
    _one("boot_time_seconds", "gauge", "Unix seconds", "When the machine booted.",
         lambda t: t.registration.boot_time),
    _one("uptime_seconds", "gauge", "seconds", "For how long the machine has been up.",
         lambda t: t.reading.uptime_seconds),
    _one("cpu_usage_ratio", "gauge", "ratio", "Share of all cores' time that was used, 0 to 1.",
         lambda t: _ratio(t.reading.cpu_usage_percent)),
    _one("cpu_logical_cores", "gauge", "cores", "Logical cores of the machine.",
         lambda t: t.reading.cpu_logical_cores),
    _one("load1", "gauge", "processes", "Mean number of processes that ran or waited, over 1 minute.",
         lambda t: t.reading.load1),
    _one("load5", "gauge", "processes", "Mean number of processes that ran or waited, over 5 minutes.",
         lambda t: t.reading.load5),
    _one("load15", "gauge", "processes", "Mean number of processes that ran or waited, over 15 minutes.",
         lambda t: t.reading.load15),
    _one("memory_used_bytes", "gauge", "bytes", "Memory that cannot be given to a new process without swapping.",
         lambda t: t.reading.memory_used_bytes),
    _one("memory_size_bytes", "gauge", "bytes", "Memory of the machine.",
         lambda t: t.reading.memory_size_bytes),
    _one("swap_used_bytes", "gauge", "bytes", "Swap space in use.",
         lambda t: t.reading.swap_used_bytes),
    _one("swap_size_bytes", "gauge", "bytes", "Swap space of the machine.",
         lambda t: t.reading.swap_size_bytes),
    _many("filesystem_used_bytes", "gauge", "bytes", "Space in use on a filesystem.", ("mountpoint",),
          lambda t: [((f.mountpoint,), f.used_bytes) for f in t.reading.filesystems]),
    _many("filesystem_size_bytes", "gauge", "bytes", "Space of a filesystem.", ("mountpoint",),
          lambda t: [((f.mountpoint,), f.size_bytes) for f in t.reading.filesystems]),
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
          lambda t: [((str(g.index), g.uuid, g.name), 1) for g in t.reading.gpus]),
    _many("gpu_utilization_ratio", "gauge", "ratio", "Share of time in which the GPU ran a kernel, 0 to 1.",
          ("gpu", "uuid"),
          lambda t: [((str(g.index), g.uuid), _ratio(g.utilization_percent)) for g in t.reading.gpus]),
    _many("gpu_memory_used_bytes", "gauge", "bytes", "GPU memory in use.", ("gpu", "uuid"),
          lambda t: [((str(g.index), g.uuid), g.memory_used_bytes) for g in t.reading.gpus]),
    _many("gpu_memory_size_bytes", "gauge", "bytes", "GPU memory in all.", ("gpu", "uuid"),
          lambda t: [((str(g.index), g.uuid), g.memory_size_bytes) for g in t.reading.gpus]),
    _many("gpu_temperature_celsius", "gauge", "degrees Celsius", "Temperature of the GPU.", ("gpu", "uuid"),
          lambda t: [((str(g.index), g.uuid), g.temperature_celsius) for g in t.reading.gpus]),
    _many("gpu_power_watts", "gauge", "watts", "Power that the GPU draws.", ("gpu", "uuid"),
          lambda t: [((str(g.index), g.uuid), g.power_watts) for g in t.reading.gpus]),
    _one("running_tasks", "gauge", "tasks", "Tasks that the worker runs.",
         lambda t: len(t.reading.running_tasks) if t.counts.received else None),
    _many("task_cpu_usage_ratio", "gauge", "ratio", "CPU that a running task uses, of one core: 2 is two cores.",
          ("task_id",),
          lambda t: [((k.task_id,), _ratio(k.cpu_usage_percent)) for k in t.reading.running_tasks]),
    _many("task_memory_used_bytes", "gauge", "bytes", "Memory that a running task uses.", ("task_id",),
          lambda t: [((k.task_id,), k.memory_used_bytes) for k in t.reading.running_tasks]),
    _many("collector_success", "gauge", "", "1 when the worker's collector gave its readings, 0 when it failed.",
          ("collector",),
          lambda t: [((c.collector,), int(c.success)) for c in t.reading.collectors]),
    _one("collectors_duration_seconds", "gauge", "seconds", "Time that the slowest of the worker's collectors took.",
         lambda t: max((c.duration_seconds for c in t.reading.collectors), default=None)),
    _one("heartbeats_received_total", "counter", "heartbeats",
         "Heartbeats of this worker since the master knows it.",
         lambda t: t.counts.received),
    _one("heartbeats_dropped_total", "counter", "heartbeats",
         "Heartbeats of this worker that a newer one overtook in its queue.",
         lambda t: t.counts.dropped),
    _one("heartbeats_missed_total", "counter", "heartbeats",
         "Heartbeats of this worker that never arrived, by the gaps in its sequence numbers.",
         lambda t: t.counts.missed),
)  # fmt: skip
