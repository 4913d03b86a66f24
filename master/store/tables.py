"""The tables as the newest migration leaves them (a test compares the two), and inserts that both databases understand.

No foreign keys: one thread writes everything in order, and one row that is wrong must not stop those after it.
Text that is compared or sorted has the collation of its bytes, on every database, whatever its locale.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    func,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect

Rows = Sequence[Mapping[str, Any]]


class Words(TypeDecorator[str]):
    """Any text. What a database refuses, NUL and half a surrogate pair, becomes a replacement character."""

    impl = Text().with_variant(Text(collation="C"), "postgresql")
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or (value.isascii() and "\0" not in value):
            return value
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


class Json(TypeDecorator[Any]):
    """A value as JSON text, all ASCII, so that it may hold any string. Tuples come back as lists."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


# SQLite makes only an INTEGER primary key the row's own number, which has 64 bits all the same.
RowNumber = BigInteger().with_variant(Integer, "sqlite")

# Constraints have names, so that later migrations can name them.
metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

workers = Table(
    "workers",
    metadata,
    Column("worker_id", Words, primary_key=True),
    Column("hostname", Words, nullable=False),
    Column("labels", Json, nullable=False),
    Column("seen_at", Double, nullable=True),
    Column("drain_reason", Words, nullable=True),
    Column("drained_since", Double, nullable=True),
)

tasks = Table(
    "tasks",
    metadata,
    # The order in which tasks were accepted; given by the database, never again to another task.
    Column("sequence", RowNumber, primary_key=True, autoincrement=True),
    Column("task_id", Words, nullable=False, unique=True),
    Column("idempotency_key", Words, nullable=True, unique=True),
    Column("idempotency_digest", Words, nullable=True),
    Column("docker_image", Words, nullable=False),
    Column("name", Words, nullable=False),
    Column("command", Json, nullable=False),
    # As ``Encryptor`` has it; in the clear, as JSON, in a row of an older version, which has no ``env_names`` yet.
    Column("env", Text, nullable=False),
    Column("env_names", Json, nullable=True),
    Column("cpu_required", Double, nullable=False),
    Column("memory_required", BigInteger, nullable=False),
    Column("gpu_required", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("max_retries", Integer, nullable=False),
    Column("timeout_seconds", Double, nullable=True),
    Column("labels", Json, nullable=False),
    Column("constraints", Json, nullable=False),
    Column("read_only", Boolean, nullable=True),
    Column("user", Words, nullable=True),
    Column("network", Words, nullable=True),
    # Fields of the request that have no column of their own, by name.
    Column("options", Json, nullable=True),
    Column("status", Words, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("retries_used", Integer, nullable=False),
    Column("not_before", Double, nullable=True),
    Column("cancel_requested_at", Double, nullable=True),
    Column("pending_at", Double, nullable=True),
    Column("running_at", Double, nullable=True),
    Column("finished_at", Double, nullable=True),
    Column("exit_code", Integer, nullable=True),
    Column("oom_killed", Boolean, nullable=True),
    Column("reason", Words, nullable=True),
    Column("error", Words, nullable=True),
    # Of the newest attempt, kept here too so that a page of a worker's tasks is one range of an index.
    Column("worker_id", Words, nullable=True),
    Column("logs_pruned", Boolean, nullable=False),
    sqlite_autoincrement=True,
)
# Migration 0003 has one more, ix_tasks_in_the_clear: naming its condition here would load the dialect of PostgreSQL.
# Each covers all that a page is chosen by, so that only the rows of the page itself are read.
Index("ix_tasks_status", tasks.c.status, tasks.c.sequence, tasks.c.name)
Index("ix_tasks_worker_id", tasks.c.worker_id, tasks.c.status, tasks.c.sequence, tasks.c.name)
Index("ix_tasks_name", tasks.c.name, tasks.c.sequence, tasks.c.status, tasks.c.worker_id)
Index("ix_tasks_finished_at", tasks.c.logs_pruned, tasks.c.finished_at)

attempts = Table(
    "attempts",
    metadata,
    Column("task_id", Words, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("worker_id", Words, nullable=False),
    Column("status", Words, nullable=False),
    Column("assigned_at", Double, nullable=False),
    Column("gpu_uuids", Json, nullable=False),
    Column("preparing_at", Double, nullable=True),
    Column("running_at", Double, nullable=True),
    Column("finished_at", Double, nullable=True),
    Column("container_id", Words, nullable=True),
    Column("exit_code", Integer, nullable=True),
    Column("oom_killed", Boolean, nullable=True),
    Column("reason", Words, nullable=True),
    Column("error", Words, nullable=True),
    # The length of a log that has been pruned; NULL while it is there, or when there never was one.
    Column("log_expired_bytes", BigInteger, nullable=True),
)
Index("ix_attempts_worker_id", attempts.c.worker_id, attempts.c.assigned_at)

events = Table(
    "events",
    metadata,
    # Growing; given by the store before the first try to write.
    Column("event_id", RowNumber, primary_key=True, autoincrement=False),
    Column("task_id", Words, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("time", Double, nullable=False),
    Column("kind", Words, nullable=False),
    Column("message", Words, nullable=False),
)
Index("ix_events_task_id", events.c.task_id, events.c.event_id)

log_chunks = Table(
    "log_chunks",
    metadata,
    Column("task_id", Words, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("start_offset", BigInteger, primary_key=True, autoincrement=False),
    Column("end_offset", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

# One row on PostgreSQL: the fencing token of the master that opened the database last.
mastership = Table(
    "mastership",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("master", Words, nullable=False),
)

# Both hold points as ``master.history.points`` packs them; times are whole Unix seconds.
history_journal = Table(
    "history_journal",
    metadata,
    # In the order of writing.
    Column("number", RowNumber, primary_key=True, autoincrement=True),
    Column("step", Integer, nullable=False),
    Column("newest", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

history_chunks = Table(
    "history_chunks",
    metadata,
    Column("worker_id", Words, primary_key=True),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)
Index("ix_history_chunks_last", history_chunks.c.step, history_chunks.c.last)


def insert_or_ignore(connection: Connection, table: Table, rows: Rows, keys: tuple[str, ...]) -> None:
    """Leaves an existing row as it is."""
    if rows:
        connection.execute(_insert_or_ignore(connection.dialect.name, table, keys), rows)


def insert_or_update(
    connection: Connection,
    table: Table,
    rows: Rows,
    keys: tuple[str, ...],
    changes: tuple[str, ...],
    keep_if_null: tuple[str, ...] = (),
) -> None:
    """Updates of an existing row only ``changes``, and ``keep_if_null`` where the new value is not null."""
    if rows:
        connection.execute(_insert_or_update(connection.dialect.name, table, keys, changes, keep_if_null), rows)


# Cached: making a statement takes several times longer than executing it.


@cache
def _insert_or_ignore(dialect: str, table: Table, keys: tuple[str, ...]) -> Any:
    return _insert(dialect, table).on_conflict_do_nothing(index_elements=keys)


@cache
def _insert_or_update(
    dialect: str, table: Table, keys: tuple[str, ...], changes: tuple[str, ...], keep_if_null: tuple[str, ...]
) -> Any:
    insert = _insert(dialect, table)
    new = {name: insert.excluded[name] for name in changes}
    new |= {name: func.coalesce(insert.excluded[name], table.c[name]) for name in keep_if_null}
    return insert.on_conflict_do_update(index_elements=keys, set_=new)


def _insert(dialect: str, table: Table) -> Any:
    """Both dialects spell it alike, but have no common type for it."""
    if dialect == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - heavy, and mostly not needed

    return postgresql.insert(table)
