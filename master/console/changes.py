"""What happened between two looks at the fleet, or at the tasks. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Change(NamedTuple):
    """One thing that happened, to the worker or the task of this id."""

    subject: str
    id: str
    change: str
    """One word: ``joined``, ``left``, ``active``, ``inactive``, ``draining``, ``undrained``, or a task's status."""
    detail: str


def worker_changes(before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]) -> Iterator[Change]:
    """Between two fleets of short forms."""
    for worker_id, worker in after.items():
        was = before.get(worker_id)
        if was is worker:
            continue
        if was is None:
            yield Change("worker", worker_id, "joined", str(worker.get("hostname") or ""))
        elif was.get("is_active") != worker.get("is_active"):
            yield Change("worker", worker_id, "active" if worker.get("is_active") else "inactive", "")
        if bool((was or {}).get("draining")) != bool(worker.get("draining")):
            yield Change("worker", worker_id, "draining" if worker.get("draining") else "undrained", "")
    for worker_id in before.keys() - after.keys():
        yield Change("worker", worker_id, "left", "")


def task_changes(before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]) -> Iterator[Change]:
    """Between two maps of tasks. A task that is not there after is one that nobody looked for."""
    for task_id, task in after.items():
        was = before.get(task_id, {})
        if _told(was) != _told(task):
            yield Change("task", task_id, str(task.get("status")), task_detail(task))


def _told(task: Mapping[str, Any]) -> tuple[Any, ...]:
    return task.get("status"), task.get("attempt"), task.get("worker_id")


def task_detail(task: Mapping[str, Any]) -> str:
    """What one wants to know of a task in this status."""
    status, worker_id = task.get("status"), task.get("worker_id")
    if status == "queued":
        return str(task.get("queue_reason") or task.get("name") or task.get("docker_image") or "")
    code = "" if task.get("exit_code") is None else f"exit code {task.get('exit_code')}"
    why = str(task.get("error") or task.get("reason") or "")
    place = f"on {worker_id}" if worker_id else ""
    return ", ".join(part for part in (place, code if not why else "", why) if part)
