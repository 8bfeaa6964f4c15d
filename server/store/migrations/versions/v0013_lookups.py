"""Indexes for the order of requests, and for the tasks of a version in whichever request."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add both."""
    op.create_index("ix_request_age", "request", ["created_us", "id"])
    op.create_index("ix_task_model", "task", ["model_id"])
