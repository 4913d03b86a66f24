"""master.store.batch: pruning of logs and tasks, in small steps."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine, func, select

from fleetpulse.master.errors import UnknownTask
from fleetpulse.master.store.batch import DAY_SECONDS, STEP_BYTES, STEP_ROWS, STEP_TASKS, Retention, prune_step
from fleetpulse.master.store.rows import task_row
from fleetpulse.master.store.store import SqlTaskStore
from fleetpulse.master.store.tables import attempts, events, log_chunks, metadata, tasks
from fleetpulse.master.tasks.records import LogSlice, Task, TaskQuery, TaskStatus
from tests.master.fleet import wait_until
from tests.master.requests import task_request
from tests.master.store.builders import NOW, append, finish, open_store, place, submit
from tests.master.store.encryptor import ENCRYPTOR

RETENTION = Retention(log_seconds=7 * DAY_SECONDS, task_seconds=90 * DAY_SECONDS)


class Clock:
    """The wall clock of a store; a test sets it before it opens the store."""

    def __init__(self) -> None:
        self.now = NOW


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fill(store: SqlTaskStore) -> None:
    """A task that ends at NOW with a log and one that ends then without, one that lives, one that ends a day later."""
    for task_id, end in (("old", NOW), ("silent", NOW), ("late", NOW + DAY_SECONDS)):
        task, attempt = place(store, submit(store, task_id))
        if task_id != "silent":
            append(store, attempt, 0, b"hello")
        finish(store, task, attempt, now=end)
    append(store, place(store, submit(store, "live"))[1], 0, b"hello")


def test_logs_expire_before_their_tasks(database_url: str, clock: Clock) -> None:
    with open_store(database_url) as store:
        fill(store)
    clock.now = NOW + 7 * DAY_SECONDS + 1
    with open_store(database_url, retention=RETENTION, clock=lambda: clock.now) as store:
        wait_until(lambda: store.read_log("old", 1, 0, 100) == LogSlice(0, b"", 5, expired=True))
        assert store.read_log("old", 1, -2, 100) == LogSlice(3, b"", 5, expired=True)
        assert store.read_log("silent", 1, 0, 100) == LogSlice(0, b"", 0)
        assert store.read_log("late", 1, 0, 100).data == b"hello"
        assert store.read_log("live", 1, 0, 100).data == b"hello"
        assert len(store.find(TaskQuery()).tasks) == 4


def test_expired_tasks_are_deleted_with_attempts_events_and_logs(database_url: str, clock: Clock) -> None:
    with open_store(database_url) as store:
        fill(store)
    clock.now = NOW + 90 * DAY_SECONDS + 1
    with open_store(database_url, retention=RETENTION, clock=lambda: clock.now) as store:
        wait_until(lambda: [task.task_id for task in store.find(TaskQuery()).tasks] == ["live", "late"])
        for task_id in ("old", "silent"):
            with pytest.raises(UnknownTask):
                store.details(task_id)
        assert len(store.worker_attempts("rack-7", 100)) == 2
        assert store.read_log("late", 1, 0, 100).expired
        assert store.read_log("live", 1, 0, 100).data == b"hello"
        submit(store, "old")  # the name is free again, and nothing of the old one is left
        assert [event.kind for event in store.details("old").events] == ["submitted"]


def test_live_task_is_not_pruned_even_when_its_first_attempt_is_old(database_url: str, clock: Clock) -> None:
    """Its first attempt is older than any limit; the task itself has not ended."""
    with open_store(database_url) as store:
        append(store, place(store, submit(store, "live", now=NOW))[1], 0, b"hello")
    clock.now = NOW + 1000 * DAY_SECONDS
    with open_store(database_url, retention=Retention(0.0, 0.0), clock=lambda: clock.now) as store:
        submit(store, "behind the first look")
        assert store.read_log("live", 1, 0, 100).data == b"hello"


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        metadata.create_all(connection)
        yield connection
    engine.dispose()


def ended_tasks(connection: Connection, count: int, chunks: int, chunk_bytes: int) -> None:
    """Straight into the tables, because it is a lot."""
    names = [f"t{number}" for number in range(count)]
    ended = [Task(name, task_request("busybox"), TaskStatus.COMPLETED, NOW, finished_at=NOW) for name in names]
    connection.execute(tasks.insert(), [task_row(task, None, None, ENCRYPTOR) for task in ended])
    for name in names:
        for number in range(chunks):
            start = number * chunk_bytes
            connection.execute(
                log_chunks.insert(),
                {"task_id": name, "attempt": 1, "start_offset": start, "end_offset": start + chunk_bytes, "data": b""},
            )


def left(connection: Connection) -> tuple[int, int]:
    """Tasks and chunks."""
    counts = [connection.scalar(select(func.count()).select_from(table)) or 0 for table in (tasks, log_chunks)]
    return counts[0], counts[1]


def test_prune_step_is_bounded_by_rows(connection: Connection) -> None:
    later = NOW + 10 * DAY_SECONDS
    ended_tasks(connection, count=1, chunks=2 * STEP_ROWS + 1, chunk_bytes=10)
    assert prune_step(connection, RETENTION, later)
    assert left(connection) == (1, STEP_ROWS + 1)
    assert [prune_step(connection, RETENTION, later) for _ in range(3)] == [True, True, False]
    assert left(connection) == (1, 0)


def test_prune_step_is_bounded_by_bytes(connection: Connection) -> None:
    ended_tasks(connection, count=1, chunks=20, chunk_bytes=STEP_BYTES // 4)
    assert prune_step(connection, RETENTION, NOW + 10 * DAY_SECONDS)
    assert left(connection) == (1, 16)


def test_tasks_are_pruned_a_hundred_at_a_time(connection: Connection) -> None:
    ended_tasks(connection, count=2 * STEP_TASKS + 1, chunks=1, chunk_bytes=10)
    later = NOW + 100 * DAY_SECONDS
    steps = 0
    while prune_step(connection, RETENTION, later):
        steps += 1
    assert steps == 6
    assert left(connection) == (0, 0)
    assert connection.scalar(select(func.count()).select_from(attempts)) == 0
    assert connection.scalar(select(func.count()).select_from(events)) == 0


def test_logs_are_pruned_with_their_task_at_the_latest(connection: Connection) -> None:
    ended_tasks(connection, count=1, chunks=1, chunk_bytes=10)
    while prune_step(
        connection, Retention(log_seconds=1000 * DAY_SECONDS, task_seconds=DAY_SECONDS), NOW + 2 * DAY_SECONDS
    ):
        pass
    assert left(connection) == (0, 0)
