"""master.store.reads: pages of tasks, and the indexes that they are read from."""

import random
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, event, text

from fleetpulse.master.errors import InvalidCursor, StoreUnavailable
from fleetpulse.master.store.database import open_engines, parse_database_url
from fleetpulse.master.store.reads import Readers, find_page, name_range
from fleetpulse.master.store.store import SqlTaskStore
from fleetpulse.master.store.tables import metadata
from fleetpulse.master.tasks import transitions
from fleetpulse.master.tasks.records import Attempt, AttemptStatus, Changes, Task, TaskQuery, TaskStatus
from tests.master.fleet import wait_until
from tests.master.requests import task_request
from tests.master.store.builders import NOW, place, submit

NAMES = ("", "a", "ab", "abc", "Ab", "b", "a_", "a%", "ä", "a\U0010ffff", "é\ud7ff")
WORKERS = ("rack-7", "rack-8")

FILTERS: Sequence[dict[str, Any]] = [
    {},
    {"statuses": frozenset({TaskStatus.RUNNING})},
    {"statuses": frozenset({TaskStatus.RUNNING, TaskStatus.FAILED, TaskStatus.QUEUED})},
    {"worker_id": "rack-7"},
    {"worker_id": "nobody"},
    {"worker_id": "rack-8", "statuses": frozenset({TaskStatus.COMPLETED})},
    *({"name_prefix": prefix} for prefix in ("a", "ab", "A", "a_", "a%", "ä", "zz", "a\U0010ffff", "é")),
    {"name_prefix": "a", "statuses": frozenset({TaskStatus.PENDING, TaskStatus.COMPLETED}), "worker_id": "rack-7"},
]


def many(store: SqlTaskStore, count: int) -> list[tuple[Task, Attempt | None]]:
    """Tasks of every kind in any order; the list is in the order in which they were accepted."""
    chance = random.Random(7)
    made: list[tuple[Task, Attempt | None]] = []
    saved: list[bool] = []
    for number in range(count):
        task = Task(f"t{number}", task_request("busybox", name=chance.choice(NAMES)), TaskStatus.QUEUED, NOW)
        attempt = None
        if status := chance.choice([None, *TaskStatus]):
            task = task._replace(status=status, attempt=2)
            attempt = Attempt(task.task_id, 2, chance.choice(WORKERS), AttemptStatus.RUNNING, NOW)
        made.append((task, attempt))
        older = [Attempt(task.task_id, 1, chance.choice(WORKERS), AttemptStatus.LOST, NOW)] if attempt else []
        attempts = (*older, *([attempt] if attempt else []))
        store.save(Changes((task,), attempts), lambda: saved.append(True))
    wait_until(lambda: len(saved) == count)
    return made


def matches(query: TaskQuery, task: Task, attempt: Attempt | None) -> bool:
    return (
        (not query.statuses or task.status in query.statuses)
        and (query.worker_id is None or (attempt is not None and attempt.worker_id == query.worker_id))
        and task.request.name.startswith(query.name_prefix or "")
    )


def test_pages_together_are_all_matching_tasks_newest_first(store: SqlTaskStore) -> None:
    made = many(store, 150)
    for filters in FILTERS:
        query = TaskQuery(limit=7, **filters)
        found: list[tuple[Task, Attempt | None]] = []
        while True:
            page = store.find(query)
            found += [(task, page.attempts.get(task.task_id)) for task in page.tasks]
            if page.next_cursor is None:
                break
            assert len(page.tasks) == 7
            query = query._replace(cursor=page.next_cursor)
        assert found == [(task, attempt) for task, attempt in reversed(made) if matches(query, task, attempt)], filters


def test_sorted_and_walked_pages_are_equal(store: SqlTaskStore, database_url: str) -> None:
    many(store, 100)
    engines = open_engines(parse_database_url(database_url), 1)
    with engines.reader.connect() as connection:
        for filters in FILTERS:
            query = TaskQuery(limit=20, **filters)
            sorted_page = find_page(connection, query)
            assert find_page(connection, query, few_names=0) == sorted_page
            after = query._replace(cursor=sorted_page.next_cursor)
            assert find_page(connection, after, few_names=0) == find_page(connection, after)
    engines.close()


def test_next_page_is_not_changed_by_new_tasks(store: SqlTaskStore) -> None:
    for number in range(4):
        submit(store, f"t{number}")
    first = store.find(TaskQuery(limit=2))
    submit(store, "late")
    second = store.find(TaskQuery(limit=2, cursor=first.next_cursor))
    assert [task.task_id for task in (*first.tasks, *second.tasks)] == ["t3", "t2", "t1", "t0"]
    assert second.next_cursor is None


def test_worker_filter_uses_the_newest_attempt(store: SqlTaskStore) -> None:
    task, attempt = place(store, submit(store, "t1"), "rack-7")
    lost = transitions.lost(task, attempt, "it is gone", NOW + 2)
    place(store, lost.task, "rack-8")
    assert [task.task_id for task in store.find(TaskQuery(worker_id="rack-8")).tasks] == ["t1"]
    assert store.find(TaskQuery(worker_id="rack-7")).tasks == []


@pytest.mark.parametrize("cursor", ["", "1", "next", "AAAAAAAAAAAAAAAA", "é", "=" * 16, "\0", "A" * 4000])
def test_invalid_cursor_is_refused(store: SqlTaskStore, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        store.find(TaskQuery(cursor=cursor))


@given(st.text(min_size=1), st.text())
def test_name_range_holds_exactly_the_names_with_the_prefix(prefix: str, name: str) -> None:
    first, after = name_range(prefix)
    for candidate in (name, prefix + name):
        as_bytes = candidate.encode()
        in_range = first.encode() <= as_bytes and (after is None or as_bytes < after.encode())
        assert in_range == candidate.startswith(prefix)


@pytest.fixture
def plans() -> Iterator[tuple[Connection, list[str]]]:
    """An empty database, and how SQLite answers each statement, as it says itself."""
    engine = create_engine("sqlite://")
    steps: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def explain(connection: Connection, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            steps.extend(row[3] for row in cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall())

    with engine.begin() as connection:
        metadata.create_all(connection)
        yield connection, steps
    engine.dispose()


@pytest.mark.parametrize("filters", FILTERS, ids=lambda filters: "+".join(filters) or "all")
@pytest.mark.parametrize("few_names", [0, 10])
def test_pages_are_read_from_covering_indexes(
    plans: tuple[Connection, list[str]], filters: dict[str, Any], few_names: int
) -> None:
    connection, steps = plans
    page = TaskQuery(cursor="AAAAAAAAAGOxme-L", **filters)
    for query in (TaskQuery(**filters), page):
        find_page(connection, query, few_names)
    reads = [step for step in steps if "tasks" in step and not step.startswith("SCAN (")]
    assert reads
    newest_first = {"SCAN tasks", "SEARCH tasks USING INTEGER PRIMARY KEY (rowid<?)"}
    for step in reads:
        assert "COVERING INDEX" in step or (not filters and step in newest_first), steps


@pytest.fixture
def readers() -> Iterator[Readers]:
    """One thread."""
    engine = create_engine("sqlite://")
    readers = Readers(engine, 1)
    readers.start()
    yield readers
    readers.stop(20.0)
    engine.dispose()


def test_reader_returns_the_result_or_raises_the_error(readers: Readers) -> None:
    assert readers.run(lambda connection: connection.scalar(text("SELECT 7")), 20.0) == 7
    with pytest.raises(KeyError, match="why"):
        readers.run(lambda _: {"because": 1}["why"], 20.0)
    with pytest.raises(StoreUnavailable, match="the database cannot be read: no such table"):
        readers.run(lambda connection: connection.execute(text("SELECT * FROM missing")), 20.0)


def test_read_times_out_while_running_and_while_waiting_for_a_thread(readers: Readers) -> None:
    done = threading.Event()
    for _ in range(2):  # the first one has the thread, the other waits for it
        with pytest.raises(StoreUnavailable, match=r"the database has not answered for 0\.05 s"):
            readers.run(lambda _: done.wait(20.0), 0.05)
    done.set()
    assert readers.run(lambda _: "free again", 20.0) == "free again"


def test_read_that_waits_for_a_thread_fails_when_the_readers_are_stopped(readers: Readers) -> None:
    done = threading.Event()
    running = gevent.spawn(readers.run, lambda _: done.wait(20.0), 20.0)
    gevent.sleep(0)
    waiting = gevent.spawn(readers.run, lambda _: "never", 20.0)
    gevent.sleep(0)
    stopping = gevent.spawn(readers.stop, 20.0)
    gevent.sleep(0)
    done.set()
    for greenlet in (running, waiting, stopping):
        greenlet.join(timeout=20.0)
    assert running.value is True
    assert isinstance(waiting.exception, StoreUnavailable)
    assert str(waiting.exception) == "the store is closed"
