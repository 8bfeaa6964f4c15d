"""Queries that are asked often, as text that is made once.

To find the text of a statement in its cache, and the places of its values, SQLAlchemy takes about
as long as SQLite takes to execute it.
"""

import threading
from collections.abc import Mapping
from typing import Any

from sqlalchemy import CompoundSelect, Connection, CursorResult, Row, Select
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

_MOST = 512
"""Texts that are kept of one query, for different numbers of values."""


class Query:
    """A query whose text is made once for each number of values that it names.

    Args:
        statement: the query.
    """

    def __init__(self, statement: "Select[Any] | CompoundSelect[Any]") -> None:
        self._statement = statement
        self._made: dict[str, _Texts] = {}

    def all(self, db: Connection, values: Mapping[str, Any]) -> list[Row[Any]]:
        """Return the rows.

        Args:
            db: a transaction.
            values: name of a parameter -> its value, or its values where it stands for many.
        """
        return list(self._execute(db, values).all())

    def scalars(self, db: Connection, values: Mapping[str, Any]) -> list[Any]:
        """Return the first value of each row; arguments as for `all`."""
        return list(self._execute(db, values).scalars().all())

    def first(self, db: Connection, values: Mapping[str, Any]) -> "Row[Any] | None":
        """Return the first row; arguments as for `all`."""
        return self._execute(db, values).first()

    def scalar(self, db: Connection, values: Mapping[str, Any]) -> Any:
        """Return the first value of the first row; arguments as for `all`."""
        return self._execute(db, values).scalar()

    def _execute(self, db: Connection, values: Mapping[str, Any]) -> CursorResult[Any]:
        made = self._made.get(db.dialect.name)
        if made is None:
            made = self._made[db.dialect.name] = _Texts(self._statement, db.dialect)
        return db.exec_driver_sql(*made.filled(values))


_Place = tuple[str, int | None]
"""Name of a parameter, and which of its values where it stands for many."""


class _Texts:
    """The texts of a statement on one kind of database."""

    def __init__(self, statement: "Select[Any] | CompoundSelect[Any]", dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        self._compiled = compiled
        self._lock = threading.Lock()
        self._fixed = {name: one for name, one in compiled.params.items() if one is not None}
        self._many = [
            bind.key for bind in compiled.binds.values() if bind.expanding and bind.value is None
        ]
        self._known: dict[tuple[int, ...], tuple[str, list[_Place], list[str] | None]] = {}

    def filled(self, values: Mapping[str, Any]) -> tuple[str, Any]:
        """Return the text for some values, and these as it wants them."""
        sizes = tuple([len(values[name]) for name in self._many])
        text, places, names = self._known.get(sizes) or self._expanded(values, sizes)
        given = {**self._fixed, **values}
        flat = [given[name] if at is None else given[name][at] for name, at in places]
        return text, tuple(flat) if names is None else dict(zip(names, flat, strict=True))

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
