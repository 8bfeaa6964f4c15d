"""The database of a service, for what a person says on its machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disinherit.common.files import kept_private
from disinherit.server.service.settings import ServeSettings, read_settings
from disinherit.server.store.database import Database
from disinherit.server.store.schema import prepare

PERSON = "administrator"
"""Who acts, in the audit log."""


@contextmanager
def opened(config: Path) -> Iterator[tuple[Database, ServeSettings]]:
    """Open the database that a service's configuration names, for the time of the block.

    Args:
        config: the configuration of `disinherit serve`; the service may run.

    Yields:
        The database, with the latest tables, and the settings.

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
