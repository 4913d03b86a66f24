"""Open stores, and durable tasks, attempts and logs in them."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from fleetpulse.master.instruments import Instruments
from fleetpulse.master.store.database import parse_database_url
from fleetpulse.master.store.encryption import Encryptor
from fleetpulse.master.store.rows import HIDDEN
from fleetpulse.master.store.store import SqlTaskStore
from fleetpulse.master.tasks import transitions
from fleetpulse.master.tasks.records import Attempt, AttemptStatus, Changes, LogChunk, Outcome, Task
from fleetpulse.master.tasks.request import TaskRequest
from tests.master.fleet import wait_until
from tests.master.requests import task_request
from tests.master.store.encryptor import ENCRYPTOR
from tests.master.store.tables import make_tables

NOW = 1_700_000_000.0

FULL_SPEC = task_request(
    docker_image="registry.example/train:1",
    name="train é–\N{GRINNING FACE}",
    command=("python", "-c", "print('x')\n"),
    env={"A": "1", "EMPTY": "", "NUL": "\0", "HALF": "\ud800"},
    cpu_required=0.5,
    memory_required=2**40,
    gpu_required=2,
    priority=-7,
    max_retries=3,
    timeout_seconds=1.5,
    labels={"team": "vision"},
    constraints={"zone": ("a", "b")},
    read_only=False,
    user="1000:1000",
    network="none",
)


@contextmanager
def open_store(
    database_url: str, *, encryptor: Encryptor = ENCRYPTOR, instruments: Instruments | None = None, **options: Any
) -> Iterator[SqlTaskStore]:
    make_tables(database_url)
    store = SqlTaskStore(database_url, encryptor, (instruments or Instruments()).store, **options)
    store.start()
    try:
        yield store
    finally:
        store.stop()


def of(*changes: transitions.Change | None) -> Changes:
    """What the task service hands over for changes of state."""
    known = [change for change in changes if change is not None]
    return Changes(
        tuple(change.task for change in known),
        tuple(change.attempt for change in known if change.attempt is not None),
        tuple(event for change in known for event in change.events),
    )


def as_read(task: Task) -> Task:
    """What a read gives of it: with a mark for each value of its environment."""
    return task._replace(request=task.request.model_copy(update={"env": dict.fromkeys(task.request.env, HIDDEN)}))


def submit(store: SqlTaskStore, task_id: str, spec: TaskRequest = task_request("busybox"), now: float = NOW) -> Task:  # noqa: B008 - immutable
    """A new task, durable."""
    change = transitions.submitted(task_id, spec, now)
    assert store.submit(of(change), None) == task_id
    return change.task


def save(store: SqlTaskStore, *changes: transitions.Change | None) -> None:
    """Write them, and wait until they are durable."""
    saved: list[bool] = []
    store.save(of(*changes), lambda: saved.append(True))
    wait_until(lambda: bool(saved))


def place(store: SqlTaskStore, task: Task, worker_id: str = "rack-7", now: float = NOW + 1) -> tuple[Task, Attempt]:
    """A durable attempt of a queued task."""
    change = transitions.placed(task, worker_id, ("GPU-aaaa",), now)
    assert change.attempt is not None
    save(store, change)
    return change.task, change.attempt


def finish(
    store: SqlTaskStore,
    task: Task,
    attempt: Attempt,
    status: AttemptStatus = AttemptStatus.COMPLETED,
    now: float = NOW + 9,
) -> tuple[Task, Attempt]:
    """A durable end."""
    outcome = Outcome(0) if status is AttemptStatus.COMPLETED else Outcome(3, False, "exit_code", "it ended with 3")
    report = transitions.Report(task.task_id, attempt.attempt, status, "c0ffee", outcome)
    change = transitions.reported(task, attempt, attempt.worker_id, report, now)
    assert change is not None
    assert change.attempt is not None
    save(store, change)
    return change.task, change.attempt


def append(store: SqlTaskStore, attempt: Attempt, offset: int, data: bytes) -> None:
    """A durable piece of a log."""
    saved: list[bool] = []
    store.append_log(LogChunk(attempt.task_id, attempt.attempt, offset, data), lambda: saved.append(True))
    wait_until(lambda: bool(saved))


@contextmanager
def nothing_can_be_written(database_url: str) -> Iterator[None]:
    """Somebody else holds a lock that every write needs."""
    database = parse_database_url(database_url)
    if database.path is not None:
        connection = sqlite3.connect(database.path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.rollback()
            connection.close()
    else:
        with psycopg.connect(database_url) as other:
            other.execute("LOCK TABLE tasks, attempts, events, log_chunks, workers IN EXCLUSIVE MODE")
            yield
            other.rollback()
