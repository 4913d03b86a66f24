"""Records as rows and rows as records. Reading goes by position: a page of tasks is some thousands of values.

A field of a request has the column of its name in ``tasks``; fields without one share the JSON column ``options``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, case, func

from fleetpulse.master.store.encryption import DecryptionFailed, Encryptor
from fleetpulse.master.store.tables import attempts, events, tasks
from fleetpulse.master.tasks.records import Attempt, AttemptStatus, Idempotency, Outcome, Task, TaskEvent, TaskStatus
from fleetpulse.master.tasks.request import DEFAULTS, TaskRequest, request_from

Row = dict[str, Any]

HIDDEN = "***"
"""Stands for each value of an environment that was not read."""

_REQUEST = tuple(name for name in TaskRequest.model_fields if name in tasks.c)
_OPTIONS = tuple(name for name in TaskRequest.model_fields if name not in tasks.c)
_TASK_STATE = tuple(name for name in Task._fields if name not in {"task_id", "request", "outcome", "env_is_lost"})
_ATTEMPT_STATE = tuple(name for name in Attempt._fields if name != "outcome")

# Columns that a later write of the same row changes; a request stays as it was accepted.
TASK_CHANGES = (*_TASK_STATE, *Outcome._fields)
ATTEMPT_CHANGES = (*_ATTEMPT_STATE[2:], *Outcome._fields)

TASK_COLUMNS: tuple[ColumnElement[Any], ...] = tuple(
    tasks.c["env_names" if name == "env" else name] for name in ("task_id", *_REQUEST, "options", *TASK_CHANGES)
)
"""Of an environment only the names: no answer needs the values."""

_LARGE = ("command", "env", "labels", "constraints")
MAX_LISTED_BYTES = 4096
"""Of the JSON of one field of a request in a page of tasks."""


def _unless_large(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((func.length(column) <= MAX_LISTED_BYTES, column), else_=None)


LISTED_COLUMNS: tuple[ColumnElement[Any], ...] = tuple(
    _unless_large(column) if column.key in {*_LARGE, "env_names"} else column for column in TASK_COLUMNS
)
"""``TASK_COLUMNS`` without what is large: a thousand of the largest tasks are half a gigabyte."""

ATTEMPT_COLUMNS: tuple[ColumnElement[Any], ...] = tuple(
    attempts.c[name] for name in (*_ATTEMPT_STATE, *Outcome._fields)
)
EVENT_COLUMNS: tuple[ColumnElement[Any], ...] = tuple(events.c[name] for name in TaskEvent._fields)

_OPTIONS_AT = 1 + len(_REQUEST)
_LARGE_AT = tuple((name, 1 + _REQUEST.index(name)) for name in _LARGE)
_OUTCOME_AT = _OPTIONS_AT + 1 + len(_TASK_STATE)


def task_row(task: Task, idempotency: Idempotency | None, worker_id: str | None, encryptor: Encryptor) -> Row:
    """``worker_id`` is that of the newest attempt; ``None`` keeps the stored one."""
    request = task.request
    row = {name: getattr(request, name) for name in _REQUEST}
    row |= {name: getattr(task, name) for name in _TASK_STATE}
    row |= task.outcome._asdict()
    row |= {
        "task_id": task.task_id,
        "env": encryptor.encrypt(request.env),
        "env_names": list(request.env),
        "options": options_of(request),
        "status": str(task.status),
        "idempotency_key": idempotency.key if idempotency else None,
        "idempotency_digest": encryptor.digest(idempotency.digest) if idempotency else None,
        "worker_id": worker_id,
        "logs_pruned": False,
    }
    return row


def options_of(request: TaskRequest, names: Sequence[str] = _OPTIONS) -> Row | None:
    """The fields that have no column of their own and are not at their defaults; ``None`` without any."""
    return {name: value for name in names if (value := getattr(request, name)) != DEFAULTS[name]} or None


def known_options(stored: Mapping[str, Any] | None, names: Sequence[str] = _OPTIONS) -> Row:
    """Those that this version knows."""
    return {name: stored[name] for name in names if name in stored} if stored else {}


def attempt_row(attempt: Attempt) -> Row:
    row = {name: getattr(attempt, name) for name in _ATTEMPT_STATE}
    return row | attempt.outcome._asdict() | {"status": str(attempt.status)}


def event_row(event: TaskEvent, event_id: int) -> Row:
    return event._asdict() | {"event_id": event_id}


def task_from(row: Sequence[Any]) -> Task:
    """From the values of ``TASK_COLUMNS``, without the values of the environment (see ``with_env``)."""
    values = dict(zip(_REQUEST, row[1:_OPTIONS_AT], strict=True))
    values["command"] = tuple(values["command"])
    values["env"] = dict.fromkeys(values["env"], HIDDEN)
    values["constraints"] = {label: tuple(allowed) for label, allowed in values["constraints"].items()}
    if row[_OPTIONS_AT]:
        values |= known_options(row[_OPTIONS_AT])
    status, *state = row[_OPTIONS_AT + 1 : _OUTCOME_AT]
    outcome = Outcome(*row[_OUTCOME_AT:])
    return Task._make((row[0], request_from(values), TaskStatus(status), *state, outcome, False))


def listed_task_from(row: Sequence[Any]) -> tuple[Task, Sequence[str]]:
    """From the values of ``LISTED_COLUMNS``; and the fields that are empty because they are large."""
    missing = [name for name, at in _LARGE_AT if row[at] is None]
    if not missing:
        return task_from(row), ()
    values = list(row)
    for name, at in _LARGE_AT:
        if row[at] is None:
            values[at] = [] if name in ("command", "env") else {}
    return task_from(values), missing


def with_env(task: Task, encrypted: str, encryptor: Encryptor) -> Task:
    """The task with its environment, or marked as one whose environment is lost."""
    try:
        return task._replace(request=task.request.model_copy(update={"env": encryptor.decrypt(encrypted)}))
    except DecryptionFailed:
        return task._replace(env_is_lost=True)


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
