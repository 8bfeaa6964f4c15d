"""Which entries of the audit log are about which request, by their contents.

A part of the log that is exported or reported must not depend on columns, which whoever may write
the database could change without breaking the chain.  To look into every line for each report
would take longer with every request that was ever made.  So each process looks into every line
once, and later only into new ones.
"""

import threading
from array import array
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
from sqlalchemy import Connection, bindparam, select
from sqlalchemy.engine import Dialect

from disinherit.common.audit.canonical import canonical
from disinherit.common.audit.export import line_hash
from disinherit.server.store.audit_lines import read_line
from disinherit.server.store.queries import Query
from disinherit.server.store.tables import AUDIT

_AT_A_TIME = 500

# Made once: to make such a statement anew takes longer than to execute it.
_FROM = Query(
    select(AUDIT.c.sequence, AUDIT.c.entry)
    .where(AUDIT.c.sequence >= bindparam("begin"))
    .order_by(AUDIT.c.sequence)
    .limit(_AT_A_TIME)
)
_NUMBERED = Query(
    select(AUDIT.c.sequence, AUDIT.c.entry)
    .where(AUDIT.c.sequence.in_(bindparam("numbers", expanding=True)))
    .order_by(AUDIT.c.sequence)
)


class _About(msgspec.Struct):
    """What a line is about."""

    request: str


_ABOUT = msgspec.json.Decoder(_About)


class _Requests:
    """Request -> the numbers of the entries about it, in one log."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[str, array[int]] = {}
        self._last = 0
        self._hash = ""

    def numbers(self, db: Connection, request_id: str) -> list[int] | None:
        """Return the numbers of the entries about a request; `None` if this is not the known log.

        A transaction from before others wrote does not see the whole log that is known.
        """
        with self._lock:
            try:
                seen = self._extend(db)
            except msgspec.DecodeError:  # whoever reads that line says so
                seen = False
            return list(self._numbers.get(request_id, ())) if seen else None

    def _extend(self, db: Connection) -> bool:
        rows = _FROM.all(db, {"begin": self._last})
        if self._last:
            if not rows:
                return False
            if rows[0].sequence != self._last or line_hash(rows[0].entry) != self._hash:
                self._numbers, self._last, self._hash = {}, 0, ""  # a backup, or changed
                return False
            rows = rows[1:]
        while rows:
            about = [(row.sequence, _ABOUT.decode(row.entry).request) for row in rows]
            for sequence, request in about:
                if request:
                    self._numbers.setdefault(request, array("q")).append(sequence)
            self._last, self._hash = rows[-1].sequence, line_hash(rows[-1].entry)
            rows = _FROM.all(db, {"begin": self._last + 1})
        return True


_KNOWN: WeakKeyDictionary[Dialect, _Requests] = WeakKeyDictionary()
"""Of each open database; its dialect lives as long as it does."""


def entries_about(db: Connection, request_id: str) -> list[tuple[int, bytes]]:
    """Return the entries about a request, in order, by their contents and not by their columns.

    Args:
        db: a transaction.
        request_id: the request.

    Returns:
        The number and the line of each.

    Raises:
        StoreError: if one is damaged.
    """
    numbers = _KNOWN.setdefault(db.dialect, _Requests()).numbers(db, request_id)
    if numbers is not None:
        rows: list[Any] = []
        for start in range(0, len(numbers), _AT_A_TIME):
            some = numbers[start : start + _AT_A_TIME]
            rows += _NUMBERED.all(db, {"numbers": some})
        found = _about(rows, request_id)
        if len(found) == len(numbers):
            return found
    return _looked_up(db, request_id)


def _looked_up(db: Connection, request_id: str) -> list[tuple[int, bytes]]:
    """Return the entries about a request after a look into every line."""
    field = b'"request":' + canonical(request_id) + b","
    found: list[tuple[int, bytes]] = []
    begin = 0
    while rows := _FROM.all(db, {"begin": begin}):
        found += _about([row for row in rows if field in row.entry], request_id)
        begin = rows[-1].sequence + 1
    return found


def _about(rows: list[Any], request_id: str) -> list[tuple[int, bytes]]:
    return [
        (row.sequence, row.entry)
        for row in rows
        if read_line(row.entry).event.request_id == request_id
    ]
