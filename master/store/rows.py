"""Records as rows and rows as records. Reading goes by position: a page of tasks is some thousands of values."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement

from fleetpulse.master.store.encryption import DecryptionFailed, Encryptor
from fleetpulse.master.store.tables import attempts, events, tasks
from fleetpulse.master.tasks.ports import Idempotency
from fleetpulse.master.tasks.records import Attempt, AttemptStatus, Outcome, Task, TaskEvent, TaskSpec, TaskStatus

Row = dict[str, Any]

HIDDEN = "***"
"""Stands for each value of an environment that was not read."""

_SPEC = (
    "docker_image", "name", "command", "env", "cpu_required", "memory_required", "gpu_required", "priority",
    "max_retries", "timeout_seconds", "labels", "constraints", "read_only", "user", "network",
)  # fmt: skip
_OUTCOME = ("exit_code", "oom_killed", "reason", "error")
_TASK_STATE = (
    "status", "created_at", "attempt", "retries_used", "not_before", "cancel_requested_at", "pending_at", "running_at",
    "finished_at",
)  # fmt: skip
_ATTEMPT_STATE = (
    "task_id", "attempt", "worker_id", "status", "assigned_at", "gpu_uuids", "preparing_at", "running_at",
    "finished_at", "container_id",
)  # fmt: skip

# What a later write of the same task changes; what was asked for stays as it was accepted.
TASK_CHANGES = (*_TASK_STATE, *_OUTCOME)
ATTEMPT_CHANGES = (*_ATTEMPT_STATE[2:], *_OUTCOME)

TASK_COLUMNS: tuple[ColumnElement[Any], ...] = tuple(
    tasks.c["env_names" if name == "env" else name] for name in ("task_id", *_SPEC, *TASK_CHANGES)
)
"""Of an environment only the names: whoever reads for an answer does not get the values."""

ATTEMPT_COLUMNS: tuple[ColumnElement[Any], ...] = tuple(attempts.c[name] for name in (*_ATTEMPT_STATE, *_OUTCOME))
EVENT_COLUMNS: tuple[ColumnElement[Any], ...] = tuple(events.c[name] for name in TaskEvent._fields)

_STATE_BEGINS = 1 + len(_SPEC)
_OUTCOME_BEGINS = _STATE_BEGINS + len(_TASK_STATE)


def task_row(task: Task, idempotency: Idempotency | None, worker_id: str | None, encryptor: Encryptor) -> Row:
    """``worker_id`` is of the newest attempt; ``None`` keeps the one that is there."""
    spec = task.spec
    row = {name: getattr(spec, name) for name in _SPEC}
    row |= {name: getattr(task, name) for name in _TASK_STATE}
    row |= task.outcome._asdict()
    row |= {
        "task_id": task.task_id,
        "env": encryptor.encrypt(spec.env),
        "env_names": list(spec.env),
        "labels": dict(spec.labels),
        "constraints": dict(spec.constraints),
        "status": str(task.status),
        "idempotency_key": idempotency.key if idempotency else None,
        "idempotency_digest": encryptor.digest(idempotency.digest) if idempotency else None,
        "worker_id": worker_id,
        "logs_pruned": False,
    }
    return row


def attempt_row(attempt: Attempt) -> Row:
    row = {name: getattr(attempt, name) for name in _ATTEMPT_STATE}
    return row | attempt.outcome._asdict() | {"status": str(attempt.status)}


def event_row(event: TaskEvent, event_id: int) -> Row:
    return event._asdict() | {"event_id": event_id}


def task_from(row: Sequence[Any]) -> Task:
    """From the values of ``TASK_COLUMNS``. The values of the environment are not in it; see ``with_env``."""
    spec = TaskSpec(*row[1:_STATE_BEGINS])
    spec = spec._replace(
        command=tuple(spec.command),
        env=dict.fromkeys(spec.env, HIDDEN),
        constraints={label: tuple(values) for label, values in spec.constraints.items()},
    )
    status, *state = row[_STATE_BEGINS:_OUTCOME_BEGINS]
    return Task(row[0], spec, TaskStatus(status), *state)._replace(outcome=Outcome(*row[_OUTCOME_BEGINS:]))


def with_env(task: Task, encrypted: str, encryptor: Encryptor) -> Task:
    """The task with the environment that is to be run, or marked as one whose environment is lost."""
    try:
        return task._replace(spec=task.spec._replace(env=encryptor.decrypt(encrypted)))
    except DecryptionFailed:
        return task._replace(spec=task.spec._replace(env_is_lost=True))


def attempt_from(row: Sequence[Any]) -> Attempt | None:
    """From the values of ``ATTEMPT_COLUMNS``; ``None`` when an outer join found none."""
    if row[0] is None:
        return None
    state = Attempt(*row[: len(_ATTEMPT_STATE)])
    return state._replace(
        status=AttemptStatus(state.status),
        gpu_uuids=tuple(state.gpu_uuids),
        outcome=Outcome(*row[len(_ATTEMPT_STATE) :]),
    )
