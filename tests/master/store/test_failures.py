"""master.store.failures: real errors of both databases, and whose fault they are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, text

from fleetpulse.master.store.engines import open_engines
from fleetpulse.master.store.failures import KINDS, blames_row, in_words, kind_of
from fleetpulse.master.store.files import make_private
from fleetpulse.master.store.migration import migrate
from fleetpulse.master.store.tables import events, tasks
from fleetpulse.master.store.url import parse_database_url
from tests.postgres import PostgresServer


@contextmanager
def writing(database_url: str, *, migrated: bool = True) -> Iterator[Engine]:
    """An engine as the writer has it."""
    database = parse_database_url(database_url)
    if database.path is not None:
        make_private(database.path)
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
def test_a_row_that_no_table_takes_is_its_own_fault(database_url: str, row: dict[str, object]) -> None:
    with writing(database_url) as engine:
        error = error_of(engine, lambda connection: connection.execute(events.insert(), [row]))
        assert blames_row(error), repr(error)
        assert kind_of(error) == "row"


def test_a_row_that_is_there_is_its_own_fault(database_url: str) -> None:
    with writing(database_url) as engine:
        error = error_of(engine, lambda connection: connection.execute(events.insert(), [event(), event()]))
        assert blames_row(error)


def test_a_name_that_no_index_of_postgresql_takes_is_its_own_fault(postgres: PostgresServer) -> None:
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
        assert "index row" in in_words(error)
        assert blames_row(error)


def test_a_table_that_is_missing_is_nobodys_fault_here(database_url: str) -> None:
    with writing(database_url, migrated=False) as engine:
        error = error_of(engine, lambda connection: connection.execute(events.insert(), [event()]))
        assert not blames_row(error)
        assert kind_of(error) in KINDS
        assert "\n" not in in_words(error)


def test_a_full_file_is_told_as_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "f.db"
    engines = open_engines(parse_database_url(f"sqlite:///{path}"), 1)

    def fill(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE t (x)")
        connection.exec_driver_sql("PRAGMA max_page_count = 10")
        connection.exec_driver_sql("INSERT INTO t VALUES (zeroblob(1000000))")

    error = error_of(engines.writer, fill)
    assert not blames_row(error)
    assert kind_of(error) == "disk_full"
    assert in_words(error) == "database or disk is full"
    engines.close()


def test_a_statement_that_takes_too_long_and_a_lost_connection_are_outages(postgres: PostgresServer) -> None:
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
        assert not blames_row(error), repr(error)
        assert kind_of(error) == "unavailable"
    engines.close()


def test_what_is_said_of_an_error_shows_no_value_of_a_row(database_url: str) -> None:
    with writing(database_url) as engine:
        row = event(kind=None, message="a secret")
        error = error_of(engine, lambda connection: connection.execute(events.insert(), [row]))
        assert "a secret" not in in_words(error)
