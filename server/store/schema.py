"""Schema revisions of the database, and upgrades to the latest."""

import logging
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from disinherit.common.errors import StoreError
from disinherit.server.store.database import Database

_LOG = logging.getLogger(__name__)

REVISIONS = (
    "0001",
    "0002",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
    "0012",
    "0013",
    "0014",
    "0015",
    "0016",
)
"""The revisions in `migrations/versions`, the oldest first."""

_VERSION_TABLE = "alembic_version"


def is_current(db: Connection) -> bool:
    """Return whether a database has the latest schema.

    Raises:
        StoreError: if a later version of Disinherit made its tables.
    """
    revision = find_revision(db)
    if revision is not None and revision not in REVISIONS:
        raise StoreError(
            f"Expected tables of revision {REVISIONS[-1]} or older, but got {revision!r}, made by "
            "a later version of Disinherit. Use that version, or another database."
        )
    return revision == REVISIONS[-1]


def upgrade(db: Connection) -> None:
    """Upgrade an empty or older database to the latest schema, in one transaction.

    Args:
        db: a transaction that writes.

    Raises:
        StoreError: if a later version of Disinherit made the tables.
    """
    if is_current(db):
        return
    # Imported here because it takes a second, and a database is upgraded once.
    from alembic import command
    from alembic.config import Config

    config = Config()
    folder = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.attributes["connection"] = db
    if find_revision(db) is None and inspect(db).has_table("model"):
        # From before there were revisions: its tables are those of the first.
        command.stamp(config, REVISIONS[0])
    command.upgrade(config, REVISIONS[-1])


def prepare(database: Database) -> None:
    """Upgrade a database to the latest schema unless it has it.

    Raises:
        StoreError: if it cannot be used, or a later version of Disinherit made its tables.
    """
    with database.reading() as db:
        current = is_current(db)
    if not current:
        with database.writing() as db:
            before = find_revision(db)
            upgrade(db)
        if before is not None:
            _LOG.info("the database was upgraded from revision %s to %s", before, REVISIONS[-1])


def find_revision(db: Connection) -> str | None:
    """Return the revision of a database's tables; `None` for an empty database."""
    if not inspect(db).has_table(_VERSION_TABLE):
        return None
    return db.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar()
