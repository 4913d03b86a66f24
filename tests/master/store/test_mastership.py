"""master.store.mastership: a PostgreSQL has one master at a time, whatever becomes of connections and processes."""

import signal
from collections.abc import Iterator

import psycopg
import pytest

from fleetpulse.master.errors import StoreUnavailable
from fleetpulse.master.store.observer import StoreObserver
from fleetpulse.master.store.store import SqlTaskStore
from fleetpulse.master.tasks.ports import TaskQuery
from tests.master.fleet import wait_until
from tests.master.store.given import open_store, submit
from tests.master.store.seal import SEAL
from tests.master.store.test_durability import child
from tests.postgres import PostgresServer

SECOND = r"another master \(fleetpulse \S+:{}, process \d+ of the server\) uses it: give each master its own"
TAKEN_OVER = r"the store is closed: another master \(fleetpulse \S+:\d+\) has opened the database"
HOLDERS = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 4201703 AND granted"


@pytest.fixture
def database_url(postgres: PostgresServer) -> str:
    return postgres.create_database()


@pytest.fixture
def other(database_url: str) -> Iterator[psycopg.Connection]:
    """Somebody beside the stores."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def cut(other: psycopg.Connection) -> None:
    """End the connection that writes, and its lock."""
    (holder,) = other.execute(HOLDERS).fetchall()
    other.execute("SELECT pg_terminate_backend(%s)", holder)
    wait_until(lambda: other.execute(HOLDERS).fetchall() == [])


def test_a_second_master_is_refused_and_told_by_whom(
    database_url: str, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    with child("hold", database_url) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(StoreUnavailable, match=SECOND.format(process.pid)):
            SqlTaskStore(database_url, SEAL, patience_seconds=0.6).start()
        assert caplog.text.count("waiting for the database") == 1
        with open_store(postgres.create_database(), patience_seconds=0.0) as elsewhere:
            submit(elsewhere, "t1")
        process.send_signal(signal.SIGKILL)
        with open_store(database_url) as next_one:
            submit(next_one, "t1")


def test_each_schema_is_a_store_of_its_own(postgres: PostgresServer) -> None:
    with open_store(postgres.create_schema()) as one, open_store(postgres.create_schema()) as another:
        submit(one, "t1")
        submit(another, "t1")


def test_a_master_whose_connection_was_cut_takes_the_lock_again(database_url: str, other: psycopg.Connection) -> None:
    taken_over: list[bool] = []
    observer = StoreObserver(taken_over=lambda: taken_over.append(True))
    with open_store(database_url, observer=observer) as store:
        submit(store, "before")
        for number in range(3):
            cut(other)
            submit(store, f"after-{number}")
        assert store.health_error() is None
        with pytest.raises(StoreUnavailable, match=r"another master \(fleetpulse "):
            SqlTaskStore(database_url, SEAL, patience_seconds=0.0).start()
    assert taken_over == []


def test_while_somebody_else_has_the_lock_nothing_is_written(database_url: str, other: psycopg.Connection) -> None:
    with open_store(database_url, write_seconds=0.5) as store:
        submit(store, "before")
        cut(other)
        other.execute("SELECT pg_advisory_lock(4201703, hashtext('public'))")
        with pytest.raises(StoreUnavailable, match=r"another master \(without a name, process"):
            submit(store, "during")
        assert "another master" in (store.health_error() or "")
        other.execute("SELECT pg_advisory_unlock_all()")
        wait_until(lambda: store.health_error() is None)
        assert other.execute(HOLDERS).fetchall() != []
        submit(store, "after")
        assert [task.task_id for task in store.find(TaskQuery()).tasks] == ["after", "before"]


def test_a_master_that_another_one_has_followed_never_writes_again(
    database_url: str, other: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    taken_over: list[bool] = []
    observer = StoreObserver(taken_over=lambda: taken_over.append(True))
    with open_store(database_url, write_seconds=60.0, observer=observer) as store:
        submit(store, "of-the-first")
        cut(other)
        with open_store(database_url) as follower:
            with pytest.raises(StoreUnavailable, match=TAKEN_OVER):
                submit(store, "late")
            submit(follower, "of-the-second")
        # The lock is free again.
        with pytest.raises(StoreUnavailable, match=TAKEN_OVER):
            submit(store, "later")
        assert [task.task_id for task in store.find(TaskQuery()).tasks] == ["of-the-second", "of-the-first"]
    assert taken_over == [True]
    assert caplog.text.count("nothing is written any more") == 1
