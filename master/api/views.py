"""The JSON of every worker: the record of each is kept ready, so an answer about the fleet joins bytes."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from master.errors import UnknownWorker
from master.telemetry.lazy import LazyView
from master.telemetry.records import GpuReading, Reading, RunningTask, WorkerTelemetry


class _Worker(NamedTuple):
    telemetry: WorkerTelemetry
    record: bytes


class FleetViews(LazyView):
    """What REST shows of the live table. The views of one worker raise ``UnknownWorker``.

    A worker's record is kept rendered; the rarer views are made when they are asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self._workers: dict[str, _Worker] = {}

    def render(self, telemetry: WorkerTelemetry) -> None:
        """Render the worker's record."""
        self._workers[telemetry.worker_id] = _Worker(telemetry, orjson.dumps(_record(telemetry)))

    def remove(self, worker_id: str) -> None:
        """Drop the worker's views."""
        self._workers.pop(worker_id, None)

    def record(self, worker_id: str) -> bytes:
        """Everything that is known of one worker's state."""
        return self._worker(worker_id).record

    def metrics(self, worker_id: str) -> bytes:
        """One worker's resource readings."""
        return orjson.dumps(_metrics(self._worker(worker_id).telemetry.reading))

    def details(self, worker_id: str) -> bytes:
        """One worker's identity and capacity, with its record."""
        return _detailed(self._worker(worker_id))

    def all_records(self) -> bytes:
        """Map of worker_id to record."""
        self.catch_up()
        return _object((worker_id, worker.record) for worker_id, worker in self._workers.items())

    def all_summaries(self) -> bytes:
        """Map of worker_id to the short form."""
        self.catch_up()
        return _object((worker_id, _summary(worker.telemetry)) for worker_id, worker in self._workers.items())

    def all_details(self) -> bytes:
        """Array of details."""
        self.catch_up()
        return b"[%b]" % b",".join([_detailed(worker) for worker in self._workers.values()])

    def _worker(self, worker_id: str) -> _Worker:
        self.catch_up_with(worker_id)
        try:
            return self._workers[worker_id]
        except KeyError:
            raise UnknownWorker(worker_id) from None


def _object(members: Iterable[tuple[str, bytes]]) -> bytes:
    # A worker id holds no character that JSON escapes (proto.rules), so it needs no encoder.
    return b"{%b}" % b",".join([b'"%b":%b' % (worker_id.encode(), value) for worker_id, value in members])


def _summary(telemetry: WorkerTelemetry) -> bytes:
    return b'{"worker_id":"%b","is_active":%b,"running_tasks_count":%d,"last_update":%d}' % (
        telemetry.worker_id.encode(),
        b"true" if telemetry.is_active else b"false",
        len(telemetry.running_tasks),
        telemetry.last_update,
    )


def _detailed(worker: _Worker) -> bytes:
    registration, capacity = worker.telemetry.registration, worker.telemetry.registration.capacity
    identity = orjson.dumps(
        {
            "worker_id": worker.telemetry.worker_id,
            "hostname": registration.hostname or None,
            "version": registration.version or None,
            "labels": dict(registration.labels),
            "capacity": capacity._asdict(),
            "boot_time": registration.boot_time,
            "registered_at": int(worker.telemetry.registered_at),
            "is_active": worker.telemetry.is_active,
            "heartbeats": worker.telemetry.counts._asdict(),
        }
    )
    return b'%b,"telemetry":%b}' % (identity[:-1], worker.record)


def _record(telemetry: WorkerTelemetry) -> dict[str, Any]:
    return {
        "worker_id": telemetry.worker_id,
        "cpu_usage": telemetry.cpu_usage,
        "memory_usage": telemetry.memory_usage,
        "gpu_usage": telemetry.gpu_usage,
        "running_tasks": [_task(task) for task in telemetry.running_tasks],
        "last_update": int(telemetry.last_update),
        "is_active": telemetry.is_active,
        **_metrics(telemetry.reading),
    }


def _task(task: RunningTask) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "attempt": task.attempt,
        "cpu_usage": task.cpu_usage_percent,
        "memory_used_bytes": task.memory_used_bytes,
    }


def _gpu(gpu: GpuReading) -> dict[str, Any]:
    return {
        "index": gpu.gpu_index,
        "uuid": gpu.uuid,
        "name": gpu.name,
        "utilization_percent": gpu.utilization_percent,
        "memory_used_bytes": gpu.memory_used_bytes,
        "memory_size_bytes": gpu.memory_size_bytes,
        "temperature_celsius": gpu.temperature_celsius,
        "power_watts": gpu.power_watts,
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
        "filesystems": [item._asdict() for item in reading.filesystems],
        "disk_devices": [item._asdict() for item in reading.disk_devices],
        "network_interfaces": [item._asdict() for item in reading.network_interfaces],
        "gpus": [_gpu(item) for item in reading.gpus],
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
