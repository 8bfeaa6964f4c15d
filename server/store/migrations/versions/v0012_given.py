"""The latest creation time that an owner was given for what it makes of a version."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add a column: of messages from before it is not known."""
    given = sa.Column("given_us", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("task", given)
