"""What a task says of its confinement; and the names in its environment beside the environment, which is sealed from
now on. The rows that there are get sealed when the master opens the database: it has the key."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("tasks", sa.Column("env_names", sa.Text(), nullable=True))
    op.add_column("tasks", sa.Column("read_only", sa.Boolean(), nullable=True))
    op.add_column("tasks", sa.Column("user", WORDS, nullable=True))
    op.add_column("tasks", sa.Column("network", WORDS, nullable=True))
    in_the_clear = sa.text("env_names IS NULL")
    op.create_index(
        "ix_tasks_in_the_clear", "tasks", ["sequence"], sqlite_where=in_the_clear, postgresql_where=in_the_clear
    )
