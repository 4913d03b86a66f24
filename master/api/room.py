"""What a worker has for tasks, as its details show it."""

from typing import Any

import orjson

from fleetpulse.master.telemetry.records import WorkerTelemetry


class ResourceViews:
    """The JSON of it, kept by worker: it is made again only when something in it changes, not with every heartbeat."""

    def __init__(self) -> None:
        self._members: dict[str, tuple[tuple[object, ...], bytes]] = {}

    def members(self, telemetry: WorkerTelemetry) -> bytes:
        """``allocated``, ``available`` and ``tasks`` as members of a JSON object, without its braces."""
        # Mostly the very objects of last time, which are told to be equal by their identity.
        key = telemetry.registration, telemetry.allocation, telemetry.task_support, telemetry.is_active
        known, members = self._members.get(telemetry.worker_id, ((), b""))
        if known != key:
            members = orjson.dumps(room_of(telemetry))[1:-1]
            self._members[telemetry.worker_id] = key, members
        return members

    def remove(self, worker_id: str) -> None:
        """Drop the worker's."""
        self._members.pop(worker_id, None)


def room_of(telemetry: WorkerTelemetry) -> dict[str, Any]:
    """What live attempts take of the worker, what they leave, and whether it gets more.

    ``available`` is the capacity without what is allocated, whatever else the machine does; ``null`` where the worker
    has told no capacity.
    """
    taken, capacity, support = telemetry.allocation, telemetry.registration.capacity, telemetry.task_support
    return {
        "allocated": {
            "cpu_cores": taken.cpu_cores,
            "memory_bytes": taken.memory_bytes,
            "gpu_count": len(taken.gpu_uuids),
            "gpu_uuids": list(taken.gpu_uuids),
        },
        "available": {
            "cpu_cores": _left(capacity.cpu_cores, taken.cpu_cores),
            "memory_bytes": _left(capacity.memory_bytes, taken.memory_bytes),
            "gpu_count": _left(capacity.gpu_count, len(taken.gpu_uuids)),
            "gpu_uuids": [uuid for uuid in capacity.gpu_uuids if uuid not in taken.gpu_uuids],
        },
        "tasks": {
            "count": taken.tasks,
            "supported": support is not None and support.available,
            "support_reason": _why_unsupported(telemetry),
            "accepted": _refusal(telemetry) is None,
            "refusal": _refusal(telemetry),
            "draining": taken.drain_reason is not None,
            "drain_reason": taken.drain_reason,
        },
    }


def _left(total: float | None, taken: float) -> float | None:
    # In thousandths, as cores are counted out; what is taken may exceed what a worker came back with.
    return None if total is None else max(round(total - taken, 3), 0)


def _why_unsupported(telemetry: WorkerTelemetry) -> str | None:
    support = telemetry.task_support
    if support is None:
        return "it only reports telemetry"
    return None if support.available else support.reason or "it cannot run tasks"


def _refusal(telemetry: WorkerTelemetry) -> str | None:
    if not telemetry.is_active:
        return "it is inactive"
    return telemetry.allocation.refusal or _why_unsupported(telemetry)
