"""Access to a service's database for confirmations by an administrator on its machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disinherit.common.files import kept_private
from disinherit.server.service.settings import ServeSettings, read_settings
from disinherit.server.store.database import Database
from disinherit.server.store.schema import prepare

PERSON = "administrator"
"""The actor in the audit log."""


@contextmanager
def opened(config: Path) -> Iterator[tuple[Database, ServeSettings]]:
    """Open the database of a service's configuration during the block.

    Args:
        config: the configuration of `disinherit serve`; the service may run.

    Yields:
        The migrated database and the settings.

    Raises:
        InputError: if the configuration cannot be used.
        StoreError: if the database cannot be used.
    """
    settings = read_settings(config, {}, {})
    with kept_private():
        database = Database(settings.database)
        try:
            prepare(database)
            yield database, settings
        finally:
            database.close()
