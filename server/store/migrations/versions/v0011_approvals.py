"""Recorders of edges, approved plans, registrations of roots, and models that joined later."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add columns and a table: what was approved before, was so as it stood then."""
    recorded = sa.Column("recorded_by", sa.String(160), nullable=False, server_default="")
    op.add_column("inheritance", recorded)
    late = sa.Column("late", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("task", late)
    for name in ("submitted_plan", "approved_plan"):
        plan = sa.Column(name, sa.String(64), nullable=False, server_default="")
        op.add_column("campaign", plan)
    op.create_table(
        "planned_root",
        sa.Column("request_id", sa.String(128), sa.ForeignKey("request.id"), primary_key=True),
        sa.Column("model_id", sa.String(128), sa.ForeignKey("model.id"), primary_key=True),
        sa.Column("record", sa.LargeBinary, nullable=False),
    )
    op.execute(
        "UPDATE campaign SET submitted_plan = 'before' WHERE state = 'awaiting_approval' OR "
        "request_id IN (SELECT request_id FROM audit WHERE kind = 'approved')"
    )
