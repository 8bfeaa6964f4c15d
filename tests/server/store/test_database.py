"""One database: its connections when it is closed."""

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import text

from disinherit.server.store.database import Database


@contextmanager
def no_open_connection_is_dropped() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", ResourceWarning)
        yield
        gc.collect()
    assert [str(one.message) for one in found if one.category is ResourceWarning] == []


def test_a_connection_that_is_in_use_when_all_are_closed_is_closed_afterwards(
    database: str | None, tmp_path: Path
) -> None:
    """A thread may read still when a service has stopped waiting for it."""
    with no_open_connection_is_dropped():
        opened = Database(database or tmp_path / "coordinator.db")
        with opened.reading() as late:
            late.execute(text("SELECT 1"))
            opened.close()
            assert late.execute(text("SELECT 1")).scalar() == 1  # it may end what it does
        del late, opened
