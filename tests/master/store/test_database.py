"""master.store.database: URLs, real errors of both databases, and the lock that leaves a database to one master."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from fleetpulse.master.errors import ConfigError, StoreUnavailable
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.store.database import (
    create_private_file,
    default_url,
    error_kind,
    error_message,
    is_row_error,
    open_engines,
    parse_database_url,
)
from fleetpulse.master.store.schema import migrate
from fleetpulse.master.store.store import SqlTaskStore
from fleetpulse.master.store.tables import events, tasks
from fleetpulse.master.tasks.records import TaskQuery
from tests.master.fleet import wait_until
from tests.master.store.builders import open_store, submit
from tests.master.store.encryptor import ENCRYPTOR
from tests.master.store.test_durability import child
from tests.postgres import PostgresServer


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_url_uses_psycopg(scheme: str) -> None:
    database = parse_database_url(f" {scheme}://user:secret@host:5433/fleet?sslmode=require\n")
    assert database.path is None
    assert database.url.drivername == "postgresql+psycopg"
    assert database.url.password == "secret"
    assert database.url.query == {"sslmode": "require"}
    assert str(database) == "postgresql+psycopg://user:***@host:5433/fleet"


def test_password_in_url_parameters_is_not_shown() -> None:
    assert "secret" not in str(parse_database_url("postgresql://host/fleet?user=u&password=secret"))


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+pysqlite"])
def test_sqlite_url_is_shown_as_its_path(scheme: str) -> None:
    database = parse_database_url(f"{scheme}:////srv/fleet/f.db")
    assert database.path == Path("/srv/fleet/f.db")
    assert str(database) == "/srv/fleet/f.db"
    assert parse_database_url(f"{scheme}:///f.db").path == Path.cwd() / "f.db"


@given(
    st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1).filter(
        lambda name: name not in {".", ".."}
    )
)
def test_default_url_works_for_any_folder_name(name: str) -> None:
    assert parse_database_url(default_url(Path("/srv") / name)).path == Path("/srv") / name / "fleetpulse.db"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fleetpulse.db",
        "/srv/fleetpulse.db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file:fleet?mode=memory",
        "sqlite:///f.db?cache=shared",
        "sqlite://secret/f.db",
        "sqlite://user:secret@/f.db",
        "mysql://user:secret@host/fleet",
        "postgresql+psycopg2://user:secret@host/fleet",
        "postgresql+asyncpg://user:secret@host/fleet",
        "postgresql://user:secret@host:port/fleet",
        "postgresql://user:secret@[::1/fleet",
        "postgresql:/user:secret@host/fleet",
        "://user:secret@host",
    ],
)
def test_invalid_url_is_refused_without_showing_a_password(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^DATABASE_URL") as refused:
        parse_database_url(text)
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


@contextmanager
def writing(database_url: str, *, migrated: bool = True) -> Iterator[Engine]:
    """An engine as the writer has it."""
    database = parse_database_url(database_url)
    if database.path is not None:
        create_private_file(database.path)
    engines = open_engines(database, 1)
    if migrated:
        with engines.writer.begin() as connection:
            migrate(connection)
    yield engines.writer
    engines.close()


def error_of(engine: Engine, do: Callable[[Connection], object]) -> Exception:
    try:
        with engine.begin() as connection:
            do(connection)
    except Exception as error:  # noqa: BLE001 - any kind, it is what the test is about
        return error
    raise AssertionError("nothing went wrong")


def event(**changes: object) -> dict[str, object]:
    row: dict[str, object] = {"event_id": 1, "task_id": "t", "attempt": 0, "time": 0.0, "kind": "k", "message": ""}
    return row | changes


BAD_ROWS: list[dict[str, object]] = [
    event(kind=None),
    event(attempt=2**70),
    event(time=object()),
    event(message=7),
]


@pytest.mark.parametrize("row", BAD_ROWS, ids=["null", "too large", "no type of the database", "another type"])
def test_invalid_value_is_a_row_error(database_url: str, row: dict[str, object]) -> None:
    with writing(database_url) as engine:
        error = error_of(engine, lambda connection: connection.execute(events.insert(), [row]))
        assert is_row_error(error), repr(error)
        assert error_kind(error) == "row"


def test_duplicate_key_is_a_row_error(database_url: str) -> None:
    with writing(database_url) as engine:
        error = error_of(engine, lambda connection: connection.execute(events.insert(), [event(), event()]))
        assert is_row_error(error)


def test_name_too_long_for_an_index_of_postgresql_is_a_row_error(postgres: PostgresServer) -> None:
    with writing(postgres.create_schema()) as engine:
        name = "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(3000))  # hardly to be compressed
        row = {column.name: "0" for column in tasks.c} | {
            "sequence": 1,
            "name": name,
            "logs_pruned": False,
            "oom_killed": None,
            "read_only": None,
        }
        error = error_of(engine, lambda connection: connection.execute(tasks.insert(), [row]))
        assert "index row" in error_message(error)
        assert is_row_error(error)


def test_missing_table_is_an_outage(database_url: str) -> None:
    with writing(database_url, migrated=False) as engine:
        error = error_of(engine, lambda connection: connection.execute(events.insert(), [event()]))
        assert not is_row_error(error)
        assert error_kind(error) == "unavailable"
        assert "\n" not in error_message(error)


def test_full_database_is_reported_as_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "f.db"
    engines = open_engines(parse_database_url(f"sqlite:///{path}"), 1)

    def fill(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE t (x)")
        connection.exec_driver_sql("PRAGMA max_page_count = 10")
        connection.exec_driver_sql("INSERT INTO t VALUES (zeroblob(1000000))")

    error = error_of(engines.writer, fill)
    assert not is_row_error(error)
    assert error_kind(error) == "disk_full"
    assert error_message(error) == "database or disk is full"
    engines.close()


def test_statement_timeout_and_lost_connection_are_outages(postgres: PostgresServer) -> None:
    engines = open_engines(parse_database_url(postgres.create_schema()), 1)

    def take_long(connection: Connection) -> None:
        connection.execute(text("SET LOCAL statement_timeout = '10ms'"))
        connection.execute(text("SELECT pg_sleep(60)"))

    def lose(connection: Connection) -> None:
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    def read_only(connection: Connection) -> None:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        connection.execute(text("CREATE TABLE t (x int)"))

    for do in (take_long, lose, read_only):
        error = error_of(engines.writer, do)
        assert not is_row_error(error), repr(error)
        assert error_kind(error) == "unavailable"
    engines.close()


def test_error_message_shows_no_value_of_a_row(database_url: str) -> None:
    with writing(database_url) as engine:
        row = event(kind=None, message="a secret")
        error = error_of(engine, lambda connection: connection.execute(events.insert(), [row]))
        assert "a secret" not in error_message(error)


SECOND = r"another master \(fleetpulse \S+:{}, process \d+ of the server\) uses it: give each master its own"
REPLACED = r"the store is closed: another master \(fleetpulse \S+:\d+\) has opened the database"
HOLDERS = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 4201703 AND granted"


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    return postgres.create_database()


@pytest.fixture
def other(postgres_url: str) -> Iterator[psycopg.Connection]:
    """A session beside the stores."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


def end_writer(other: psycopg.Connection) -> None:
    """Ends the session that writes, and its lock."""
    (holder,) = other.execute(HOLDERS).fetchall()
    other.execute("SELECT pg_terminate_backend(%s)", holder)
    wait_until(lambda: other.execute(HOLDERS).fetchall() == [])


def test_second_master_is_refused_with_the_name_of_the_first(
    postgres_url: str, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    with child("hold", postgres_url) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(StoreUnavailable, match=SECOND.format(process.pid)):
            SqlTaskStore(postgres_url, ENCRYPTOR, Instruments().store, open_timeout_seconds=0.6).start()
        assert caplog.text.count("waiting for the database") == 1
        with open_store(postgres.create_database(), open_timeout_seconds=0.0) as elsewhere:
            submit(elsewhere, "t1")
        process.send_signal(signal.SIGKILL)
        with open_store(postgres_url) as next_one:
            submit(next_one, "t1")


def test_each_schema_has_its_own_master_lock(postgres: PostgresServer) -> None:
    with open_store(postgres.create_schema()) as one, open_store(postgres.create_schema()) as another:
        submit(one, "t1")
        submit(another, "t1")


def test_master_takes_the_lock_again_after_a_lost_connection(postgres_url: str, other: psycopg.Connection) -> None:
    replaced: list[bool] = []
    with open_store(postgres_url, on_replaced=lambda: replaced.append(True)) as store:
        submit(store, "before")
        for number in range(3):
            end_writer(other)
            submit(store, f"after-{number}")
        assert store.health_error() is None
        with pytest.raises(StoreUnavailable, match=r"another master \(fleetpulse "):
            SqlTaskStore(postgres_url, ENCRYPTOR, Instruments().store, open_timeout_seconds=0.0).start()
    assert replaced == []


def test_nothing_is_written_while_another_session_has_the_lock(postgres_url: str, other: psycopg.Connection) -> None:
    with open_store(postgres_url, write_timeout_seconds=0.5) as store:
        submit(store, "before")
        end_writer(other)
        other.execute("SELECT pg_advisory_lock(4201703, hashtext('public'))")
        with pytest.raises(StoreUnavailable, match=r"another master \(without a name, process"):
            submit(store, "during")
        assert "another master" in (store.health_error() or "")
        other.execute("SELECT pg_advisory_unlock_all()")
        wait_until(lambda: store.health_error() is None)
        assert other.execute(HOLDERS).fetchall() != []
        submit(store, "after")
        assert [task.task_id for task in store.find(TaskQuery()).tasks] == ["after", "before"]


def test_replaced_master_never_writes_again(
    postgres_url: str, other: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    replaced: list[bool] = []
    with open_store(postgres_url, write_timeout_seconds=60.0, on_replaced=lambda: replaced.append(True)) as store:
        submit(store, "of-the-first")
        end_writer(other)
        with open_store(postgres_url) as follower:
            with pytest.raises(StoreUnavailable, match=REPLACED):
                submit(store, "late")
            submit(follower, "of-the-second")
        # The lock is free again.
        with pytest.raises(StoreUnavailable, match=REPLACED):
            submit(store, "later")
        assert [task.task_id for task in store.find(TaskQuery()).tasks] == ["of-the-second", "of-the-first"]
    assert replaced == [True]
    assert caplog.text.count("nothing is written any more") == 1
