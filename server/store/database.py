"""The database and its transactions: SQLite in WAL mode by default, PostgreSQL by URL.

On both, a transaction that writes excludes all other writers from its beginning, so its checks
still hold when it commits.  Writers of one process that wait may share one.  A transaction that
only reads sees one snapshot; one thread of a process reads at a time.

Only the first connection may create an SQLite file.  A file that is missing later is an error, and
so is one that was replaced: the open one would take writes that no other process can see.
"""

import functools
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, event, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from disinherit.common.errors import StoreError
from disinherit.common.extras import how_to_install, missing_extra
from disinherit.common.limits import shown
from disinherit.server.store.connections import (
    WAIT_SECONDS,
    close_late,
    open_server,
    open_sqlite,
)
from disinherit.server.store.shared_transaction import SharedTransaction


class FairLock:
    """A first-in, first-out lock for threads.

    A plain `threading.Lock` starves waiters: a thread that re-acquires immediately wins every time,
    and one that drives campaigns does so for every state that it stores.

    Args:
        places: how many threads hold it at a time.
    """

    def __init__(self, places: int = 1) -> None:
        self._lock = threading.Lock()
        self._free = places
        self._waiting: deque[threading.Event] = deque()

    @property
    def waiting(self) -> int:
        """The number of threads that wait for it."""
        return len(self._waiting)

    @contextmanager
    def taken(self, seconds: float) -> Iterator[bool]:
        """Hold the lock during the block.

        Args:
            seconds: how long to wait for it.

        Yields:
            Whether it was acquired within that time.
        """
        acquired = self._take(seconds)
        try:
            yield acquired
        finally:
            if acquired:
                self._give()

    def _take(self, seconds: float) -> bool:
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            called = threading.Event()
            self._waiting.append(called)
        try:
            if called.wait(seconds):
                return True
        except BaseException:  # whoever waits is interrupted
            with self._lock:
                came = called.is_set()
                if not came:
                    self._waiting.remove(called)
            if came:
                self._give()
            raise
        with self._lock:
            if called.is_set():  # handed over after the timeout
                return True
            self._waiting.remove(called)
            return False

    def _give(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()  # it stays taken, so no other thread cuts in
            else:
                self._free += 1


_READERS = 1
"""Threads of a process that read at a time.

Reading is computing, in this process, and the interpreter lets one thread compute at a time.  A
driver that reads lets another thread in after each row or answer of a server, so that many readers
pass the interpreter around, and writers, one at a time, wait behind all of them at each statement.
"""

_WRITERS_LOCK = 0x64697369  # any number, the same for all coordinators of a database
_LOCK_WRITERS = text("SELECT pg_advisory_xact_lock(:key)")


class Database:
    """Transactions on one database; errors in them become `StoreError`.

    Args:
        url: an SQLAlchemy URL, or the path of an SQLite file as a `Path`.

    Attributes:
        name: the database in messages, without its password.
        file: the SQLite file; `None` for any other database.
        observe: called after each transaction with `read` or `write` and its seconds, and with
            `wait` and the seconds that a writer of this process waited for its turn.

    Raises:
        StoreError: if the URL is malformed or its driver is not installed.
    """

    def __init__(self, url: str | Path) -> None:
        self.name = str(url)
        self.observe: Callable[[str, float], None] = lambda *_: None
        self._turns = FairLock()
        self._inside = threading.local()
        self._shared: SharedTransaction | None = None
        with self._errors():
            address = _address(url)
            if not isinstance(url, Path):
                self.name = address.render_as_string(hide_password=True)
            lite = address.get_backend_name() == "sqlite"
            in_memory = address.database in (None, "", ":memory:")
            self.file = Path(str(address.database)) if lite and not in_memory else None
            self._engine, self._writer = (
                open_sqlite(address, self.file) if lite else open_server(address)
            )
        self._readers = FairLock(_READERS)
        self._closed = threading.Event()
        event.listen(self._engine, "checkin", functools.partial(close_late, self._closed))
        # Not at exit: a store that lives as long as its process is never closed.
        weakref.finalize(self, self._engine.dispose).atexit = False

    def close(self) -> None:
        """Close all connections; those in use by other threads close when they are returned."""
        self._closed.set()
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Begin a transaction that only reads."""
        with (
            self._place_to_read(),
            self._timed("read"),
            self._errors(),
            self._engine.begin() as connection,
        ):
            yield connection

    @contextmanager
    def writing(self, *, together: bool = False) -> Iterator[Connection]:
        """Begin a transaction that excludes all other writers, and commit it after the block.

        Args:
            together: whether others that wait may write in the same transaction, so that all of
                them wait for the disk once.  The block is short, and takes no lock that a writer
                may hold.
        """
        raised: BaseException | None = None
        with self._errors():
            with self._in_turn(), self._timed("write"):
                shared = self._join(together=together)
                try:
                    with shared.part() as connection, self._placed():
                        yield connection
                except BaseException as error:
                    raised = error
                more = together and self._turns.waiting and not shared.full
                if not (more or shared.ended):
                    shared.commit()
                if shared.ended:
                    self._shared = None
            # What a block was refused for may be what another one has written.
            while not shared.wait():
                self._commit_left(shared)
            if raised is not None:
                raise raised

    def _commit_left(self, shared: SharedTransaction) -> None:
        """Commit a transaction that was left to writers who have given up waiting since."""
        with self._turns.taken(0.0) as mine:
            if mine and self._shared is shared:
                self._shared = None
                shared.commit()

    def _join(self, *, together: bool) -> SharedTransaction:
        """Return the transaction that others have left open, or begin one."""
        shared, self._shared = self._shared, None
        if shared is not None and not together:
            shared.commit()
            shared = None
        if shared is None:
            shared = SharedTransaction(self._writer.connect(), _exclude_writers)
        if together:
            self._shared = shared
        return shared

    def check_writable(self) -> None:
        """Check that the database accepts writes, without writing; another writer proves it, too.

        Raises:
            StoreError: if it does not.
        """
        with self._errors(), self._engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                # On the driver's connection, past `_begin_sqlite`, so that it does not wait.
                raw = connection.connection.driver_connection
                assert raw is not None
                raw.execute("PRAGMA busy_timeout=0")
                try:
                    raw.execute("BEGIN IMMEDIATE")
                    # Writes in memory only. BEGIN IMMEDIATE alone succeeds on a read-only file.
                    (version,) = raw.execute("PRAGMA user_version").fetchone()
                    raw.execute(f"PRAGMA user_version={version}")
                    raw.execute("ROLLBACK")
                except sqlite3.Error as error:
                    if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                        raise StoreError(
                            f"Expected to be able to write to {self.name!r}, but: {error}."
                        ) from error
            elif connection.scalar(text("SELECT current_setting('transaction_read_only')")) == "on":
                raise StoreError(
                    f"Expected to be able to write to {self.name!r}, but it is read-only."
                )

    @property
    def writers_waiting(self) -> int:
        """The number of this process's threads that wait to write."""
        return self._turns.waiting

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Let this process's threads write one by one, and wait without holding a connection.

        SQLite's waiters poll, which is unfair; on a server they would hold connections that readers
        need.
        """
        started = time.perf_counter()
        with self._turns.taken(WAIT_SECONDS) as acquired:
            self.observe("wait", time.perf_counter() - started)
            if not acquired:
                raise StoreError(
                    f"Expected to write to {self.name!r} within {WAIT_SECONDS} s, but another "
                    "thread is still writing. Try again."
                )
            yield

    @contextmanager
    def _place_to_read(self) -> Iterator[None]:
        """Wait for a place among the readers, unless this thread has one, or is writing."""
        if getattr(self._inside, "database", False):
            yield
            return
        with self._readers.taken(WAIT_SECONDS) as acquired:
            if not acquired:
                raise StoreError(
                    f"Expected to read {self.name!r} within {WAIT_SECONDS} s, but others are still "
                    "reading. Try again."
                )
            with self._placed():
                yield

    @contextmanager
    def _placed(self) -> Iterator[None]:
        """Note that this thread is in a transaction, and must wait for no reader."""
        before = getattr(self._inside, "database", False)
        self._inside.database = True
        try:
            yield
        finally:
            self._inside.database = before

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.observe(kind, time.perf_counter() - started)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, ImportError) as error:  # a driver that is not installed, too
            cause = str(getattr(error, "orig", None) or error).partition("\n")[0]
            extra = missing_extra(getattr(error, "name", None) or "", "serve")
            if extra is not None:
                cause += f". Run {how_to_install(extra)}"
            raise StoreError(
                f"Expected a usable coordinator database at {self.name!r}, but: {cause}."
            ) from error


def _address(url: str | Path) -> URL:
    if isinstance(url, Path):
        return URL.create("sqlite", database=str(url))
    try:
        return make_url(url)
    except (ArgumentError, ValueError):  # the latter of a port that is no number
        got = "something else" if "@" in str(url) else shown(str(url))  # it may have a password
        raise StoreError(
            "Expected an SQLAlchemy URL such as sqlite:///coordinator.db, or a pathlib.Path, as "
            f"the coordinator's database, but got {got}. Write Path(...) for a file."
        ) from None


def _exclude_writers(connection: Connection) -> None:
    """Let other processes wait, too; a file of SQLite is locked from the beginning."""
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK_WRITERS, {"key": _WRITERS_LOCK})
