"""Lines of the audit log as entries, each parsed once while it is in use.

A line is canonical JSON, and checking that takes longer than any query.  Lines never change, so
those of usual size stay parsed: the last ones are read with every change, and those of a request
with every look at it.
"""

import threading
from collections import OrderedDict

from disinherit.common.audit.chain import AuditEntry
from disinherit.common.audit.export import read_entry
from disinherit.common.errors import AuditError, StoreError

_MOST = 16_384
"""Lines that stay parsed."""

_KEPT_BYTES = 2048
"""Size of a line, at most, that stays parsed."""


class _Lines:
    """The entries of lines that were parsed or made last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, AuditEntry] = OrderedDict()

    def get(self, line: bytes) -> AuditEntry | None:
        """Return the entry on a line, if it is kept."""
        with self._lock:
            entry = self._entries.get(line)
            if entry is not None:
                self._entries.move_to_end(line)
            return entry

    def put(self, line: bytes, entry: AuditEntry) -> None:
        """Keep an entry instead of the one that was not asked for the longest."""
        if len(line) > _KEPT_BYTES:
            return
        with self._lock:
            self._entries[line] = entry
            if len(self._entries) > _MOST:
                self._entries.popitem(last=False)


_LINES = _Lines()


def read_line(line: bytes) -> AuditEntry:
    """Return the entry on a line of the log, as `read_entry` does.

    Raises:
        StoreError: if the line is damaged.
    """
    entry = _LINES.get(line)
    if entry is None:
        try:
            entry = read_entry(line)
        except AuditError as error:
            raise StoreError(
                f"Expected a sound audit log in the database, but: {error} Restore the database "
                "from a backup."
            ) from None
        _LINES.put(line, entry)
    return entry


def made_line(line: bytes, entry: AuditEntry) -> None:
    """Remember the entry on a line that was just made, so that it need not be parsed."""
    _LINES.put(line, entry)
