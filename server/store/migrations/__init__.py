"""How the coordinator's tables came to be, one revision per change (alembic)."""
