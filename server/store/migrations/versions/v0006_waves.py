"""Waves of a roll-out: whose turn it is when, and how far a campaign has come."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns: what was submitted before has one wave, which has begun."""
    op.add_column("task", sa.Column("wave", sa.BigInteger, nullable=False, server_default="0"))
    for name, before in (("open_waves", "1"), ("accepted_waves", "0")):
        column = sa.Column(name, sa.BigInteger, nullable=False, server_default=before)
        op.add_column("campaign", column)
    reason = sa.Column("halt_reason", sa.Text, nullable=False, server_default="")
    op.add_column("campaign", reason)
