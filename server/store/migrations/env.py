"""The script that alembic runs: it applies revisions in the transaction that the store gives."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
