"""Workers and tasks as the REST API returns them."""

from typing import Any


def worker(worker_id: str, **fields: Any) -> dict[str, Any]:
    """An element of ``/api/workers``. ``cpu`` is its CPU usage; other fields replace the defaults."""
    record = {
        "worker_id": worker_id,
        "cpu_usage": fields.pop("cpu", 12.34),
        "memory_usage": 50.0,
        "gpu_usage": None,
        "last_update": 1_700_000_000,
        "running_tasks": [],
        "memory": {"used_bytes": 2**30, "size_bytes": 2**31},
        "load": {"load1": 0.5, "load5": 0.4, "load15": 0.3},
        "filesystems": [{"mountpoint": "/", "used_bytes": 1, "size_bytes": 4}],
    }
    return {
        "worker_id": worker_id,
        "hostname": f"{worker_id}.example",
        "version": "0.1.0",
        "labels": {"zone": "a"},
        "is_active": True,
        "capacity": {"cpu_cores": 8, "memory_bytes": 2**31, "gpu_count": 0},
        "available": {"cpu_cores": 4, "memory_bytes": 2**30, "gpu_count": 0},
        "tasks": {"count": 1, "accepted": True, "draining": False},
        "telemetry": record,
    } | fields


def task(task_id: str, status: str = "running", **fields: Any) -> dict[str, Any]:
    """An element of ``/api/tasks``."""
    return {
        "task_id": task_id,
        "name": "",
        "status": status,
        "queue_reason": None,
        "worker_id": "worker-1",
        "attempt": 1,
        "retries_used": 0,
        "exit_code": None,
        "reason": None,
        "error": None,
        "created_at": 1_700_000_000.0,
        "docker_image": "busybox",
        "command": ["true"],
        "env": {},
        "cpu_required": 1.0,
        "memory_required": 512,
        "gpu_required": 0,
        "priority": 0,
        "max_retries": 0,
        "timeout_seconds": None,
        "labels": {},
        "constraints": {},
    } | fields
