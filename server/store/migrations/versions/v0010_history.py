"""Whether the log was found to have lost entries, and how often a person confirmed that."""

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
