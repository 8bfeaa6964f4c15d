"""Losses found in the log, and the number of times that a person confirmed one."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the table: of what was before, nothing is known to be lost."""
    op.create_table(
        "history",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("lost", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
    )
