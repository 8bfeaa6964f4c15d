"""Versions by the SHA-256 of their weights, tasks by owner, and what owners were told to make."""

import sqlalchemy as sa
from alembic import op

from disinherit.v1.graph_pb2 import ModelRecord

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the column and the table, and fill the column from the records."""
    identifier = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
    digest = sa.Column("digest", sa.String(64), nullable=False, server_default="")
    op.add_column("model", digest)
    op.create_index("ix_model_digest", "model", ["digest"])
    op.create_index("ix_task_owner", "task", ["owner", "state"])
    op.create_index("ix_campaign_state", "campaign", ["state"])
    op.create_table(
        "announced",
        sa.Column("model_id", identifier, primary_key=True),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("start_id", identifier, nullable=False),
    )
    db = op.get_bind()
    model = sa.table("model", *map(sa.column, ("id", "record", "digest")))
    ids = db.scalars(sa.select(model.c.id)).all()
    changed = sa.update(model).where(model.c.id == sa.bindparam("of_model"))
    for start in range(0, len(ids), 500):
        some = sa.select(model.c.id, model.c.record).where(model.c.id.in_(ids[start : start + 500]))
        rows = [
            {"of_model": row.id, "new": ModelRecord.FromString(row.record).digest}
            for row in db.execute(some)
        ]
        db.execute(changed.values(digest=sa.bindparam("new")), rows)
