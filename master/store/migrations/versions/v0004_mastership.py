"""Which master was the last to open the database."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

WORDS = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "mastership",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("master", WORDS, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_mastership"),
    )
