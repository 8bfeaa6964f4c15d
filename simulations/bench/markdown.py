"""The figures of a case as rows of text, for pages of any format."""

from collections.abc import Sequence
from dataclasses import dataclass

from disinherit.simulations.bench.means import COSTS, PANEL, MetricInfo, Summary, Table
from disinherit.simulations.bench.statistics import Interval

NO_FIGURE = "—"
"""Stands where there is none."""

MISSED = "no"
"""Stands in a column of verdicts where an aim is missed."""


@dataclass(frozen=True, slots=True)
class TextTable:
    """A header and rows, the first cell of each being its name.

    Attributes:
        header: one text for each column.
        rows: as many texts each.
        verdicts: index of a column of yes and no, if there is one.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    verdicts: int | None = None

    @property
    def words(self) -> tuple[bool, ...]:
        """Which columns hold words, and not figures: these are aligned to the left.

        Example:
            >>> table = TextTable(("case", "aim", "gap"), (("a", "at most 0.5 %", "+1.0 points"),))
            >>> table.words
            (True, True, False)
        """
        columns = zip(*self.rows, strict=True) if self.rows else ((),) * len(self.header)
        return tuple(
            place == 0 or any(map(_is_word, column)) for place, column in enumerate(columns)
        )


def _is_word(cell: str) -> bool:
    return cell != NO_FIGURE and cell.lstrip("+-<>")[:1].isalpha()


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
    """Return a table in Markdown; columns of words are aligned to the left."""
    rule = ("---" if words else "---:" for words in table.words)
    rows = (
        tuple(
            f"**{cell}**"
            if place == table.verdicts and cell == MISSED
            else cell.replace("|", r"\|")
            for place, cell in enumerate(row)
        )
        for row in table.rows
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in (table.header, rule, *rows))


def quoted(text: str) -> str:
    r"""Return a text as a block quotation in Markdown.

    Example:
        >>> quoted("What works.\nWhat does not.")
        '> What works.\n> What does not.'
    """
    return "\n".join(f"> {line}" for line in text.splitlines())
