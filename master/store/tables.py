"""The tables as the newest migration leaves them (a test compares the two), and inserts for both databases.

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


class SafeText(TypeDecorator[str]):
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


def _key(**types: Any) -> list["Column[Any]"]:
    return [Column(name, kind, primary_key=True, autoincrement=False) for name, kind in types.items()]


def _required(**types: Any) -> list["Column[Any]"]:
    return [Column(name, kind, nullable=False) for name, kind in types.items()]


def _optional(**types: Any) -> list["Column[Any]"]:
    return [Column(name, kind, nullable=True) for name, kind in types.items()]


workers = Table(
    "workers",
    metadata,
    *_key(worker_id=SafeText),
    *_required(hostname=SafeText, labels=Json),
    *_optional(seen_at=Double, drain_reason=SafeText, drained_since=Double),
)

tasks = Table(
    "tasks",
    metadata,
    # The order in which tasks were accepted. Never given to another task.
    Column("sequence", RowNumber, primary_key=True, autoincrement=True),
    Column("task_id", SafeText, nullable=False, unique=True),
    Column("idempotency_key", SafeText, nullable=True, unique=True),
    *_optional(idempotency_digest=SafeText),
    # The request. ``env`` is encrypted by ``Encryptor``; a row of an older version has it as JSON, without its names.
    # ``options`` are the fields that have no column of their own, by name.
    *_required(docker_image=SafeText, name=SafeText, command=Json, env=Text),
    *_optional(env_names=Json),
    *_required(cpu_required=Double, memory_required=BigInteger, gpu_required=Integer),
    *_required(priority=Integer, max_retries=Integer),
    *_optional(timeout_seconds=Double),
    *_required(labels=Json, constraints=Json),
    *_optional(read_only=Boolean, user=SafeText, network=SafeText, options=Json, submitter=SafeText),
    # The state.
    *_required(status=SafeText, created_at=Double, attempt=Integer, retries_used=Integer),
    *_optional(not_before=Double, cancel_requested_at=Double, pending_at=Double, running_at=Double, finished_at=Double),
    *_optional(exit_code=Integer, oom_killed=Boolean, reason=SafeText, error=SafeText),
    # Of the newest attempt; here too, so that a page of a worker's tasks is one range of an index.
    *_optional(worker_id=SafeText),
    *_required(logs_pruned=Boolean),
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
    *_key(task_id=SafeText, attempt=Integer),
    *_required(worker_id=SafeText, status=SafeText, assigned_at=Double, gpu_uuids=Json),
    *_optional(preparing_at=Double, running_at=Double, finished_at=Double, container_id=SafeText),
    *_optional(exit_code=Integer, oom_killed=Boolean, reason=SafeText, error=SafeText),
    # The length of a log that has been pruned; NULL while it is there, or when there never was one.
    *_optional(log_expired_bytes=BigInteger),
)
Index("ix_attempts_worker_id", attempts.c.worker_id, attempts.c.assigned_at)

events = Table(
    "events",
    metadata,
    *_key(event_id=RowNumber),  # growing; given by the store before the first try to write
    *_required(task_id=SafeText, attempt=Integer, time=Double, kind=SafeText, message=SafeText),
)
Index("ix_events_task_id", events.c.task_id, events.c.event_id)

log_chunks = Table(
    "log_chunks",
    metadata,
    *_key(task_id=SafeText, attempt=Integer, start_offset=BigInteger),
    *_required(end_offset=BigInteger, data=LargeBinary),
)

# One row on PostgreSQL: the fencing token of the master that opened the database last.
mastership = Table("mastership", metadata, *_key(number=Integer), *_required(master=SafeText))

# Both hold points as ``master.history.points`` packs them; times are whole Unix seconds.
history_journal = Table(
    "history_journal",
    metadata,
    Column("number", RowNumber, primary_key=True, autoincrement=True),  # the order of writing
    *_required(step=Integer, newest=BigInteger, data=LargeBinary),
)
history_chunks = Table(
    "history_chunks",
    metadata,
    *_key(worker_id=SafeText, step=Integer, first=BigInteger),
    *_required(last=BigInteger, data=LargeBinary),
)
Index("ix_history_chunks_last", history_chunks.c.step, history_chunks.c.last)


def upsert(
    connection: Connection,
    table: Table,
    rows: Rows,
    keys: tuple[str, ...],
    changes: tuple[str, ...] = (),
    keep_if_null: tuple[str, ...] = (),
) -> None:
    """Inserts rows. Of one that exists, updates ``changes``, and ``keep_if_null`` where the new value is not null."""
    if rows:
        connection.execute(_upsert(connection.dialect.name, table, keys, changes, keep_if_null), rows)


@cache  # making a statement takes several times longer than executing it
def _upsert(
    dialect: str, table: Table, keys: tuple[str, ...], changes: tuple[str, ...], keep_if_null: tuple[str, ...]
) -> Any:
    insert = _insert(dialect, table)
    new = {name: insert.excluded[name] for name in changes}
    new |= {name: func.coalesce(insert.excluded[name], table.c[name]) for name in keep_if_null}
    if new:
        return insert.on_conflict_do_update(index_elements=keys, set_=new)
    return insert.on_conflict_do_nothing(index_elements=keys)


def _insert(dialect: str, table: Table) -> Any:
    """Both dialects spell it alike, but have no common type for it."""
    if dialect == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - heavy, and mostly not needed

    return postgresql.insert(table)
