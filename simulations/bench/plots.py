"""Plots of a run as SVG to be put into a page: no script, no font, no file of their own."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from disinherit.simulations.bench.curves import Curve
from disinherit.simulations.bench.markdown import NO_FIGURE
from disinherit.simulations.bench.means import COSTS, PANEL, Summary, Table

_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "disinherit", "font.size": 8}
_COLOURS = mpl.colormaps["tab20"]
_COLUMNS = 3


def heat_map(table: Table, title: str) -> str:
    """Return method x metric of the absolute gap to exact retraining, each metric to its own scale.

    A pale cell is as retraining is; the darkest of a column is the method that is farthest from it.
    Metrics that nothing has are left out.
    """
    shown = [
        (metric, farthest)
        for metric in PANEL
        if (farthest := max((abs(_gap(row, metric.name)) for row in table.values()), default=0.0))
    ]
    figure, axes = _figure(1, 2.2 + 0.42 * len(shown), 1.6 + 0.26 * len(table))
    axis = axes[0]
    rows = []
    for y, row in enumerate(table.values()):
        shades = []
        for x, (metric, farthest) in enumerate(shown):
            gap = _gap(row, metric.name)
            shades.append(abs(gap) / farthest)
            text = f"{gap:+.{min(metric.digits, 2)}f}" if _has(row, metric.name) else NO_FIGURE
            colour = "white" if shades[-1] > 0.6 else "black"
            axis.text(x, y, text, ha="center", va="center", fontsize=6, color=colour)
        rows.append(shades)
    axis.imshow(rows, cmap="Reds", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(
        range(len(shown)), [metric.title for metric, _ in shown], rotation=60, ha="right"
    )
    axis.set_yticks(range(len(table)), list(table))
    axis.set_title(f"{title}: gap to retraining")
    return _svg(figure)


def pareto(tables: Mapping[str, Table]) -> str:
    """Return retain accuracy against forget accuracy, both as gaps to exact retraining.

    Best is the middle: zero in both. One panel for each case.
    """
    figure, axes = _grid(len(tables))
    methods = _methods(tables)
    for axis, (label, table) in zip(axes, tables.items(), strict=False):
        for method, row in table.items():
            if _has(row, "forget_accuracy") and _has(row, "retain_accuracy"):
                x, y = row["forget_accuracy"].gap, row["retain_accuracy"].gap
                assert x is not None
                assert y is not None
                axis.errorbar(
                    x.mean,
                    y.mean,
                    xerr=x.half or 0,
                    yerr=y.half or 0,
                    fmt="o",
                    markersize=4,
                    linewidth=0.8,
                    color=_colour(method, methods),
                    label=method,
                )
        axis.axhline(0, color="grey", linewidth=0.5)
        axis.axvline(0, color="grey", linewidth=0.5)
        axis.set_title(label, fontsize=8)
        axis.set_xlabel("forget accuracy, gap in points")
        axis.set_ylabel("retain accuracy, gap in points")
    _legend(figure, axes)
    return _svg(figure)


def times(tables: Mapping[str, Table]) -> str:
    """Return seconds on the clock without set-up, logarithmic, one panel for each case."""
    figure, axes = _grid(len(tables))
    methods = _methods(tables)
    seconds = COSTS[0].name
    for axis, (label, table) in zip(axes, tables.items(), strict=False):
        shown = [
            (method, found.value)
            for method, row in table.items()
            if (found := row.get(seconds)) and found.value
        ]
        axis.barh(
            [method for method, _ in shown],
            [max(value.mean, 1e-3) for _, value in shown],
            color=[_colour(method, methods) for method, _ in shown],
        )
        axis.set_xscale("log")
        axis.invert_yaxis()
        axis.set_xlabel("seconds")
        axis.set_title(label, fontsize=8)
    return _svg(figure)


def curves(
    panels: Sequence[tuple[str, Mapping[str, Curve]]], x_label: str, *, logarithmic: bool = False
) -> str:
    """Return curves with their confidence bands, one panel for each figure they show.

    Args:
        panels: what is shown, and its curve for each method.
        x_label: what they follow.
        logarithmic: whether that is drawn to a logarithmic scale.
    """
    figure, axes = _grid(len(panels))
    methods = list(dict.fromkeys(method for _, found in panels for method in found))
    for axis, (title, found) in zip(axes, panels, strict=False):
        for method, curve in found.items():
            where = [x for x, _ in curve]
            colour = _colour(method, methods)
            axis.plot(
                where,
                [point.mean for _, point in curve],
                color=colour,
                label=method,
                marker=".",
                linewidth=1,
            )
            axis.fill_between(
                where,
                [point.low for _, point in curve],
                [point.high for _, point in curve],
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
        if logarithmic:
            axis.set_xscale("log")
        axis.set_xlabel(x_label)
        axis.set_title(title, fontsize=8)
    _legend(figure, axes)
    return _svg(figure)


def _gap(row: Mapping[str, Summary], name: str) -> float:
    gap = row[name].gap if name in row else None
    return gap.mean if gap else 0.0


def _has(row: Mapping[str, Summary], name: str) -> bool:
    return name in row and row[name].gap is not None


def _methods(tables: Mapping[str, Table]) -> list[str]:
    return list(dict.fromkeys(method for table in tables.values() for method in table))


def _colour(method: str, methods: Sequence[str]) -> Any:
    return _COLOURS(methods.index(method) % _COLOURS.N)


def _grid(count: int) -> tuple[Figure, list[Any]]:
    columns = min(_COLUMNS, count)
    rows = -(-count // columns)
    return _figure(count, 1.6 + 3.4 * columns, 2.8 * rows + 0.8, rows, columns)


def _figure(
    count: int, width: float, height: float, rows: int = 1, columns: int = 1
) -> tuple[Figure, list[Any]]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = [figure.add_subplot(rows, columns, place + 1) for place in range(count)]
    return figure, axes


def _legend(figure: Figure, axes: Sequence[Any]) -> None:
    found: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        found.update(zip(labels, handles, strict=True))
    if found:
        columns = max(2, int(figure.get_figwidth() / 1.6))
        handles, labels = list(found.values()), list(found)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=7)


def _svg(figure: Figure) -> str:
    """Return a figure as an `<svg>` element, the same for the same figures."""
    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return re.sub(r"[ \t]+$", "", text[text.index("<svg") :], flags=re.MULTILINE)
