"""Access to the enrolment of a service, through its configuration file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disinherit.common.errors import InputError
from disinherit.common.files import kept_private
from disinherit.server.agents.authority import CertificateAuthority
from disinherit.server.agents.enrolment import Enrolment
from disinherit.server.service.settings import ServeSettings, read_settings
from disinherit.server.store.database import Database


@contextmanager
def open_enrolment(config: Path) -> Iterator[tuple[Enrolment, ServeSettings]]:
    """Open the enrolment of a service during the block.

    Args:
        config: the configuration of `disinherit serve`; the service need not run.

    Yields:
        The enrolment and the settings.

    Raises:
        InputError: if the configuration cannot be used, or has no agents.
        StoreError: if the database or the authority cannot be used.
    """
    settings = read_settings(config, {}, {})
    if settings.agents is None:
        raise InputError(f"Expected a table [agents] in {str(config)!r}, but got none.")
    with kept_private():
        authority = CertificateAuthority.open(settings.agents.authority)
        database = Database(settings.database)
        try:
            yield Enrolment(database, authority), settings
        finally:
            database.close()
