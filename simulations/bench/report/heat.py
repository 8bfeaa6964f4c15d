"""Heat maps as tables: how far each method is from exact retraining, by case and by metric."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from disinherit.documents.words import typographic
from disinherit.simulations.bench.markdown import NO_FIGURE, TextTable, panel_table
from disinherit.simulations.bench.means import PANEL, RETRAINING, Summary, Table
from disinherit.simulations.bench.overview import KINDS

FULL = 40.0
"""Points of gap with the darkest shade; the shade grows with the square root of the gap."""


@dataclass(frozen=True, slots=True)
class MapFigure:
    """An accuracy that is compared with retraining on the first screen.

    Attributes:
        metric: of the panel.
        sign: stands beside a gap.
        title: in words.
    """

    metric: str
    sign: str
    title: str


FIGURES = (
    MapFigure("forget_accuracy", "f", "forget accuracy"),
    MapFigure("test_accuracy", "t", "test accuracy"),
    MapFigure("lira_tpr", "a", "what the attack LiRA finds at 1 % false alarms"),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a heat map.

    Attributes:
        text: the figure; `—` where there is none.
        shade: 0 for as retraining is, to 1.
        sign: of the figure it is, if it may be one of several.
    """

    text: str
    shade: float
    sign: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the heat map by case.

    Attributes:
        label: of the cases.
        place: of the label among all that were measured, from 1.
    """

    label: str
    place: int


@dataclass(frozen=True, slots=True)
class CaseMap:
    """Method x case.

    Attributes:
        title: what its figures are.
        groups: kind of request in words, and its columns.
        rows: method, and a cell for each column; the method whose largest gap is least comes first.
    """

    title: str
    groups: tuple[tuple[str, tuple[Column, ...]], ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def case_map(
    tables: Mapping[str, Table],
    kinds: Mapping[str, str],
    figures: Sequence[MapFigure],
    title: str,
) -> CaseMap:
    """Return the largest gap to retraining of every method in every case, in points.

    Args:
        tables: label -> method -> metric.
        kinds: label -> kind of request.
        figures: of which the largest gap is taken.
        title: what its figures are.
    """
    order = {kind: place for place, kind in enumerate(KINDS)}
    columns = [(kinds[label], Column(label, i + 1)) for i, label in enumerate(tables)]
    columns.sort(key=lambda one: order.get(one[0], len(order)))
    methods = dict.fromkeys(method for table in tables.values() for method in table)
    rows = []
    for method in methods:
        if method == RETRAINING:
            continue
        found = [_largest(tables[one.label].get(method, {}), figures) for _, one in columns]
        gaps = [abs(gap) for gap, _ in found if gap is not None]
        cells = tuple(_cell(gap, sign if len(figures) > 1 else "") for gap, sign in found)
        rows.append((max(gaps, default=math.inf), (method, cells)))
    rows.sort(key=lambda row: row[0])
    groups = tuple(
        (KINDS.get(kind, kind), tuple(column for _, column in found))
        for kind, found in groupby(columns, key=lambda one: one[0])
    )
    return CaseMap(title, groups, tuple(row for _, row in rows))


def panel_shades(table: Table) -> tuple[TextTable, list[list[float]]]:
    """Return the panel of a case, and a shade for each of its cells.

    Each metric has its own scale: the darkest cell of a row is the method farthest from retraining.

    Args:
        table: method -> metric, of a case.

    Returns:
        The table, and for each of its rows a shade from 0 to 1 for each of its cells but the name.
    """
    shown = panel_table(table)
    names = {metric.title: metric.name for metric in PANEL}
    shades = []
    for title, *_ in shown.rows:
        gaps = [abs(_gap(row, names[title]) or 0.0) for row in table.values()]
        most = max(gaps, default=0.0) or 1.0
        shades.append([0.0, *(gap / most for gap in gaps)])
    return shown, shades


def shade(gap: float) -> float:
    """Return the shade of a gap in points.

    Example:
        >>> shade(0.0), shade(-10.0), shade(90.0)
        (0.0, 0.5, 1.0)
    """
    return math.sqrt(min(abs(gap) / FULL, 1.0))


def _cell(gap: float | None, sign: str) -> Cell:
    if gap is None:
        return Cell(NO_FIGURE, 0.0)
    shown = f"{gap:+.1f}"
    if float(shown) == 0:
        shown, sign = "0.0", ""
    return Cell(typographic(shown), shade(gap), sign)


def _largest(row: Mapping[str, Summary], figures: Sequence[MapFigure]) -> tuple[float | None, str]:
    gaps = [(gap, one.sign) for one in figures if (gap := _gap(row, one.metric)) is not None]
    return max(gaps, key=lambda one: abs(one[0]), default=(None, ""))


def _gap(row: Mapping[str, Summary], metric: str) -> float | None:
    found = row[metric].gap if metric in row else None
    return found.mean if found else None
