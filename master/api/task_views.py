"""The JSON of tasks and attempts. Times are Unix seconds; ``null`` where there is nothing to tell."""

from collections.abc import Sequence
from typing import Any

from fleetpulse.master.tasks.records import Attempt, Outcome, Task, TaskDetails, TaskEvent, TaskStatus

_NOTHING = Outcome()


def task_view(task: Task, attempt: Attempt | None, queue_reason: str | None) -> dict[str, Any]:
    """One task with its newest attempt. How it ended is told when it has; how attempts ended is told by them."""
    spec = task.request
    is_placed = attempt is not None and task.status is not TaskStatus.QUEUED
    return {
        "task_id": task.task_id,
        "name": spec.name,
        "status": task.status,
        "queue_reason": queue_reason,
        "worker_id": attempt.worker_id if attempt is not None and is_placed else None,
        "attempt": task.attempt,
        "retries_used": task.retries_used,
        **_outcome(task.outcome if task.status.is_terminal else _NOTHING),
        "created_at": _time(task.created_at),
        "pending_at": _time(task.pending_at),
        "running_at": _time(task.running_at),
        "finished_at": _time(task.finished_at),
        "cancel_requested_at": _time(task.cancel_requested_at),
        "not_before": _time(task.not_before),
        "docker_image": spec.docker_image,
        "command": list(spec.command),
        # Secrets travel in values, so they go one way only.
        "env": dict.fromkeys(spec.env),
        "cpu_required": spec.cpu_required,
        "memory_required": spec.memory_required,
        "gpu_required": spec.gpu_required,
        "priority": spec.priority,
        "max_retries": spec.max_retries,
        "timeout_seconds": spec.timeout_seconds,
        "labels": dict(spec.labels),
        "constraints": {name: list(values) for name, values in spec.constraints.items()},
        "read_only": spec.read_only,
        "user": spec.user,
        "network": spec.network,
    }


def details_view(details: TaskDetails, queue_reason: str | None) -> dict[str, Any]:
    """One task with all its attempts and its story, oldest first."""
    return {
        **task_view(details.task, newest(details.attempts), queue_reason),
        "attempts": [attempt_view(attempt) for attempt in details.attempts],
        "events": [_event(event) for event in details.events],
    }


def attempt_view(attempt: Attempt) -> dict[str, Any]:
    """One attempt by itself."""
    return {
        "attempt": attempt.attempt,
        "worker_id": attempt.worker_id,
        "status": attempt.status,
        "gpu_uuids": list(attempt.gpu_uuids),
        "container_id": attempt.container_id,
        "assigned_at": _time(attempt.assigned_at),
        "preparing_at": _time(attempt.preparing_at),
        "running_at": _time(attempt.running_at),
        "finished_at": _time(attempt.finished_at),
        **_outcome(attempt.outcome),
    }


def assignment_view(attempt: Attempt, task: Task) -> dict[str, Any]:
    """One attempt as something that its worker was given."""
    spec = task.request
    return {
        "task_id": task.task_id,
        "task_status": task.status,
        "name": spec.name,
        "docker_image": spec.docker_image,
        "cpu_required": spec.cpu_required,
        "memory_required": spec.memory_required,
        "gpu_required": spec.gpu_required,
        "priority": spec.priority,
        **attempt_view(attempt),
    }


def outcome_view(status: str, outcome: Outcome) -> dict[str, Any]:
    """How something ended."""
    return {"status": status, **_outcome(outcome)}


def newest(attempts: Sequence[Attempt]) -> Attempt | None:
    """The attempt with the highest number."""
    return max(attempts, key=lambda attempt: attempt.attempt, default=None)


def _event(event: TaskEvent) -> dict[str, Any]:
    return {
        "time": _time(event.time),
        "kind": event.kind,
        "message": event.message,
        "attempt": event.attempt or None,
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return outcome._asdict()


def _time(unix_seconds: float | None) -> float | None:
    return None if unix_seconds is None else round(unix_seconds, 3)
