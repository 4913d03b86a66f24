"""The JSON of every worker, kept ready: an answer about the whole fleet joins bytes, it serializes nothing."""

from typing import Any

import orjson

from master.errors import UnknownWorker
from master.telemetry.records import Reading, RunningTask, WorkerTelemetry


class FleetViews:
    """What REST shows of the live table. An observer of the TelemetryManager; renders in the worker's greenlet."""

    def __init__(self) -> None:
        self._telemetry: dict[str, bytes] = {}
        self._summaries: dict[str, bytes] = {}
        self._details: dict[str, bytes] = {}
        self._metrics: dict[str, bytes] = {}

    def worker_changed(self, telemetry: WorkerTelemetry) -> None:
        """Render the worker's views."""
        worker_id = telemetry.worker_id
        state, identity = orjson.dumps(_state(telemetry)), orjson.dumps(_identity(telemetry))
        metrics = orjson.dumps(_metrics(telemetry.reading))
        self._metrics[worker_id] = metrics
        self._telemetry[worker_id] = state[:-1] + b"," + metrics[1:]
        self._details[worker_id] = identity[:-1] + b',"metrics":' + metrics + b"}"
        self._summaries[worker_id] = orjson.dumps(_summary(telemetry))

    def worker_removed(self, worker_id: str) -> None:
        """Drop the worker's views."""
        for view in (self._telemetry, self._summaries, self._details, self._metrics):
            view.pop(worker_id, None)

    def telemetry(self, worker_id: str) -> bytes:
        """One worker's record. Raises ``UnknownWorker``, as the other views of one worker do."""
        return _of(self._telemetry, worker_id)

    def details(self, worker_id: str) -> bytes:
        """One worker's identity, capacity, state and metrics."""
        return _of(self._details, worker_id)

    def metrics(self, worker_id: str) -> bytes:
        """One worker's resource readings."""
        return _of(self._metrics, worker_id)

    def all_telemetry(self) -> bytes:
        """Map of worker_id to record."""
        return _object(self._telemetry)

    def all_summaries(self) -> bytes:
        """Map of worker_id to the short form."""
        return _object(self._summaries)

    def all_details(self) -> bytes:
        """Array of details."""
        return b"[" + b",".join(self._details.values()) + b"]"


def _of(view: dict[str, bytes], worker_id: str) -> bytes:
    try:
        return view[worker_id]
    except KeyError:
        raise UnknownWorker(worker_id) from None


def _object(view: dict[str, bytes]) -> bytes:
    # A worker id holds no character that JSON escapes (proto.rules), so it needs no encoder.
    return b"{" + b",".join([b'"%b":%b' % (key.encode(), value) for key, value in view.items()]) + b"}"


def _state(telemetry: WorkerTelemetry) -> dict[str, Any]:
    return {
        "worker_id": telemetry.worker_id,
        "cpu_usage": telemetry.cpu_usage,
        "memory_usage": telemetry.memory_usage,
        "gpu_usage": telemetry.gpu_usage,
        "running_tasks": [_task(task) for task in telemetry.running_tasks],
        "last_update": int(telemetry.last_update),
        "is_active": telemetry.is_active,
    }


def _summary(telemetry: WorkerTelemetry) -> dict[str, Any]:
    return {
        "worker_id": telemetry.worker_id,
        "is_active": telemetry.is_active,
        "running_tasks_count": len(telemetry.running_tasks),
        "last_update": int(telemetry.last_update),
    }


def _identity(telemetry: WorkerTelemetry) -> dict[str, Any]:
    registration, capacity = telemetry.registration, telemetry.registration.capacity
    return {
        "worker_id": telemetry.worker_id,
        "hostname": registration.hostname or None,
        "version": registration.version or None,
        "labels": dict(registration.labels),
        "capacity": {
            "cpu_cores": capacity.cpu_cores,
            "memory_bytes": capacity.memory_bytes,
            "gpu_count": capacity.gpu_count,
        },
        "boot_time": registration.boot_time,
        "registered_at": int(telemetry.registered_at),
        "is_active": telemetry.is_active,
        "last_update": int(telemetry.last_update),
        "heartbeats": {
            "received": telemetry.counts.received,
            "dropped": telemetry.counts.dropped,
            "missed": telemetry.counts.missed,
        },
        "running_tasks_count": len(telemetry.running_tasks),
    }


def _task(task: RunningTask) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "attempt": task.attempt,
        "cpu_usage": task.cpu_usage_percent,
        "memory_used_bytes": task.memory_used_bytes,
    }


def _metrics(reading: Reading) -> dict[str, Any]:
    return {
        "cpu": {"usage_percent": reading.cpu_usage_percent, "logical_cores": reading.cpu_logical_cores},
        "memory": {
            "used_bytes": reading.memory_used_bytes,
            "size_bytes": reading.memory_size_bytes,
            "swap_used_bytes": reading.swap_used_bytes,
            "swap_size_bytes": reading.swap_size_bytes,
        },
        "load": {"load1": reading.load1, "load5": reading.load5, "load15": reading.load15},
        "uptime_seconds": reading.uptime_seconds,
        "filesystems": [
            {"mountpoint": item.mountpoint, "used_bytes": item.used_bytes, "size_bytes": item.size_bytes}
            for item in reading.filesystems
        ],
        "disk_devices": [
            {"device": item.device, "read_bytes": item.read_bytes, "written_bytes": item.written_bytes}
            for item in reading.disk_devices
        ],
        "network_interfaces": [
            {
                "interface": item.interface,
                "received_bytes": item.received_bytes,
                "transmitted_bytes": item.transmitted_bytes,
            }
            for item in reading.network_interfaces
        ],
        "gpus": [gpu._asdict() for gpu in reading.gpus],
        "collectors": [
            {
                "collector": item.collector,
                "success": item.success,
                "duration_seconds": item.duration_seconds,
                "error": item.error or None,
            }
            for item in reading.collectors
        ],
    }
