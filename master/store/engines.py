"""Connections, one kind to write and one to read, with what makes each of them safe on its database."""

import sqlite3
from typing import Any, NamedTuple

from sqlalchemy import URL, Connection, Engine, create_engine, event

from fleetpulse.master.store.mastership import application_name
from fleetpulse.master.store.url import DatabaseUrl

# A try ends well before those who wait for it give up; the writer tries again.
_SQLITE_BUSY_MILLISECONDS = 2_000
_WAL_SIZE_LIMIT_BYTES = 64 * 1024 * 1024

# Defaults of libpq would wait for minutes for a server that is gone.
_POSTGRESQL_CONNECT = {
    "connect_timeout": "5",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}
_POSTGRESQL_STATEMENT_TIMEOUT = "15s"

# And those of the server for hours for a master whose machine is gone, with its locks.
_POSTGRESQL_WRITER = (
    "SET synchronous_commit = on",
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
)


class Engines(NamedTuple):
    """``writer`` has one connection, for one thread."""

    writer: Engine
    reader: Engine

    def close(self) -> None:
        self.writer.dispose()
        self.reader.dispose()


def open_engines(database: DatabaseUrl, readers: int) -> Engines:
    """Connects to nothing yet."""
    if database.path is not None:
        return Engines(_sqlite(database.url, 1, reads_only=False), _sqlite(database.url, readers, reads_only=True))
    return Engines(_postgresql(database.url, 1, reads_only=False), _postgresql(database.url, readers, reads_only=True))


def _sqlite(url: URL, connections: int, *, reads_only: bool) -> Engine:
    engine = create_engine(url, pool_size=connections, max_overflow=0, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: Any) -> None:
        # sqlite3 shall begin no transaction by itself: only those below are begun at the right time.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {_SQLITE_BUSY_MILLISECONDS}")
        connection.execute("PRAGMA journal_mode = WAL")
        # With less than FULL a commit that was acknowledged may be gone after a power failure.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_SIZE_LIMIT_BYTES}")
        if reads_only:
            connection.execute("PRAGMA query_only = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and writes later could find that another one had written in between.
        connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL, connections: int, *, reads_only: bool) -> Engine:
    settings = {"application_name": application_name(), **_POSTGRESQL_CONNECT}
    engine = create_engine(
        url.update_query_dict({name: value for name, value in settings.items() if name not in url.query}),
        pool_size=connections,
        max_overflow=0,
        hide_parameters=True,
        pool_pre_ping=reads_only,
        # A reader sees one state of the database in all its statements.
        isolation_level="REPEATABLE READ" if reads_only else "READ COMMITTED",
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = '{_POSTGRESQL_STATEMENT_TIMEOUT}'")
            for statement in ("SET default_transaction_read_only = on",) if reads_only else _POSTGRESQL_WRITER:
                cursor.execute(statement)
        connection.commit()

    return engine
