"""The history of the coordinator's tables, one revision per change (alembic)."""
