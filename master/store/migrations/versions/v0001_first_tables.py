"""The first tables: workers, tasks, attempts, events and logs."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
JSON = sa.Text()
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
BIG, BOOLEAN, BYTES, INTEGER = sa.BigInteger(), sa.Boolean(), sa.LargeBinary(), sa.Integer()
DOUBLE: sa.Double[float] = sa.Double()


def upgrade() -> None:
    op.create_table(
        "workers",
        *_required(worker_id=WORDS, hostname=WORDS, labels=JSON),
        *_optional(seen_at=DOUBLE, drain_reason=WORDS, drained_since=DOUBLE),
        sa.PrimaryKeyConstraint("worker_id", name="pk_workers"),
    )
    op.create_table(
        "tasks",
        sa.Column("sequence", ROW_NUMBER, autoincrement=True, nullable=False),
        *_required(task_id=WORDS),
        *_optional(idempotency_key=WORDS, idempotency_digest=WORDS),
        *_required(docker_image=WORDS, name=WORDS, command=JSON, env=JSON),
        *_required(
            cpu_required=DOUBLE, memory_required=BIG, gpu_required=INTEGER, priority=INTEGER, max_retries=INTEGER
        ),
        *_optional(timeout_seconds=DOUBLE),
        *_required(
            labels=JSON, constraints=JSON, status=WORDS, created_at=DOUBLE, attempt=INTEGER, retries_used=INTEGER
        ),
        *_optional(not_before=DOUBLE, cancel_requested_at=DOUBLE, pending_at=DOUBLE, running_at=DOUBLE),
        *_optional(finished_at=DOUBLE, exit_code=INTEGER, oom_killed=BOOLEAN, reason=WORDS, error=WORDS),
        *_optional(worker_id=WORDS),
        *_required(logs_pruned=BOOLEAN),
        sa.PrimaryKeyConstraint("sequence", name="pk_tasks"),
        sa.UniqueConstraint("idempotency_key", name="uq_tasks_idempotency_key"),
        sa.UniqueConstraint("task_id", name="uq_tasks_task_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_tasks_finished_at", "tasks", ["logs_pruned", "finished_at"])
    op.create_index("ix_tasks_name", "tasks", ["name", "sequence", "status", "worker_id"])
    op.create_index("ix_tasks_status", "tasks", ["status", "sequence", "name"])
    op.create_index("ix_tasks_worker_id", "tasks", ["worker_id", "status", "sequence", "name"])
    op.create_table(
        "attempts",
        *_required(task_id=WORDS, attempt=INTEGER, worker_id=WORDS, status=WORDS, assigned_at=DOUBLE, gpu_uuids=JSON),
        *_optional(preparing_at=DOUBLE, running_at=DOUBLE, finished_at=DOUBLE, container_id=WORDS, exit_code=INTEGER),
        *_optional(oom_killed=BOOLEAN, reason=WORDS, error=WORDS, log_expired_bytes=BIG),
        sa.PrimaryKeyConstraint("task_id", "attempt", name="pk_attempts"),
    )
    op.create_index("ix_attempts_worker_id", "attempts", ["worker_id", "assigned_at"])
    op.create_table(
        "events",
        *_required(event_id=ROW_NUMBER, task_id=WORDS, attempt=INTEGER, time=DOUBLE, kind=WORDS, message=WORDS),
        sa.PrimaryKeyConstraint("event_id", name="pk_events"),
    )
    op.create_index("ix_events_task_id", "events", ["task_id", "event_id"])
    op.create_table(
        "log_chunks",
        *_required(task_id=WORDS, attempt=INTEGER, start_offset=BIG, end_offset=BIG, data=BYTES),
        sa.PrimaryKeyConstraint("task_id", "attempt", "start_offset", name="pk_log_chunks"),
    )


def _required(**types: Any) -> list["sa.Column[Any]"]:
    return [sa.Column(name, kind, autoincrement=False, nullable=False) for name, kind in types.items()]


def _optional(**types: Any) -> list["sa.Column[Any]"]:
    return [sa.Column(name, kind, nullable=True) for name, kind in types.items()]
