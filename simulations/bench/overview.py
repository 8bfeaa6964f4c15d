"""Overview of a run on one screen: how far each method is from retraining, by kind of request."""

from collections.abc import Sequence

from disinherit.simulations.bench.cells import Record
from disinherit.simulations.bench.markdown import NO_FIGURE, TextTable
from disinherit.simulations.bench.means import RETRAINING, Table, summarise

_FIGURES = ("forget_accuracy", "test_accuracy", "lira_tpr")
KINDS = {
    "class": "one class",
    "classes": "several classes",
    "samples": "samples",
    "memorised": "memorised samples",
    "client": "a client",
    "backdoor": "a backdoor",
}
"""Kinds of requests in words, in the order of pages."""

EXPLANATION = (
    "Gaps to exact retraining in percentage points, means over the cases of a kind and their "
    "affected models: forget accuracy / test accuracy / true positives that LiRA finds at 1 % "
    "false ones. 0 is retraining; above 0 in the first and the last, something is still known; "
    "below 0 in the second, something that is to be kept was lost. The last column is the largest "
    "absolute figure of the row."
)


def overview_table(cells: Sequence[Record]) -> TextTable:
    """Return a row for each method, the one nearest to retraining first.

    Args:
        cells: of a run.
    """
    kinds = {cell["label"]: cell["granularity"] for cell in cells}
    shown = [kind for kind in KINDS if kind in kinds.values()]
    tables = summarise(cells)
    methods = dict.fromkeys(method for table in tables.values() for method in table)
    rows = []
    for method in methods:
        if method == RETRAINING:
            continue
        groups = [
            [_mean(tables, kinds, kind, method, figure) for figure in _FIGURES] for kind in shown
        ]
        found = [abs(value) for group in groups for value in group if value is not None]
        worst = max(found, default=float("inf"))
        cells_of_row = [_shown(group) for group in groups]
        rows.append((worst, (method, *cells_of_row, f"{worst:.1f}" if found else NO_FIGURE)))
    rows.sort(key=lambda row: row[0])
    heads = ("method", *(KINDS[kind] for kind in shown), "worst")
    return TextTable(heads, tuple(row for _, row in rows))


def _shown(figures: Sequence[float | None]) -> str:
    if all(value is None for value in figures):
        return NO_FIGURE
    return " / ".join(NO_FIGURE if value is None else f"{value:+.1f}" for value in figures)


def _mean(
    tables: dict[str, Table], kinds: dict[str, str], kind: str, method: str, figure: str
) -> float | None:
    """Return the mean gap of a method over the cases of a kind; `None` where nothing has it."""
    gaps = []
    for label, table in tables.items():
        summary = table.get(method, {}).get(figure)
        if kinds[label] == kind and summary is not None and summary.gap is not None:
            gaps.append(summary.gap.mean)
    return sum(gaps) / len(gaps) if gaps else None
