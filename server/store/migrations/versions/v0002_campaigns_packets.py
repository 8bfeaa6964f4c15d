"""States of campaigns, leases of those who drive them, and answers of roots.

A request that was there before has a campaign that is complete if all of its tasks are settled, and
running otherwise.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_CAMPAIGNS_OF_KNOWN_REQUESTS = """
INSERT INTO campaign (
    request_id, state, deadline_us, updated_us, lease_token, lease_holder, lease_until_us
)
SELECT
    id,
    CASE WHEN EXISTS (
        SELECT 1 FROM task WHERE request_id = id AND state NOT IN ('verified', 'exempt')
    ) THEN 'running' ELSE 'complete' END,
    0, created_us, 0, '', 0
FROM request
"""


def upgrade() -> None:
    """Make the tables, and a campaign for every request."""
    identifier = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
    op.create_table(
        "campaign",
        sa.Column("request_id", identifier, sa.ForeignKey("request.id"), primary_key=True),
        sa.Column("state", sa.String(24), nullable=False),
        sa.Column("deadline_us", sa.BigInteger, nullable=False),
        sa.Column("updated_us", sa.BigInteger, nullable=False),
        sa.Column("lease_token", sa.BigInteger, nullable=False),
        sa.Column("lease_holder", sa.Text, nullable=False),
        sa.Column("lease_until_us", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "packet",
        sa.Column("request_id", identifier, sa.ForeignKey("request.id"), primary_key=True),
        sa.Column("root", identifier, sa.ForeignKey("model.id"), primary_key=True),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("digest", sa.String(64), nullable=False, index=True),
        sa.Column("packet", sa.LargeBinary, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
    )
    op.execute(_CAMPAIGNS_OF_KNOWN_REQUESTS)
