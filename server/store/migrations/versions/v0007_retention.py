"""Times at which versions that a campaign superseded are to be destroyed, and were."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns: of what was done before, everything is kept."""
    for name in ("destroy_us", "destroyed_us"):
        column = sa.Column(name, sa.BigInteger, nullable=False, server_default="0")
        op.add_column("task", column)
    op.create_index("ix_task_destroy", "task", ["destroy_us"])
