"""The length of leases, when the clock was right, and the tables of enrolment.

The tables of enrolment were made beside the revisions before: where they are, they stay.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the column, and the tables that are not there."""
    length = sa.Column("lease_length_us", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("campaign", length)
    op.create_table(
        "clock",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("seen_us", sa.BigInteger, nullable=False),
        sa.Column("confirmed_us", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "enrolment_token",
        sa.Column("token_sha256", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("expires_us", sa.BigInteger, nullable=False),
        sa.Column("key_sha256", sa.String(64), nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "agent_key",
        sa.Column("key_sha256", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("enrolled_us", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "agent_revocation",
        sa.Column("owner", sa.String(128), primary_key=True),
        sa.Column("revoked_us", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
