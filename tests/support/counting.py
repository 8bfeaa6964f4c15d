"""What a piece of work asks of a database, statement by statement."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine

_WRITES = ("INSERT", "UPDATE", "DELETE")
_READS = ("SELECT", "WITH")
_EXCLUDES = ("BEGIN IMMEDIATE", "SELECT pg_advisory_xact_lock")


class Counted:
    """Transactions in the order in which they ended, each the statements that it executed."""

    def __init__(self) -> None:
        self.transactions: list[list[str]] = []

    @property
    def empty(self) -> list[list[str]]:
        """Those that neither read nor wrote, or excluded all others and wrote nothing."""
        return [
            statements
            for statements in self.transactions
            if not _count(statements, _WRITES)
            and (any(map(_excludes, statements)) or not _count(statements, _READS))
        ]

    @property
    def selects(self) -> int:
        """How many statements read."""
        return sum(_count(statements, _READS) for statements in self.transactions)


def _count(statements: list[str], kinds: tuple[str, ...]) -> int:
    return sum(s.split()[0] in kinds for s in statements if not _excludes(s))


def _excludes(statement: str) -> bool:
    """Whether it makes all others who write wait, and nothing else."""
    return statement.startswith(_EXCLUDES)


@contextmanager
def counting() -> Iterator[Counted]:
    """Count the transactions on all databases of this process."""
    counted = Counted()
    begun: dict[Connection, list[str]] = {}

    def begin(connection: Connection) -> None:
        begun[connection] = []

    def execute(connection: Connection, _: object, statement: str, *__: object) -> None:
        begun.setdefault(connection, []).append(statement)

    def end(connection: Connection) -> None:
        counted.transactions.append(begun.pop(connection, []))

    listeners: dict[str, Callable[..., None]] = {
        "begin": begin,
        "before_cursor_execute": execute,
        "commit": end,
        "rollback": end,
    }
    for name, listener in listeners.items():
        event.listen(Engine, name, listener)
    try:
        yield counted
    finally:
        for name, listener in listeners.items():
            event.remove(Engine, name, listener)
