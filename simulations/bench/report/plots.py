"""Plots of a run: which figures are drawn, for which cases and methods."""

import math
from collections.abc import Collection, Mapping, Sequence

from markupsafe import Markup

from disinherit.documents.plots import Line, Point, line_plot, log_bars, origin_scatter
from disinherit.simulations.bench.cells import Record
from disinherit.simulations.bench.curves import Curve, deep_labels, depth_curves, skew_curves
from disinherit.simulations.bench.means import COSTS, RETRAINING, Summary, Table
from disinherit.simulations.bench.report.parts import FOLLOWED

NAMED = 3
"""Methods nearest to retraining that have their name in a plot, beside those that are judged."""

FEW = 6
"""Up to so many methods all have their name."""

_CHANGELESS = "no-op"


def scatter(table: Table, label: str, judged: Collection[str]) -> Markup | None:
    """Return retain accuracy against forget accuracy, both as gaps to exact retraining.

    Args:
        table: of a case.
        label: of the case.
        judged: methods that stand out.

    Returns:
        The plot, or `None` if no method has both.
    """
    found = {
        method: gaps
        for method, row in table.items()
        if method != RETRAINING and (gaps := _gaps(row)) is not None
    }
    if not found:
        return None
    nearest = sorted(found, key=lambda method: math.hypot(found[method][0][0], found[method][1][0]))
    named = {*nearest[:NAMED], *(one for one in judged if one in found)}
    named |= found.keys() if len(found) <= FEW else {_CHANGELESS} & found.keys()
    points = [
        Point(method, x, y, "first" if method in judged else "other", method in named)
        for method, (x, y) in found.items()
    ]
    return origin_scatter(
        points,
        "forget accuracy, gap in points",
        "retain accuracy, gap",
        f"{label}: gaps to retraining in forget and retain accuracy of {len(points)} methods; "
        f"the nearest is {nearest[0]}",
    )


def times(table: Table, label: str, judged: Collection[str]) -> Markup | None:
    """Return seconds on the clock without set-up, beside those of retraining; `None` without any.

    Args:
        table: of a case.
        label: of the case.
        judged: methods that stand out.
    """
    clock = COSTS[0].name
    seconds = {
        method: found.value.mean
        for method, row in table.items()
        if method != _CHANGELESS
        and (found := row.get(clock))
        and found.value
        and found.value.mean > 0
    }
    if not seconds:
        return None
    whole = seconds.get(RETRAINING)
    rows = [
        (
            method,
            value,
            f"{value:.3g} s{_faster(method, value, whole)}",
            "retrained" if method == RETRAINING else "after" if method in judged else "",
        )
        for method, value in sorted(seconds.items(), key=lambda one: one[1])
    ]
    return log_bars(rows, f"{label}: seconds without set-up of {len(rows)} methods")


def curve_plots(
    references: Sequence[Record], cells: Sequence[Record]
) -> list[tuple[str, list[tuple[str, Markup]]]]:
    """Return what is drawn along generations and partitions: title, and plots with their titles.

    Args:
        references: of a run.
        cells: of the run.
    """
    plots = []
    for label in deep_labels(cells):
        found = [
            (title, _curve(depth_curves(cells, label, metric, side), f"{label}: {title}"))
            for metric, side, title in FOLLOWED
        ]
        plots.append((f"Depth: {label}", _present(found)))
    skew = [
        (title, _skew(skew_curves(cells, references, metric, side), title))
        for metric, side, title in FOLLOWED
    ]
    plots.append(("Skew", _present(skew)))
    return [(title, found) for title, found in plots if found]


def _curve(curves: Mapping[str, Curve], label: str) -> Markup | None:
    lines = _lines(curves)
    return line_plot(lines, "derivations below the root", label) if lines else None


def _skew(curves: Mapping[str, Curve], label: str) -> Markup | None:
    lines = _lines(curves)
    title = "concentration of the Dirichlet partition"
    return line_plot(lines, title, label, logarithmic=True) if lines else None


def _lines(curves: Mapping[str, Curve]) -> list[Line]:
    return [
        Line(method, [(x, one.mean, one.low, one.high) for x, one in curve])
        for method, curve in curves.items()
    ]


def _present(found: Sequence[tuple[str, Markup | None]]) -> list[tuple[str, Markup]]:
    return [(title, plot) for title, plot in found if plot is not None]


def _gaps(row: Mapping[str, Summary]) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Return the gaps of forget and retain accuracy, each with half the width of its interval."""
    found = [
        (gap.mean, gap.half or 0.0)
        for metric in ("forget_accuracy", "retain_accuracy")
        if metric in row and (gap := row[metric].gap) is not None
    ]
    return (found[0], found[1]) if len(found) == 2 else None


def _faster(method: str, value: float, whole: float | None) -> str:
    if whole is None or method == RETRAINING:
        return ""
    times = whole / value
    return f", {times:.0f} times faster" if times >= 1.5 else ""
