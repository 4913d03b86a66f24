"""The JSON of every worker: the record of each is kept ready, so an answer about the fleet joins bytes."""

from typing import Any

import gevent
import orjson

from master.api.room import RoomViews
from master.errors import UnknownWorker
from master.telemetry.lazy import LazyView
from master.telemetry.records import GpuReading, Reading, Registration, RunningTask, WorkerTelemetry

DETAILS_IN_A_ROW = 64
"""Workers after which other greenlets have their turn."""


class FleetViews(LazyView):
    """What REST shows of the live table. The views of one worker raise ``UnknownWorker``.

    A worker's record and its short form are kept as the members of the objects that hold all of them; the rarer views
    are made when they are asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self._latest: dict[str, WorkerTelemetry] = {}
        self._records: dict[str, bytes] = {}
        self._summaries: dict[str, bytes] = {}
        self._identities: dict[str, tuple[Registration, bytes]] = {}
        self._rooms = RoomViews()

    def render(self, telemetry: WorkerTelemetry) -> None:
        """Render the worker's record and its short form."""
        worker_id = telemetry.worker_id
        self._latest[worker_id] = telemetry
        self._records[worker_id] = _member(worker_id, orjson.dumps(_record(telemetry)))
        self._summaries[worker_id] = _member(worker_id, orjson.dumps(_summary(telemetry)))

    def remove(self, worker_id: str) -> None:
        """Drop the worker's views."""
        views: tuple[dict[str, Any], ...] = (self._latest, self._records, self._summaries, self._identities)
        for view in views:
            view.pop(worker_id, None)
        self._rooms.remove(worker_id)

    def record(self, worker_id: str) -> bytes:
        """Everything that is known of one worker's state."""
        self._worker(worker_id)
        return _value(worker_id, self._records[worker_id])

    def metrics(self, worker_id: str) -> bytes:
        """One worker's resource readings."""
        return orjson.dumps(_metrics(self._worker(worker_id).reading))

    def details(self, worker_id: str) -> bytes:
        """One worker's identity and capacity, with its record."""
        return self._detailed(self._worker(worker_id))

    def all_records(self) -> bytes:
        """Map of worker_id to record."""
        self.catch_up()
        return b"{%b}" % b",".join(self._records.values())

    def all_summaries(self) -> bytes:
        """Map of worker_id to the short form."""
        self.catch_up()
        return b"{%b}" % b",".join(self._summaries.values())

    def all_details(self) -> bytes:
        """Array of details. Lets other greenlets run now and then, so a worker may leave or change meanwhile."""
        self.catch_up()
        details = []
        for number, worker_id in enumerate(list(self._latest), start=1):
            if number % DETAILS_IN_A_ROW == 0:
                gevent.sleep(0)
            if worker_id in self._latest:
                details.append(self._detailed(self._latest[worker_id]))
        return b"[%b]" % b",".join(details)

    def _detailed(self, telemetry: WorkerTelemetry) -> bytes:
        worker_id, counts = telemetry.worker_id, telemetry.counts
        registration, identity = self._identities.get(worker_id, (None, b""))
        # What a worker says of itself is rendered again only when it says it again.
        if registration is not telemetry.registration:
            identity = orjson.dumps(_identity(telemetry))
            self._identities[worker_id] = telemetry.registration, identity
        return b'%b,"is_active":%b,"heartbeats":{"received":%d,"dropped":%d,"missed":%d},%b,"telemetry":%b}' % (
            identity[:-1],
            b"true" if telemetry.is_active else b"false",
            *counts,
            self._rooms.members(telemetry),
            _value(worker_id, self._records[worker_id]),
        )

    def _worker(self, worker_id: str) -> WorkerTelemetry:
        self.catch_up_with(worker_id)
        try:
            return self._latest[worker_id]
        except KeyError:
            raise UnknownWorker(worker_id) from None


def _member(worker_id: str, value: bytes) -> bytes:
    # A worker id holds no character that JSON escapes (proto.rules), so it needs no encoder.
    return b'"%b":%b' % (worker_id.encode(), value)


def _value(worker_id: str, member: bytes) -> bytes:
    return member[len(worker_id) + 3 :]


def _summary(telemetry: WorkerTelemetry) -> dict[str, Any]:
    return {
        "worker_id": telemetry.worker_id,
        "is_active": telemetry.is_active,
        "running_tasks_count": len(telemetry.running_tasks),
        "last_update": int(telemetry.last_update),
    }


def _identity(telemetry: WorkerTelemetry) -> dict[str, Any]:
    registration = telemetry.registration
    return {
        "worker_id": telemetry.worker_id,
        "hostname": registration.hostname or None,
        "version": registration.version or None,
        "labels": dict(registration.labels),
        "capacity": registration.capacity._asdict(),
        "boot_time": registration.boot_time,
        "registered_at": int(telemetry.registered_at),
    }


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
