"""The inheritance graph, requests and the task of every affected model."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    identifier = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
    op.create_table(
        "model",
        sa.Column("id", identifier, primary_key=True),
        sa.Column("owner", sa.String(128), nullable=False, index=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("record", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "inheritance",
        sa.Column("parent", identifier, sa.ForeignKey("model.id"), primary_key=True),
        sa.Column("child", identifier, sa.ForeignKey("model.id"), primary_key=True, index=True),
        sa.Column("edge", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "request",
        sa.Column("id", identifier, primary_key=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("request", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "task",
        sa.Column("request_id", identifier, sa.ForeignKey("request.id"), primary_key=True),
        sa.Column("model_id", identifier, sa.ForeignKey("model.id"), primary_key=True),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("result", sa.LargeBinary, nullable=False),
        sa.Column("updated_us", sa.BigInteger, nullable=False),
    )
