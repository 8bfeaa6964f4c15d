"""How fast agents of owners download, and the limits that they keep themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add columns: nothing was measured before."""
    for name in ("bytes_per_second", "downloaded_bytes", "download_us"):
        column = sa.Column(name, sa.BigInteger, nullable=False, server_default="0")
        op.add_column("presence", column)
