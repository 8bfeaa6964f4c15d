"""One database: what names one, and its connections when it is closed."""

import gc
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from disinherit.common.errors import StoreError
from disinherit.server.store.database import Database
from disinherit.server.store.store import CoordinatorStore


@contextmanager
def no_open_connection_is_dropped() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", ResourceWarning)
        yield
        gc.collect()
    assert [str(one.message) for one in found if one.category is ResourceWarning] == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("coordinator.db", "'coordinator.db'"),
        ("", "''"),
        (3, "'3'"),
        (None, "'None'"),
        ("postgresql://anna:hunter2@host:port/db", "something else"),
    ],
)
def test_what_is_neither_url_nor_path_is_refused_in_one_line(url: Any, shown: str) -> None:
    with pytest.raises(StoreError) as refused:
        CoordinatorStore(url)
    assert str(refused.value) == (
        "Expected an SQLAlchemy URL such as sqlite:///coordinator.db, or a pathlib.Path, as the "
        f"coordinator's database, but got {shown}. Write Path(...) for a file."
    )


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


def test_one_thread_reads_at_a_time(database: str | None, tmp_path: Path) -> None:
    """Else each of many readers lets another in after each row, and writers wait behind them."""
    opened = Database(database or tmp_path / "c.db")
    inside, most = 0, 0

    def read() -> None:
        nonlocal inside, most
        for _ in range(20):
            with opened.reading() as db:
                inside += 1
                most = max(most, inside)
                db.execute(text("SELECT 1"))
                inside -= 1

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert (inside, most) == (0, 1)
    opened.close()


def test_who_is_in_a_transaction_waits_for_no_reader(tmp_path: Path) -> None:
    database = Database(tmp_path / "c.db")
    begun, over = threading.Event(), threading.Event()

    def read() -> None:
        with database.reading():
            begun.set()
            over.wait(30.0)

    with database.writing() as db:
        db.execute(text("CREATE TABLE thing (id INTEGER)"))
    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(30.0)
    with database.writing() as db, database.reading() as other:
        db.execute(text("INSERT INTO thing VALUES (1)"))
        assert other.execute(text("SELECT count(*) FROM thing")).scalar() == 0
    assert not over.is_set()
    over.set()
    reader.join(30.0)
    with database.reading() as db, database.reading():
        assert db.execute(text("SELECT count(*) FROM thing")).scalar() == 1
    database.close()
