"""Versions by the classes that they were trained on, and by age: found without reading the rest."""

import hashlib

import sqlalchemy as sa
from alembic import op

from disinherit.v1.graph_pb2 import ModelRecord

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table and the indexes, and fill the table from the records."""
    identifier = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
    holding = op.create_table(
        "holding",
        sa.Column("class_digest", sa.String(64), primary_key=True),
        sa.Column("model_id", identifier, sa.ForeignKey("model.id"), primary_key=True, index=True),
    )
    op.drop_index("ix_model_owner", "model")
    op.create_index("ix_model_age", "model", ["created_us", "id"])
    op.create_index("ix_model_owner_age", "model", ["owner", "created_us", "id"])
    db = op.get_bind()
    model = sa.table("model", sa.column("id"), sa.column("record"))
    ids = db.scalars(sa.select(model.c.id)).all()
    for start in range(0, len(ids), 500):
        some = sa.select(model).where(model.c.id.in_(ids[start : start + 500]))
        rows = [
            {"class_digest": hashlib.sha256(name.encode()).hexdigest(), "model_id": row.id}
            for row in db.execute(some)
            for name, count in _samples(row.record).items()
            if count
        ]
        if rows:
            db.execute(sa.insert(holding), rows)


def _samples(record: bytes) -> dict[str, int]:
    return dict(ModelRecord.FromString(record).provenance.samples_per_class)
