"""How often the tasks of a campaign were changed, so that a pass need not read them again."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Add a column: counting begins now."""
    changes = sa.Column("task_changes", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("campaign", changes)
