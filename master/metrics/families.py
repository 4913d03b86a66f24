"""Every metric family of the workers: one row each, from which the exposition and docs/metrics.md are made.

Base units, ratios from 0 to 1, ``worker_id`` on every sample. A reading that is ``None`` gives no sample.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from fleetpulse.master.telemetry.readings import GpuInstance
from fleetpulse.master.telemetry.records import Allocation, WorkerTelemetry

Number = float | int | None


class Subject(NamedTuple):
    """What a family has a sample of: the worker itself, or each of its filesystems, disks, …"""

    items: Callable[[WorkerTelemetry], Sequence[Any]]
    field_by_label: Mapping[str, str]
    """The attributes of an item that are the values of the labels beside worker_id."""


class Family(NamedTuple):
    """One metric family: a field of every item of its subject, perhaps converted."""

    name: str
    unit: str
    help: str
    subject: Subject
    field: str
    convert: Callable[[Any], Number] | None = None
    """Makes the number of a reading that is there."""

    static: bool = False
    """Sizes, names, states: the exposition renders them when they change, not at every heartbeat."""

    outlives_silence: bool = False
    """An inactive worker keeps it."""

    @property
    def kind(self) -> str:
        return "counter" if self.name.endswith("_total") else "gauge"

    @property
    def labels(self) -> tuple[str, ...]:
        """Those beside worker_id."""
        return tuple(self.subject.field_by_label)

    @property
    def read(self) -> Callable[[Any], Number]:
        """The reading of an item."""
        get, convert = attrgetter(self.field), self.convert
        return get if convert is None else lambda item: None if (value := get(item)) is None else convert(value)


def _ratio(percent: float) -> float:
    return percent / 100.0


def _one(_: object) -> int:
    return 1


def _is_drained(allocation: Allocation) -> int:
    return int(allocation.drain_reason is not None)


def _is_degraded(allocation: Allocation) -> int:
    return int(allocation.degraded_reason is not None)


def _gpu_instances(telemetry: WorkerTelemetry) -> Sequence[GpuInstance]:
    # A worker might say one twice, which would be one series with two values.
    found = {(part.gpu, part.uuid): part for gpu in telemetry.reading.gpus for part in gpu.instances}
    return tuple(found.values())


def _itself(telemetry: WorkerTelemetry) -> tuple[WorkerTelemetry]:
    return (telemetry,)


def _task_runner(telemetry: WorkerTelemetry) -> tuple[WorkerTelemetry, ...]:
    return () if telemetry.task_support is None else (telemetry,)


_WORKER = Subject(_itself, {})
_IDENTITY = Subject(_itself, {"hostname": "registration.hostname", "version": "registration.version"})
_TASK_RUNNER = Subject(_task_runner, {})
_FILESYSTEM = Subject(attrgetter("reading.filesystems"), {"mountpoint": "mountpoint"})
_DISK = Subject(attrgetter("reading.disk_devices"), {"device": "device"})
_NETWORK = Subject(attrgetter("reading.network_interfaces"), {"interface": "interface"})
_GPU = Subject(attrgetter("reading.gpus"), {"gpu": "index", "uuid": "uuid"})
_GPU_INSTANCE = Subject(_gpu_instances, {"gpu": "gpu", "uuid": "uuid", "name": "name"})
_GPU_IDENTITY = Subject(_GPU.items, {**_GPU.field_by_label, "name": "name"})
RUNNING_TASKS = Subject(attrgetter("reading.running_tasks"), {"task_id": "task_id"})
_COLLECTOR = Subject(attrgetter("reading.collectors"), {"collector": "collector"})
_SENSOR = Subject(attrgetter("reading.sensors"), {"sensor": "sensor"})
_LEFT_OUT = Subject(attrgetter("reading.left_out"), {"collector": "collector"})
DEVICES = (_FILESYSTEM, _DISK, _NETWORK, _SENSOR, _GPU, _GPU_INSTANCE, _GPU_IDENTITY, _COLLECTOR, _LEFT_OUT)
"""What a worker names as it likes."""


def _family(name: str, *fields: Any, **flags: Any) -> Family:
    return Family(f"fleetpulse_worker_{name}", *fields, **flags)


FAMILIES: tuple[Family, ...] = (
    _family("up", "", "1 while the worker beats, 0 when it has been silent for the inactivity timeout.",
            _WORKER, "is_active", int, static=True, outlives_silence=True),
    _family("last_heartbeat_timestamp_seconds", "Unix seconds",
            "When the master last heard the worker, by the master's clock.",
            _WORKER, "last_update", outlives_silence=True),
    _family("info", "", "Always 1; the labels say what the worker said of itself.",
            _IDENTITY, "registration", _one, static=True),
    _family("boot_time_seconds", "Unix seconds", "When the machine booted.",
            _WORKER, "boot_time", static=True),
    _family("cpu_usage_ratio", "ratio", "Share of all cores' time that was used, 0 to 1.",
            _WORKER, "reading.cpu.usage_percent", _ratio),
    _family("cpu_logical_cores", "cores", "Logical cores of the machine.",
            _WORKER, "reading.cpu.logical_cores", static=True),
    _family("load1", "processes", "Mean number of processes that ran or waited, over 1 minute.",
            _WORKER, "reading.load.load1"),
    _family("load5", "processes", "Mean number of processes that ran or waited, over 5 minutes.",
            _WORKER, "reading.load.load5"),
    _family("load15", "processes", "Mean number of processes that ran or waited, over 15 minutes.",
            _WORKER, "reading.load.load15"),
    _family("pressure_cpu_waiting_seconds_total", "seconds",
            "Time since boot in which some processes waited for a CPU.",
            _WORKER, "reading.pressure.cpu_waiting_seconds"),
    _family("pressure_memory_waiting_seconds_total", "seconds",
            "Time since boot in which some processes waited for memory.",
            _WORKER, "reading.pressure.memory_waiting_seconds"),
    _family("pressure_memory_stalled_seconds_total", "seconds",
            "Time since boot in which all processes with work waited for memory.",
            _WORKER, "reading.pressure.memory_stalled_seconds"),
    _family("pressure_io_waiting_seconds_total", "seconds",
            "Time since boot in which some processes waited for I/O.",
            _WORKER, "reading.pressure.io_waiting_seconds"),
    _family("pressure_io_stalled_seconds_total", "seconds",
            "Time since boot in which all processes with work waited for I/O.",
            _WORKER, "reading.pressure.io_stalled_seconds"),
    _family("memory_used_bytes", "bytes", "Memory that cannot be given to a new process without swapping.",
            _WORKER, "reading.memory.used_bytes"),
    _family("memory_size_bytes", "bytes", "Memory of the machine.",
            _WORKER, "reading.memory.size_bytes", static=True),
    _family("swap_used_bytes", "bytes", "Swap space in use.",
            _WORKER, "reading.memory.swap_used_bytes", static=True),
    _family("swap_size_bytes", "bytes", "Swap space of the machine.",
            _WORKER, "reading.memory.swap_size_bytes", static=True),
    _family("filesystem_used_bytes", "bytes", "Space in use on a filesystem.", _FILESYSTEM, "used_bytes"),
    _family("filesystem_size_bytes", "bytes", "Space of a filesystem.",
            _FILESYSTEM, "size_bytes", static=True),
    _family("filesystem_available_bytes", "bytes",
            "Space that a user without privileges can still write. In use is the share used / (used + available).",
            _FILESYSTEM, "available_bytes"),
    _family("filesystem_inodes_used_ratio", "ratio",
            "Share of a filesystem's inodes in use, 0 to 1. No series where their number is not fixed.",
            _FILESYSTEM, "inodes_used_ratio"),
    _family("filesystem_error", "", "1 while a filesystem cannot be read or does not answer, 0 otherwise.",
            _FILESYSTEM, "is_in_error", int, static=True),
    _family("filesystem_read_only", "",
            "1 while a filesystem is read-only that was writable or is to be mounted so, 0 otherwise.",
            _FILESYSTEM, "is_broken", int, static=True),
    _family("disk_read_bytes_total", "bytes", "Read from a physical disk since boot.", _DISK, "read_bytes"),
    _family("disk_written_bytes_total", "bytes", "Written to a physical disk since boot.", _DISK, "written_bytes"),
    _family("disk_error", "",
            "1 while the kernel has given up a disk, or the disk says that it is worn out, 0 otherwise.",
            _DISK, "is_in_error", int, static=True),
    _family("network_received_bytes_total", "bytes", "Received on a network interface since boot.",
            _NETWORK, "received_bytes"),
    _family("network_transmitted_bytes_total", "bytes", "Sent on a network interface since boot.",
            _NETWORK, "transmitted_bytes"),
    _family("sensor_temperature_celsius", "degrees Celsius", "A temperature of the machine, by chip and label.",
            _SENSOR, "temperature_celsius"),
    _family("sensor_fan_rpm", "rpm", "Turns of a fan in a minute, by chip and label.", _SENSOR, "fan_rpm"),
    _family("systemd_failed_units", "units", "Units of systemd that have failed, where the worker asks.",
            _WORKER, "reading.systemd_failed_units", static=True),
    _family("gpu_info", "", "Always 1; the labels name the GPU.", _GPU_IDENTITY, "name", _one, static=True),
    _family("gpu_utilization_ratio", "ratio", "Share of time in which the GPU ran a kernel, 0 to 1.",
            _GPU, "utilization_percent", _ratio),
    _family("gpu_memory_used_bytes", "bytes", "GPU memory in use.", _GPU, "memory_used_bytes"),
    _family("gpu_memory_size_bytes", "bytes", "GPU memory in all.", _GPU, "memory_size_bytes", static=True),
    _family("gpu_temperature_celsius", "degrees Celsius", "Temperature of the GPU.", _GPU, "temperature_celsius"),
    _family("gpu_power_watts", "watts", "Power that the GPU draws.", _GPU, "power_watts"),
    _family("gpu_up", "", "1 while the GPU answers, 0 when it is in error or lost.", _GPU, "is_up", int, static=True),
    _family("gpu_lost", "", "1 when the GPU is off the bus or no longer counted by its driver, 0 otherwise.",
            _GPU, "is_lost", int, static=True),
    _family("gpu_power_limit_watts", "watts", "The power limit of the GPU that is in force.",
            _GPU, "power_limit_watts", static=True),
    _family("gpu_clock_hertz", "hertz", "Clock of the GPU's processors.", _GPU, "clock_hertz"),
    _family("gpu_encoder_utilization_ratio", "ratio", "Share of time in which the video encoder was busy, 0 to 1.",
            _GPU, "encoder_utilization_percent", _ratio),
    _family("gpu_decoder_utilization_ratio", "ratio", "Share of time in which the video decoder was busy, 0 to 1.",
            _GPU, "decoder_utilization_percent", _ratio),
    _family("gpu_throttled", "", "1 while the GPU is slowed down by heat or by its hardware, 0 otherwise.",
            _GPU, "is_throttled", int, static=True),
    _family("gpu_ecc_corrected_errors_total", "errors", "Memory errors that the GPU corrected, in its lifetime.",
            _GPU, "ecc_corrected_errors", static=True),
    _family("gpu_ecc_uncorrected_errors_total", "errors",
            "Memory errors that the GPU could not correct, in its lifetime.",
            _GPU, "ecc_uncorrected_errors", static=True),
    _family("gpu_processes", "processes", "Processes that hold the GPU.", _GPU, "process_count", static=True),
    _family("gpu_instance_memory_used_bytes", "bytes", "Memory in use of a part of a divided GPU.",
            _GPU_INSTANCE, "memory_used_bytes"),
    _family("gpu_instance_memory_size_bytes", "bytes", "Memory in all of a part of a divided GPU.",
            _GPU_INSTANCE, "memory_size_bytes", static=True),
    _family("gpu_last_xid", "", "Number of the last error (Xid) that the driver reported since the worker started.",
            _GPU, "last_xid", static=True),
    _family("gpu_nvlink_errors_total", "errors", "Errors of the GPU's links since the driver was loaded.",
            _GPU, "nvlink_errors", static=True),
    _family("running_tasks", "tasks", "Tasks that the worker runs.",
            _WORKER, "running_tasks_count", static=True),
    _family("schedulable", "", "1 while the worker may get new tasks; 0 when it is drained or cannot run them.",
            _TASK_RUNNER, "is_schedulable", int, static=True),
    _family("draining", "", "1 while somebody has drained the worker, 0 otherwise.",
            _WORKER, "allocation", _is_drained, static=True, outlives_silence=True),
    _family("degraded", "", "1 while tasks fail on the worker before their command runs, 0 otherwise.",
            _TASK_RUNNER, "allocation", _is_degraded, static=True),
    _family("allocated_cpu_cores", "cores", "CPU cores that the worker's live tasks were promised.",
            _TASK_RUNNER, "allocation.cpu_cores", static=True),
    _family("allocated_memory_bytes", "bytes", "Memory that the worker's live tasks were promised.",
            _TASK_RUNNER, "allocation.memory_bytes", static=True),
    _family("allocated_gpus", "GPUs", "GPUs that the worker's live tasks have for themselves.",
            _TASK_RUNNER, "allocation.gpu_uuids", len, static=True),
    _family("docker_failures_total", "calls",
            "Calls of the worker to its Docker Engine that found none, or got no answer.",
            _WORKER, "reading.engine_failures", static=True),
    _family("task_cpu_usage_ratio", "ratio", "CPU that a running task uses, of one core: 2 is two cores.",
            RUNNING_TASKS, "cpu_usage_percent", _ratio),
    _family("task_memory_used_bytes", "bytes", "Memory that a running task uses.", RUNNING_TASKS, "memory_used_bytes"),
    _family("collector_success", "", "1 when the worker's collector gave its readings, 0 when it failed.",
            _COLLECTOR, "success", int, static=True),
    _family("left_out_devices", "devices",
            "Devices that a collector of the worker does not report because there are too many. No series: none.",
            _LEFT_OUT, "count", static=True),
    _family("collectors_duration_seconds", "seconds", "Time that the slowest of the worker's collectors took.",
            _WORKER, "reading.slowest_collector_seconds"),
    _family("heartbeats_dropped_total", "heartbeats",
            "Heartbeats of this worker that a newer one overtook in its queue.",
            _WORKER, "counts.dropped", static=True),
    _family("heartbeats_missed_total", "heartbeats",
            "Heartbeats of this worker that never arrived, by the gaps in its sequence numbers.",
            _WORKER, "counts.missed", static=True),
    _family("heartbeats_refused_total", "heartbeats", "Heartbeats of this worker that the master refused.",
            _WORKER, "counts.refused", static=True),
    _family("refused", "", "1 while the last heartbeat of this worker was refused, 0 otherwise.",
            _WORKER, "counts.is_refused", int, static=True),
    _family("clock_skew_seconds", "seconds",
            "How far the worker's clock is ahead of the master's; negative: behind. Includes the way to the master.",
            _WORKER, "counts.clock_skew_seconds"),
)  # fmt: skip
