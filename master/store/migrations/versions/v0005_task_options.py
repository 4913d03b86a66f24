"""Fields of a task's request that have no column of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("options", sa.Text(), nullable=True))
