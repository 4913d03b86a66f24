"""The JSON of every worker: the record of each is kept ready, so an answer about the fleet joins bytes."""

from collections.abc import Iterable, Iterator
from typing import Any

import gevent
import orjson

from fleetpulse.master.api.own_metrics import own_samples
from fleetpulse.master.api.room import ResourceViews
from fleetpulse.master.errors import UnknownWorker
from fleetpulse.master.telemetry.lazy import LazyView
from fleetpulse.master.telemetry.records import GpuReading, Reading, Registration, RunningTask, WorkerTelemetry

WORKERS_IN_A_ROW = 256
"""Joined, after which other greenlets have their turn."""

Pieces = list[bytes]
"""A large answer. Not joined as a whole: that would copy it once more, and let nobody else run meanwhile."""


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
        self._rooms = ResourceViews()

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
        return bytes(_value(worker_id, self._records[worker_id]))

    def member(self, worker_id: str) -> bytes | None:
        """The same as ``"worker-1":{…}``; ``None`` for a worker that is not there."""
        self.catch_up_with(worker_id)
        return self._records.get(worker_id)

    def metrics(self, worker_id: str) -> bytes:
        """One worker's resource readings."""
        return orjson.dumps(_metrics(self._worker(worker_id).reading))

    def details(self, worker_id: str) -> bytes:
        """One worker's identity and capacity, with its record."""
        return self._detailed(self._worker(worker_id))

    def all_records(self) -> Pieces:
        """Map of worker_id to record."""
        self.catch_up()
        return _enclosed(b"{", _joined(self._records), b"}")

    def all_summaries(self) -> Pieces:
        """Map of worker_id to the short form."""
        self.catch_up()
        return _enclosed(b"{", _joined(self._summaries), b"}")

    def all_details(self) -> Pieces:
        """Array of details."""
        self.catch_up()
        return _enclosed(b"[", self._joined_details(), b"]")

    def _joined_details(self) -> Iterator[bytes]:
        for worker_ids in _in_rows(self._latest):
            details = [
                part
                for worker_id in worker_ids
                if worker_id in self._latest
                for part in (b",", *self._details_in_parts(self._latest[worker_id]))
            ]
            yield b"".join(details[1:])

    def _detailed(self, telemetry: WorkerTelemetry) -> bytes:
        return b"".join(self._details_in_parts(telemetry))

    def _details_in_parts(self, telemetry: WorkerTelemetry) -> tuple[bytes | memoryview, ...]:
        worker_id, counts = telemetry.worker_id, telemetry.counts
        registration, identity = self._identities.get(worker_id, (None, b""))
        # What a worker says of itself is rendered again only when it says it again.
        if registration is not telemetry.registration:
            identity = orjson.dumps(_identity(telemetry))[:-1]
            self._identities[worker_id] = telemetry.registration, identity
        state = b',"is_active":%b,"heartbeats":{"received":%d,"dropped":%d,"missed":%d},' % (
            b"true" if telemetry.is_active else b"false",
            *counts,
        )
        record = _value(worker_id, self._records[worker_id])
        return identity, state, self._rooms.members(telemetry), b',"telemetry":', record, b"}"

    def _worker(self, worker_id: str) -> WorkerTelemetry:
        self.catch_up_with(worker_id)
        try:
            return self._latest[worker_id]
        except KeyError:
            raise UnknownWorker(worker_id) from None


def _member(worker_id: str, value: bytes) -> bytes:
    # A worker id holds no character that JSON escapes (proto.rules), so it needs no encoder.
    return b'"%b":%b' % (worker_id.encode(), value)


def _value(worker_id: str, member: bytes) -> memoryview:
    return memoryview(member)[len(worker_id) + 3 :]


def _in_rows(workers: Iterable[str]) -> Iterator[list[str]]:
    """The workers of now, some at a time. Lets other greenlets run in between, so one may leave or change meanwhile."""
    now = list(workers)
    for start in range(0, len(now), WORKERS_IN_A_ROW):
        if start:
            gevent.sleep(0)
        yield now[start : start + WORKERS_IN_A_ROW]


def _joined(members: dict[str, bytes]) -> Iterator[bytes]:
    for worker_ids in _in_rows(members):
        yield b",".join([members[worker_id] for worker_id in worker_ids if worker_id in members])


def _enclosed(opening: bytes, rows: Iterable[bytes], closing: bytes) -> Pieces:
    pieces = [opening]
    for row in filter(None, rows):
        pieces += [b",", row] if len(pieces) > 1 else [row]
    return [*pieces, closing]


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
        "gpus": [_gpu(item) for item in reading.gpus],
        "collectors": [
            {"collector": collector, "success": success, "duration_seconds": duration, "error": error or None}
            for collector, success, duration, error in reading.collectors
        ],
        "custom": own_samples(reading.custom) if reading.custom else [],
    }
