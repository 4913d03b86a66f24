"""The first tables: workers, tasks, attempts, events and logs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
JSON = sa.Text()
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _workers()
    _tasks()
    _attempts()
    _events()
    _logs()


def _workers() -> None:
    op.create_table(
        "workers",
        sa.Column("worker_id", WORDS, nullable=False),
        sa.Column("hostname", WORDS, nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=True),
        sa.Column("drain_reason", WORDS, nullable=True),
        sa.Column("drained_since", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("worker_id", name="pk_workers"),
    )


def _tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("sequence", ROW_NUMBER, autoincrement=True, nullable=False),
        sa.Column("task_id", WORDS, nullable=False),
        sa.Column("idempotency_key", WORDS, nullable=True),
        sa.Column("idempotency_digest", WORDS, nullable=True),
        sa.Column("docker_image", WORDS, nullable=False),
        sa.Column("name", WORDS, nullable=False),
        sa.Column("command", JSON, nullable=False),
        sa.Column("env", JSON, nullable=False),
        sa.Column("cpu_required", sa.Double(), nullable=False),
        sa.Column("memory_required", sa.BigInteger(), nullable=False),
        sa.Column("gpu_required", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("max_retries", sa.Integer(), nullable=False),
        sa.Column("timeout_seconds", sa.Double(), nullable=True),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("constraints", JSON, nullable=False),
        sa.Column("status", WORDS, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("retries_used", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.Double(), nullable=True),
        sa.Column("cancel_requested_at", sa.Double(), nullable=True),
        sa.Column("pending_at", sa.Double(), nullable=True),
        sa.Column("running_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("oom_killed", sa.Boolean(), nullable=True),
        sa.Column("reason", WORDS, nullable=True),
        sa.Column("error", WORDS, nullable=True),
        sa.Column("worker_id", WORDS, nullable=True),
        sa.Column("logs_pruned", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_tasks"),
        sa.UniqueConstraint("idempotency_key", name="uq_tasks_idempotency_key"),
        sa.UniqueConstraint("task_id", name="uq_tasks_task_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_tasks_finished_at", "tasks", ["logs_pruned", "finished_at"])
    op.create_index("ix_tasks_name", "tasks", ["name", "sequence", "status", "worker_id"])
    op.create_index("ix_tasks_status", "tasks", ["status", "sequence", "name"])
    op.create_index("ix_tasks_worker_id", "tasks", ["worker_id", "status", "sequence", "name"])


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("task_id", WORDS, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("worker_id", WORDS, nullable=False),
        sa.Column("status", WORDS, nullable=False),
        sa.Column("assigned_at", sa.Double(), nullable=False),
        sa.Column("gpu_uuids", JSON, nullable=False),
        sa.Column("preparing_at", sa.Double(), nullable=True),
        sa.Column("running_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("container_id", WORDS, nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("oom_killed", sa.Boolean(), nullable=True),
        sa.Column("reason", WORDS, nullable=True),
        sa.Column("error", WORDS, nullable=True),
        sa.Column("log_expired_bytes", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("task_id", "attempt", name="pk_attempts"),
    )
    op.create_index("ix_attempts_worker_id", "attempts", ["worker_id", "assigned_at"])


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("event_id", ROW_NUMBER, autoincrement=False, nullable=False),
        sa.Column("task_id", WORDS, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("kind", WORDS, nullable=False),
        sa.Column("message", WORDS, nullable=False),
        sa.PrimaryKeyConstraint("event_id", name="pk_events"),
    )
    op.create_index("ix_events_task_id", "events", ["task_id", "event_id"])


def _logs() -> None:
    op.create_table(
        "log_chunks",
        sa.Column("task_id", WORDS, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("start_offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("end_offset", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "attempt", "start_offset", name="pk_log_chunks"),
    )
