"""Statements that are made often, as text that is made once, and given to the driver itself.

To find the text of a statement in its cache, the places of its values, and what each column of its
result is, SQLAlchemy takes ten times as long as SQLite takes to execute it.
"""

import threading
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import CompoundSelect, Connection, Delete, Insert, Select, Update
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

_MOST = 512
"""Texts that are kept of one query, for different numbers of values."""


T = TypeVar("T")


class Query:
    """A query whose text is made once for each number of values that it names.

    Args:
        statement: the query.
    """

    def __init__(self, statement: "Select[Any] | CompoundSelect[Any]") -> None:
        self._statement = statement
        self._made: dict[str, _Texts] = {}

    def all(self, db: Connection, values: Mapping[str, Any]) -> list[Any]:
        """Return the rows, as tuples with the names of their columns.

        Args:
            db: a transaction.
            values: name of a parameter -> its value, or its values where it stands for many.

        Raises:
            DBAPIError: if the database fails; so do the others.
        """
        made = self._texts(db)
        names, rows = _ask(db, made, values)
        return list(map(made.row(names), rows))

    def scalars(self, db: Connection, values: Mapping[str, Any]) -> list[Any]:
        """Return the first value of each row; arguments as for `all`."""
        return [row[0] for row in _ask(db, self._texts(db), values)[1]]

    def first(self, db: Connection, values: Mapping[str, Any]) -> Any:
        """Return the first row, or `None`; arguments as for `all`."""
        return next(iter(self.all(db, values)), None)

    def scalar(self, db: Connection, values: Mapping[str, Any]) -> Any:
        """Return the first value of the first row, or `None`; arguments as for `all`."""
        return next(iter(self.scalars(db, values)), None)

    def _texts(self, db: Connection) -> "_Texts":
        made = self._made.get(db.dialect.name)
        if made is None:
            made = self._made[db.dialect.name] = _Texts(self._statement, db.dialect)
        return made


class WriteQuery:
    """A statement that writes, whose text is made once (and once for each number of values).

    Args:
        statement: all that differs from time to time is a parameter of it, or a column of `run`.
    """

    def __init__(self, statement: "Insert | Update | Delete") -> None:
        self._statement = statement
        self._made: dict[str, _Texts] = {}

    def run(self, db: Connection, *rows: Mapping[str, Any]) -> int:
        """Execute it for each row of values, with one call of the driver.

        Args:
            db: a transaction that writes.
            rows: name of a parameter or column -> its value; all have the same names, each time.

        Returns:
            The number of rows that were changed.

        Raises:
            DBAPIError: if the database fails, or refuses it.
        """
        made = self._made.get(db.dialect.name)
        if made is None:
            made = self._made[db.dialect.name] = _Texts(self._statement, db.dialect, list(rows[0]))
        text, given = made.filled_rows(rows)
        if db.dispatch.before_cursor_execute:  # somebody wants to know of every statement
            return db.exec_driver_sql(text, given if len(rows) > 1 else given[0]).rowcount

        def run(cursor: Any) -> int:
            if len(given) > 1:
                cursor.executemany(text, given)
            else:
                cursor.execute(text, given[0])
            return int(cursor.rowcount)

        return _driven(db, text, given, run)


def _ask(
    db: Connection, made: "_Texts", values: Mapping[str, Any]
) -> tuple[Sequence[str], Sequence[Any]]:
    """Return the names of the columns, and the rows."""
    text, given = made.filled(values)
    if db.dispatch.before_cursor_execute:  # somebody wants to know of every statement
        result = db.exec_driver_sql(text, given)
        return list(result.keys()), result.all()

    def ask(cursor: Any) -> tuple[Sequence[str], Sequence[Any]]:
        cursor.execute(text, given)
        return [column[0] for column in cursor.description], cursor.fetchall()

    return _driven(db, text, given, ask)


def _driven(db: Connection, text: str, given: Any, use: Callable[[Any], T]) -> T:
    """Return what is done with a cursor of the driver, with its errors as SQLAlchemy's."""
    connection: Any = db.connection.driver_connection
    cursor = connection.cursor()
    kind = db.dialect.loaded_dbapi.Error
    try:
        return use(cursor)
    except kind as error:
        if db.dialect.is_disconnect(error, connection, cursor):
            db.invalidate(error)
        raise DBAPIError.instance(text, given, error, kind, dialect=db.dialect) from error
    finally:
        cursor.close()


_Place = tuple[str, int | None]
"""Name of a parameter, and which of its values where it stands for many."""


class _Texts:
    """The texts of a statement on one kind of database."""

    def __init__(
        self,
        statement: "Select[Any] | CompoundSelect[Any] | Insert | Update | Delete",
        dialect: Dialect,
        columns: "list[str] | None" = None,
    ) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=columns)
        assert isinstance(compiled, SQLCompiler)
        self._compiled = compiled
        self._lock = threading.Lock()
        self._fixed = {name: one for name, one in compiled.params.items() if one is not None}
        self._many = [
            bind.key for bind in compiled.binds.values() if bind.expanding and bind.value is None
        ]
        self._known: dict[tuple[int, ...], tuple[str, list[_Place], list[str] | None]] = {}
        self._row: Callable[[Sequence[Any]], Any] | None = None

    def row(self, names: Sequence[str]) -> Callable[[Sequence[Any]], Any]:
        """Return what makes a tuple with names of a row; all texts have the same columns."""
        if self._row is None:
            kind: Any = namedtuple("Row", names)  # type: ignore[misc]
            self._row = kind._make
        return self._row

    def filled(self, values: Mapping[str, Any]) -> tuple[str, Any]:
        """Return the text for some values, and these as it wants them."""
        sizes = tuple([len(values[name]) for name in self._many])
        text, places, names = self._known.get(sizes) or self._expanded(values, sizes)
        given = {**self._fixed, **values}
        flat = [given[name] if at is None else given[name][at] for name, at in places]
        return text, tuple(flat) if names is None else dict(zip(names, flat, strict=True))

    def filled_rows(self, rows: Sequence[Mapping[str, Any]]) -> tuple[str, list[Any]]:
        """Return the text for rows with the same names and numbers of values, and their values."""
        text, first = self.filled(rows[0])
        if self._many or self._fixed:
            return text, [first, *(self.filled(values)[1] for values in rows[1:])]
        if isinstance(first, dict):  # by name, as rows are
            return text, list(rows)
        names = [name for name, _ in self._known[()][1]]
        return text, [tuple([values[name] for name in names]) for values in rows]

    def _expanded(
        self, values: Mapping[str, Any], sizes: tuple[int, ...]
    ) -> tuple[str, list[_Place], list[str] | None]:
        with self._lock:
            state = self._compiled.construct_expanded_state(dict(values))
        of: dict[str, _Place] = {
            part: (name, at)
            for name, parts in state.parameter_expansion.items()
            for at, part in enumerate(parts)
        }
        names = state.positiontup
        if names is None:  # by name, and not by position
            many = state.parameter_expansion.keys()
            names = [name for name in state.parameters if name not in many]
        made = (
            state.statement,
            [of.get(name, (name, None)) for name in names],
            None if state.positiontup is not None else list(names),
        )
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[sizes] = made
        return made
