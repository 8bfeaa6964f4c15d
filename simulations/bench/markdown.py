"""The figures of a case as rows of text, for pages of any format."""

from collections.abc import Sequence
from dataclasses import dataclass

from disinherit.simulations.bench.means import COSTS, PANEL, MetricInfo, Summary, Table
from disinherit.simulations.bench.statistics import Interval

NO_FIGURE = "—"
"""Stands where there is none."""


@dataclass(frozen=True, slots=True)
class TextTable:
    """A header and rows, the first cell of each being its name."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def panel_table(table: Table) -> TextTable:
    """Return metric x method, with the retrained reference first."""
    return _table(table, PANEL, reference=True)


def cost_table(table: Table) -> TextTable:
    """Return what each method costs."""
    return _table(table, COSTS, reference=False)


def _table(table: Table, metrics: Sequence[MetricInfo], *, reference: bool) -> TextTable:
    rows = []
    for metric in metrics:
        found = [row.get(metric.name) for row in table.values()]
        if any(one is not None and one.value is not None for one in found):
            head = (_reference(found, metric.digits),) if reference else ()
            cells = (number(one.value if one else None, metric.digits) for one in found)
            rows.append((metric.title, *head, *cells))
    names = ("retrained",) if reference else ()
    return TextTable(("", *names, *table), tuple(rows))


def number(value: Interval | None, digits: int) -> str:
    """Return a mean with half the width of its interval.

    Example:
        >>> number(Interval(1.25, 0.5, 3), 1), number(Interval(2.0, None, 1), 1), number(None, 1)
        ('1.2 ± 0.5', '2.0', '—')
    """
    if value is None:
        return NO_FIGURE
    spread = "" if value.half is None else f" ± {value.half:.{digits}f}"
    return f"{value.mean:.{digits}f}{spread}"


def _reference(found: Sequence[Summary | None], digits: int) -> str:
    """Return the reference, which is the same for all methods that were measured on all seeds."""
    known = [one.reference for one in found if one is not None and one.reference is not None]
    return number(max(known, key=lambda one: one.count, default=None), digits)


def markdown_table(table: TextTable) -> str:
    """Return a table in Markdown."""
    rule = ("---", *("---:" for _ in table.header[1:]))
    lines = (table.header, rule, *table.rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
