"""The audit log. It begins empty: what was done before is not in it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0002"


def upgrade() -> None:
    """Make the table."""
    identifier = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
    op.create_table(
        "audit",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("request_id", identifier, nullable=False),
        sa.Column("model_id", identifier, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("entry", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_audit_request", "audit", ["request_id", "sequence"])
    op.create_index("ix_audit_model", "audit", ["request_id", "model_id", "kind"])
