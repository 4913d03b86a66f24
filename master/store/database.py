"""The database: its URL, its connections, its errors, and the lock that leaves it to one master."""

import fcntl
import logging
import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    ProgrammingError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from fleetpulse.master.errors import ConfigError, StoreUnavailable
from fleetpulse.master.store.tables import mastership, upsert

_LOGGER = logging.getLogger(__name__)

DATABASE_FILE = "fleetpulse.db"

_EXPECTED = "expected sqlite:////folder/fleetpulse.db or postgresql://user:password@host:5432/database"
_SQLITE = frozenset({"sqlite", "sqlite+pysqlite"})
_POSTGRESQL = frozenset({"postgresql", "postgres", "postgresql+psycopg"})

# A try ends well before those who wait for it give up; the writer tries again.
_SQLITE_BUSY_MILLISECONDS = 2_000
_WAL_SIZE_LIMIT_BYTES = 64 * 1024 * 1024

# libpq's defaults wait minutes for a server that is gone.
_POSTGRESQL_CONNECT = {
    "connect_timeout": "5",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}
_POSTGRESQL_STATEMENT_TIMEOUT = "15s"

# The server's defaults keep the locks of a machine that is gone for hours.
_POSTGRESQL_WRITER = (
    "SET synchronous_commit = on",
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
)

# https://www.postgresql.org/docs/current/errcodes-appendix.html: data, integrity, and limits of the program.
_ROW_ERROR_CLASSES = ("22", "23", "54")


class DatabaseUrl(NamedTuple):
    """``path`` is SQLite's file, absolute; ``None`` for PostgreSQL."""

    url: URL
    path: Path | None

    def __str__(self) -> str:
        """For logs: neither the password nor the query, which may hold one too."""
        if self.path is not None:
            return str(self.path)
        return self.url.set(query={}).render_as_string(hide_password=True)


def default_url(data_dir: Path) -> str:
    """SQLite's file in the data directory, as a URL."""
    return URL.create("sqlite", database=str(data_dir / DATABASE_FILE)).render_as_string()


def parse_database_url(text: str) -> DatabaseUrl:
    """Raises ``ConfigError``, which never quotes a password."""
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        # From None: both errors quote the whole URL.
        raise ConfigError(f"DATABASE_URL is not a URL: {_EXPECTED}") from None
    if url.drivername in _SQLITE:
        return _parse_sqlite(url)
    if url.drivername in _POSTGRESQL:
        return DatabaseUrl(url.set(drivername="postgresql+psycopg"), None)
    raise ConfigError(f"DATABASE_URL begins with {url.drivername}: {_EXPECTED}")


def _parse_sqlite(url: URL) -> DatabaseUrl:
    if url.host or url.username or url.password or url.port:
        raise ConfigError("DATABASE_URL: write three slashes before the path of a SQLite file, four if it is absolute")
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigError(f"DATABASE_URL names no SQLite file: {_EXPECTED}")
    if url.query:
        raise ConfigError("DATABASE_URL: a SQLite file takes no parameters")
    path = Path(url.database).absolute()
    return DatabaseUrl(URL.create("sqlite+pysqlite", database=str(path)), path)


class Engines(NamedTuple):
    """``writer`` has one connection, for one thread."""

    url: DatabaseUrl
    writer: Engine
    reader: Engine

    def close(self) -> None:
        self.writer.dispose()
        self.reader.dispose()


def open_engines(url: DatabaseUrl, readers: int) -> Engines:
    """Connects on first use."""
    create = _postgresql_engine if url.path is None else _sqlite_engine
    return Engines(url, create(url.url, 1, read_only=False), create(url.url, readers, read_only=True))


def _sqlite_engine(url: URL, connections: int, *, read_only: bool) -> Engine:
    engine = create_engine(url, pool_size=connections, max_overflow=0, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: Any) -> None:
        # sqlite3 begins no transaction by itself; `begin` below does.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {_SQLITE_BUSY_MILLISECONDS}")
        connection.execute("PRAGMA journal_mode = WAL")
        # With less than FULL a power failure may undo an acknowledged commit.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_SIZE_LIMIT_BYTES}")
        if read_only:
            connection.execute("PRAGMA query_only = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # IMMEDIATE: a transaction that reads first and writes later must not fail because another wrote in between.
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _postgresql_engine(url: URL, connections: int, *, read_only: bool) -> Engine:
    settings = {"application_name": application_name(), **_POSTGRESQL_CONNECT}
    engine = create_engine(
        url.update_query_dict({name: value for name, value in settings.items() if name not in url.query}),
        pool_size=connections,
        max_overflow=0,
        hide_parameters=True,
        pool_pre_ping=read_only,
        # All statements of a reader see one state of the database.
        isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = '{_POSTGRESQL_STATEMENT_TIMEOUT}'")
            for statement in ("SET default_transaction_read_only = on",) if read_only else _POSTGRESQL_WRITER:
                cursor.execute(statement)
        connection.commit()

    return engine


def application_name() -> str:
    """The name of this process in PostgreSQL, which takes 63 bytes at most."""
    return f"fleetpulse {socket.gethostname()[:40]}:{os.getpid()}"


def is_row_error(error: Exception) -> bool:
    """Whether a row can never be written as it is, which is a bug. Anything else is an outage: trying again helps."""
    if not isinstance(error, DBAPIError):
        return not isinstance(error, PoolTimeout | OSError | StoreUnavailable)
    if error.connection_invalidated:
        return False
    sqlstate = _sqlstate(error)
    if sqlstate is not None:
        return sqlstate.startswith(_ROW_ERROR_CLASSES)
    # Without a code it comes from the driver. Python 3.11's sqlite3 raises InterfaceError for a value of a wrong type.
    return isinstance(error, IntegrityError | DataError | ProgrammingError | InterfaceError)


def error_message(error: Exception) -> str:
    """One line, without the statement, and without PostgreSQL's detail, which quotes the whole row."""
    if isinstance(error, StatementError) and error.orig is not None:
        lines = str(error.orig).strip().splitlines()
        return lines[0] if lines else type(error.orig).__name__
    return str(error) or type(error).__name__


def error_kind(error: Exception) -> str:
    """Returns the label of a metric: ``row``, ``locked``, ``disk_full`` or ``unavailable``."""
    if is_row_error(error):
        return "row"
    if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error):
        name = getattr(error.orig, "sqlite_errorname", "").partition("_SNAPSHOT")[0]
        return {"SQLITE_BUSY": "locked", "SQLITE_FULL": "disk_full"}.get(name, "unavailable")
    return {"53100": "disk_full", "55P03": "locked"}.get(_sqlstate(error) or "", "unavailable")


def _sqlstate(error: Any) -> str | None:
    sqlstate = getattr(getattr(error, "orig", None), "sqlstate", None)
    return sqlstate if isinstance(sqlstate, str) else None


def create_private_file(path: Path) -> None:
    """Creates the file and its folder, readable by their owner alone; SQLite gives the files beside it the same
    permissions. Raises ``ConfigError``."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(_open_private(path))
    except OSError as error:
        raise ConfigError(f"the database {path} cannot be opened: {error.strerror or error}") from error


def _open_private(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


class FileLock:
    """Leaves SQLite's file to one master, until ``release`` or the end of the process, however it ends.

    The lock file is never removed: that would let two processes lock two files of one name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self, timeout_seconds: float) -> None:
        """Blocks the thread. Raises ``ConfigError`` when another process holds the lock after ``timeout_seconds``."""
        descriptor = _open_private(self._path)
        deadline = time.monotonic() + timeout_seconds
        while not _try_lock(descriptor):
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                os.close(descriptor)
                raise ConfigError(
                    f"another master{f' (process {holder})' if holder else ''} uses this database, says {self._path}: "
                    "give each master its own DATABASE_URL or data directory"
                )
            time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# One lock for each schema, because each may be a store of its own. The first number is arbitrary and used nowhere else.
_LOCK = 4_201_703
_ACQUIRE = "SELECT pg_try_advisory_lock(%s, hashtext(coalesce(current_schema(), '')))"
_READ_TOKEN = "SELECT coalesce(max(master), 'unknown') FROM mastership"  # nosec B105 # a query
_FIND_HOLDER = """
SELECT activity.application_name, activity.pid
FROM pg_locks AS lock JOIN pg_stat_activity AS activity USING (pid)
WHERE lock.locktype = 'advisory' AND lock.granted AND lock.objsubid = 2
AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND lock.classid = %s
AND lock.objid::bigint = hashtext(coalesce(current_schema(), ''))::bigint & 4294967295
"""


class MasterLock:
    """Leaves a PostgreSQL database to one master: an advisory lock of the session that writes, with a fencing token.

    A connection of ``engine`` without the lock is closed at once, so nothing is written without it. Each master writes
    its fencing token when it opens the database; a master that finds another token when it reconnects has been
    replaced. Its memory is outdated, and it must not write again.

    ``on_replaced`` is called with the reason, by the thread that reconnects.
    """

    def __init__(self, engine: Engine, on_replaced: Callable[[str], None]) -> None:
        self._engine, self._on_replaced = engine, on_replaced
        self._token = f"{application_name()} {uuid.uuid4().hex}"
        self._token_written = False
        self._backend_pid: int | None = None
        event.listen(engine, "connect", self._acquire)

    def write_token(self) -> None:
        """Replaces the token of the master before. Call it before anything is read."""
        with self._engine.begin() as connection:
            upsert(connection, mastership, [{"number": 1, "master": self._token}], ("number",), ("master",))
        self._token_written = True

    def _acquire(self, connection: Any, _record: Any) -> None:
        """Called by SQLAlchemy for each new connection. Raises ``StoreUnavailable`` when it must not write."""
        try:
            with connection.cursor() as cursor:
                acquired = cursor.execute(_ACQUIRE, (_LOCK,)).fetchone()[0]
                self._check(cursor, acquired=acquired)
            connection.commit()
        except BaseException:
            connection.close()
            raise
        self._backend_pid = connection.info.backend_pid

    def _check(self, cursor: Any, *, acquired: bool) -> None:
        if self._token_written:
            (token,) = cursor.execute(_READ_TOKEN).fetchone()
            if token != self._token:
                reason = f"another master ({token.rsplit(' ', 1)[0]}) has opened the database"
                _LOGGER.error("%s while this one had no connection to it; nothing is written any more", reason)
                self._on_replaced(reason)
                raise StoreUnavailable(reason)
        if not acquired:
            raise StoreUnavailable(self._describe_holder(cursor))

    def _describe_holder(self, cursor: Any) -> str:
        name, pid = cursor.execute(_FIND_HOLDER, (_LOCK,)).fetchone() or ("it has just let go", 0)
        if pid == self._backend_pid:
            return f"the server has not noticed yet that a connection of this master ({name}) was lost"
        return (
            f"another master ({name or 'without a name'}, process {pid} of the server) uses it: "
            "give each master its own DATABASE_URL"
        )
