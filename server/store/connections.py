"""Connections to the database, kept open, and what each begins with."""

import sqlite3
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

_WRITES = "disinherit_writes"
_FILE = "disinherit_file"
_POOL: Mapping[str, Any] = {"pool_size": 15, "max_overflow": 0, "pool_use_lifo": True}
"""Connections that stay open once they were needed: to open one takes longer than most reads."""

_USED = "disinherit_used"
_REST_SECONDS = 0.5
"""How long a connection to a server is unused before it is asked whether it still is one."""

WAIT_SECONDS = 30
"""How long a writer waits for others."""


def close_late(closed: threading.Event, connection: object, record: ConnectionPoolEntry) -> None:
    """Close a connection that is returned after the pool was disposed of."""
    if closed.is_set():
        record.invalidate()


def open_sqlite(address: URL, file: Path | None) -> tuple[Engine, Engine]:
    """Return what begins transactions on SQLite that read, and such that write.

    Args:
        address: where.
        file: its file; `None` in memory.
    """
    engine = create_engine(address, **({} if file is None else _POOL))
    if file is not None:
        _hold_on_to(engine, file)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine, engine.execution_options(**{_WRITES: True})


def open_server(address: URL) -> tuple[Engine, Engine]:
    """Return what begins transactions on a server that read, and such that write."""
    engine = create_engine(address, **_POOL)
    event.listen(engine, "connect", _configure_server)
    _ask_after_rest(engine)
    # A writer must see what was committed while it waited.
    return (
        engine.execution_options(isolation_level="REPEATABLE READ"),
        engine.execution_options(isolation_level="READ COMMITTED"),
    )


def _configure_server(connection: Any, _: object) -> None:
    """Have rows looked up by their keys, as all statements but those of whole tables do.

    A server that has not counted the rows since most of them came, as in its first hour, expects
    joins of whole tables, and reads these for each generation of a recursive query: 32 ms for 45
    descendants among 13,000 edges, where 0.4 are enough.
    """
    connection.autocommit = True
    cursor = connection.cursor()
    for setting in ("enable_hashjoin = off", "enable_mergejoin = off", "random_page_cost = 1.1"):
        cursor.execute(f"SET {setting}")
    cursor.close()
    connection.autocommit = False


def _ask_after_rest(engine: Engine) -> None:
    """Replace connections that the server has ended: ask those that have rested for a moment.

    To ask each time would take as long as most reads.
    """

    def used(_: object, record: Any) -> None:
        record.info[_USED] = time.monotonic()

    def checked_out(connection: Any, record: Any, _: object) -> None:
        if time.monotonic() - record.info[_USED] < _REST_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError("the server has ended it") from error

    event.listen(engine, "connect", used)
    event.listen(engine, "checkin", used)
    event.listen(engine, "checkout", checked_out)


def _hold_on_to(engine: Engine, file: Path) -> None:
    """Keep all connections on the same file: refuse to create it again, or to use another."""
    made = False

    def connect(_: object, __: object, arguments: list[Any], options: dict[str, Any]) -> None:
        if made:
            arguments[0] = f"{file.absolute().as_uri()}?mode=rw"
            options["uri"] = True

    def connected(_: object, record: Any) -> None:
        nonlocal made
        made = True
        record.info[_FILE] = _identity(file)

    def checked_out(_: object, record: Any, __: object) -> None:
        if record.info[_FILE] != _identity(file):
            raise DisconnectionError(f"{file} is gone, or another file")

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "connect", connected)
    event.listen(engine, "checkout", checked_out)


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _configure_sqlite(connection: Any, _: object) -> None:
    # By default the driver begins a transaction only before the first write, so that earlier reads
    # may be outdated.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={1000 * WAIT_SECONDS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    begin = "BEGIN IMMEDIATE" if writes else "BEGIN"
    if connection.dispatch.before_cursor_execute:  # somebody wants to know of every statement
        connection.exec_driver_sql(begin)
        return
    # By the driver: as a statement of SQLAlchemy it takes ten times as long.
    driver: Any = connection.connection.driver_connection
    try:
        driver.execute(begin)
    except sqlite3.Error as error:
        raise DBAPIError.instance(begin, (), error, sqlite3.Error) from error
