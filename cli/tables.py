"""Tables of commands: ids that are never cut, states with a sign, times as people say them.

On a terminal, text is folded until a table fits, and ids stay whole.  In a pipe nothing is folded,
so that each row is one line.
"""

import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from disinherit.cli.output import print_line, print_rich, warn_line

_GOOD, _WAITING, _BAD, _PLAIN = ("✓", "green"), ("…", "yellow"), ("✕", "red"), ("-", "dim")
_ASCII = {"✓": "+", "…": ".", "✕": "x"}
_SIGNS = {
    **dict.fromkeys(("complete", "verified", "active", "online", "valid", "ok", "enrolled"), _GOOD),
    **dict.fromkeys(
        (
            "awaiting_approval",
            "running",
            "rolling_back",
            "pending",
            "sent",
            "applied",
            "unapproved",
        ),
        _WAITING,
    ),
    **dict.fromkeys(
        ("partial", "aborted", "halted", "failed", "harmful", "ineffective", "not_reached"), _BAD
    ),
    **dict.fromkeys(("offline", "expired", "problem", "revoked"), _BAD),
}
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_GAP = 2
_LEAST = 12
"""Columns that are left for text beside ids, at least."""

Cell = str | Text | None


def state_text(state: str, said: str = "") -> Text:
    """Return a state with its sign and colour; words and signs say all that colours do.

    Args:
        state: its name.
        said: other words for it.

    Example:
        >>> state_text("complete").plain, state_text("exempt").plain
        ('✓ complete', '- exempt')
    """
    sign, style = _SIGNS.get(state, _PLAIN)
    if not _writes(sign):
        sign = _ASCII.get(sign, sign)
    return Text.assemble((sign, style), " ", (said or state, style))


def ago(microseconds: int, now: float | None = None) -> str:
    """Return how long ago a time was, or how far away it is; `""` for 0.

    Args:
        microseconds: since the epoch.
        now: seconds since the epoch; the clock's by default.

    Example:
        >>> ago(1_000_000_000, now=1190), ago(90_000_000_000, now=1190), ago(0)
        ('3 min ago', 'in 24 h', '')
    """
    if not microseconds:
        return ""
    passed = (time.time() if now is None else now) - microseconds / 1e6
    for seconds, unit in _UNITS:
        if abs(passed) >= seconds and not (unit == "d" and abs(passed) < 2 * seconds):
            count = f"{int(abs(passed) // seconds)} {unit}"
            return f"{count} ago" if passed > 0 else f"in {count}"
    return "now"


def moment(microseconds: int) -> str:
    """Return a time as it was said, and in UTC; `""` for 0."""
    if not microseconds:
        return ""
    exact = datetime.fromtimestamp(microseconds / 1e6, UTC).strftime("%Y-%m-%d %H:%M")
    return f"{ago(microseconds)} ({exact} UTC)"


def print_table(
    titles: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    whole: Sequence[str] = (),
    empty: str = "",
) -> None:
    """Print a table on standard output.

    Args:
        titles: of the columns.
        rows: the cells of each row.
        whole: titles of columns whose text is never folded: ids and states.
        empty: what is said, on standard error, if there are no rows.
    """
    found = [[_text(cell) for cell in row] for row in rows]
    if not found and empty:
        warn_line(empty)
        return
    if not sys.stdout.isatty():
        _print_plain(titles, found)
        return
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    needed = 0
    for place, title in enumerate(titles):
        kept = title in whole
        cells = [title, *(row[place].plain for row in found)]
        needed += (max(map(cell_len, cells)) if kept else _LEAST) + _GAP
        table.add_column(title, no_wrap=kept, overflow="fold")
    for row in found:
        table.add_row(*row)
    print_rich(table, least=needed)


def print_facts(facts: Iterable[tuple[str, Cell]]) -> None:
    """Print names with their values, one below the other; those without a value are left out."""
    shown = [(name, text) for name, value in facts if (text := _text(value)).plain]
    if not sys.stdout.isatty():
        _print_plain(None, [[Text(name), text] for name, text in shown])
        return
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, _GAP, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, text in shown:
        table.add_row(name, text)
    print_rich(table)


def _print_plain(titles: Sequence[str] | None, rows: list[list[Text]]) -> None:
    lines = [*([[*titles]] if titles else []), *([text.plain for text in row] for row in rows)]
    widths = [max(map(cell_len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        padded = (
            text + " " * (width - cell_len(text)) for text, width in zip(line, widths, strict=True)
        )
        print_line((" " * _GAP).join(padded).rstrip())


def _text(cell: Cell) -> Text:
    return cell if isinstance(cell, Text) else Text(cell or "")


def _writes(sign: str) -> bool:
    try:
        sign.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
