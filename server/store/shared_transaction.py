"""Transactions that several writers share: one commit, one wait for the disk, for all that wait.

Writers have their turn one after the other, each in a savepoint of its own, so that one that fails
takes nothing of the others with it.  None of them hears that it has written before all of it is
durable; and if that fails, all of them hear of it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

_MOST = 64
"""Writers that share a transaction."""

_SECONDS = 0.05
"""How long a transaction takes in further writers."""

_LEFT_SECONDS = 0.5
"""How long it takes to look whether a transaction was left open by whoever was to go on with it."""

LOG_ENDS = "disinherit_log_ends"
"""Key of what a transaction knows of the end of the audit log, in `Connection.info`."""


class SharedTransaction:
    """A transaction that excludes all other writers; its parts are used one at a time.

    Args:
        connection: its connection, in no transaction yet.
        prepare: called with the connection once the transaction has begun.
    """

    def __init__(self, connection: Connection, prepare: Callable[[Connection], None]) -> None:
        self._connection = connection
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._parts = 0
        self._until = time.monotonic() + _SECONDS
        try:
            self._transaction = connection.begin()
            connection.info[LOG_ENDS] = {}
            prepare(connection)
        except BaseException:
            self._close()
            raise

    @property
    def ended(self) -> bool:
        """Whether it was committed or rolled back."""
        return self._ended.is_set()

    @property
    def full(self) -> bool:
        """Whether it takes in no further writer."""
        return self._parts >= _MOST or time.monotonic() > self._until

    @contextmanager
    def part(self) -> Iterator[Connection]:
        """Begin the part of one writer, of which nothing is written if the block fails.

        If the first part fails, the transaction ends.
        """
        first, self._parts = not self._parts, self._parts + 1
        if first:
            try:
                yield self._connection
            except BaseException:
                self._close()
                raise
            return
        try:
            _begin(self._connection)
        except BaseException as error:
            self._fail(error)
            raise
        try:
            yield self._connection
        except BaseException as error:
            try:
                _take_back(self._connection)
            except SQLAlchemyError:
                self._fail(error)
            if self._connection.invalidated:
                self._fail(error)
            raise
        try:
            _keep(self._connection)
        except BaseException as error:
            self._fail(error)
            raise

    def commit(self) -> None:
        """Commit all parts; `wait` says whether that has succeeded."""
        try:
            self._transaction.commit()
        except BaseException as error:
            self._fail(error)
            return
        self._close()

    def wait(self, seconds: float = _LEFT_SECONDS) -> bool:
        """Wait until all parts are durable, and return whether they are.

        Args:
            seconds: how long to wait.

        Raises:
            SQLAlchemyError: if nothing of any part is written.
        """
        ended = self._ended.wait(seconds)
        if ended and self._error is not None:
            raise self._error
        return ended

    def _fail(self, error: BaseException) -> None:
        self._error = error
        with suppress(SQLAlchemyError):
            self._connection.invalidate()  # nobody knows in which transaction it is
        self._close()

    def _close(self) -> None:
        """Roll back what is not committed, and give the connection back."""
        with suppress(SQLAlchemyError):
            if not self._connection.invalidated:
                self._connection.info.pop(LOG_ENDS, None)
            self._connection.close()
        self._ended.set()


@contextmanager
def savepoint(db: Connection) -> Iterator[None]:
    """Write nothing of a block that fails; the transaction goes on as it was before.

    Args:
        db: a transaction that writes.
    """
    _begin(db)
    try:
        yield
    except BaseException:
        _take_back(db)
        raise
    _keep(db)


# Plain text: SQLAlchemy's own savepoints take as long as what is written in them.
def _begin(db: Connection) -> None:
    db.exec_driver_sql("SAVEPOINT part")


def _keep(db: Connection) -> None:
    db.exec_driver_sql("RELEASE SAVEPOINT part")


def _take_back(db: Connection) -> None:
    db.exec_driver_sql("ROLLBACK TO SAVEPOINT part")
    db.exec_driver_sql("RELEASE SAVEPOINT part")
    db.info[LOG_ENDS] = {}
