"""The short form of every worker, as the stream of telemetry sends it to who shows a table or a grid."""

from typing import Any

import orjson

from fleetpulse.master.telemetry.lazy import LazyView
from fleetpulse.master.telemetry.records import WorkerTelemetry


class ShortViews(LazyView):
    """Kept as members of a JSON object of all workers. Nothing is rendered but what is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._members: dict[str, bytes] = {}

    def render(self, telemetry: WorkerTelemetry) -> None:
        """Render the worker's short form."""
        worker_id = telemetry.worker_id
        # A worker id holds no character that JSON escapes (proto.rules), so it needs no encoder.
        self._members[worker_id] = b'"%b":%b' % (worker_id.encode(), orjson.dumps(short_form(telemetry)))

    def remove(self, worker_id: str) -> None:
        """Drop the worker's."""
        self._members.pop(worker_id, None)

    def member(self, worker_id: str) -> bytes | None:
        """``"worker-1":{…}`` as it is now; ``None`` for one that is not there."""
        self.catch_up_with(worker_id)
        return self._members.get(worker_id)


def short_form(telemetry: WorkerTelemetry) -> dict[str, Any]:
    """What a grid shows of a worker. Rounded, so that most of its bytes say something."""
    reading = telemetry.reading
    return {
        "worker_id": telemetry.worker_id,
        "hostname": telemetry.registration.hostname or None,
        "is_active": telemetry.is_active,
        "last_update": int(telemetry.last_update),
        "cpu_usage": _rounded(telemetry.cpu_usage),
        "memory_usage": _rounded(telemetry.memory_usage),
        "gpu_usage": _rounded(telemetry.gpu_usage),
        "gpus": [_rounded(gpu.utilization_percent) for gpu in reading.gpus],
        "cpu_cores": reading.cpu_logical_cores,
        "memory_used_bytes": reading.memory_used_bytes,
        "memory_size_bytes": reading.memory_size_bytes,
        "load1": _rounded(reading.load1, 2),
        "running_tasks_count": telemetry.running_tasks_count,
        "accepts_tasks": telemetry.is_active and telemetry.is_schedulable,
        "draining": telemetry.allocation.drain_reason is not None,
    }


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)
