"""Presence of owners, when they were told of a request, and deliveries of webhooks."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add tables and a column: who was told when is not known of requests from before."""
    owner = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
    op.create_table(
        "presence",
        sa.Column("owner", owner, primary_key=True),
        sa.Column("way", sa.String(16), nullable=False),
        sa.Column("online", sa.BigInteger, nullable=False),
        sa.Column("seen_us", sa.BigInteger, nullable=False),
        sa.Column("release", sa.String(64), nullable=False),
        sa.Column("hours", sa.String(16), nullable=False),
    )
    told = sa.Column("told_us", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("task", told)
    op.create_table(
        "webhook",
        sa.Column("hook", sa.String(64), primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "webhook_delivery",
        sa.Column("hook", sa.String(64), primary_key=True),
        sa.Column("event", sa.String(32), primary_key=True),
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("occasion", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("due_us", sa.BigInteger, nullable=False),
        sa.Column("delivered_us", sa.BigInteger, nullable=False),
        sa.Index("ix_webhook_due", "hook", "due_us"),
    )
