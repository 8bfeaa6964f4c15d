"""Charts as SVG strings; colours come from the page's style sheet by class name.

Every function escapes what it is given and returns `Markup`, so a template does not escape twice.
Coordinates are in pixels at natural size.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from disinherit.documents.svg import elide, rect, svg, text
from disinherit.documents.words import number

_CHAR = 6.3  # pixels a character of the 11 px labels takes, on average


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: legend name, css class of the colour, value (`None` if not computed)."""

    name: str
    css: str
    value: float | None


def grouped_bars(groups: Sequence[tuple[str, Sequence[Bar]]], label: str) -> Markup:
    """Draw horizontal bars in percent, 0 to 100, one group per model.

    Args:
        groups: (model id, its bars); a group without any value is one line "n/a".
        label: what the chart shows, for those who cannot see it.

    Returns:
        The image.
    """
    left, scale, thick = 66.0, 2.8, 11.0
    y, body = 18.0, []
    for name, bars in groups:
        known = [bar for bar in bars if bar.value is not None]
        shown = bars if known else [Bar("not computed", "na", None)]
        height = thick * len(shown)
        title = f"<title>{escape(name)}</title>"
        label_y = y + height / 2 + 4
        body.append(f"<g>{title}{text(left - 8, label_y, elide(name, 9), 'end strong')}</g>")
        for bar in shown:
            tip = f"{name}, {bar.name}: {number(bar.value, 1, ' %')}"
            width = 0.0
            if bar.value is not None:
                width = max(scale * min(bar.value, 100.0), 1.2)  # 0 % must show its colour
                body.append(rect(left, y + 0.5, width, thick - 1, f"bar {bar.css}", tip))
            css = "value" if bar.value is not None else "value muted"
            body.append(text(left + width + 4, y + thick - 2.2, number(bar.value), css))
            y += thick
        y += 9
    axis = []
    for tick in (0, 25, 50, 75, 100):
        x = left + scale * tick
        axis.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="14" y2="{y - 6:.1f}" class="axis"/>')
        axis.append(text(x, 9, f"{tick} %" if tick == 100 else f"{tick}", "tick middle"))
    return svg(left + scale * 100 + 36, y, label, axis + body, "bars")


def heat_grid(
    fractions: Sequence[Sequence[float]],
    values: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    marked: Collection[str],
    label: str,
) -> Markup:
    """Draw a heat map; the larger it is the smaller its cells and the fewer its labels.

    Args:
        fractions: `[R, C]` shades from 0 to 1.
        values: `[R, C]` texts of the cells, in the cell if it has room, else as tooltip.
        rows: `R` names, or none.
        columns: `C` names, or none.
        marked: names to make stand out, as row and as column.
        label: what the map shows.

    Returns:
        The image.
    """
    count = max((len(row) for row in fractions), default=0)
    cell = 31.0 if count <= 12 else 16.0 if count <= 32 else max(4.0, 520 / max(count, 1))
    high = 22.0 if count <= 12 else cell if len(fractions) > 4 else 16.0
    names = [elide(name, 18) for name in rows]
    left = 10 + _CHAR * max(map(len, names), default=0)
    tall = max((len(elide(name, 14)) for name in columns), default=0)
    top = 10 + 0.72 * _CHAR * tall if columns else 2.0
    body = [rect(left, top, cell * count, high * len(fractions), "ground")]
    for i, row in enumerate(fractions):
        for j, fraction in enumerate(row):
            if fraction <= 0:
                continue  # most cells of a large map are empty: the ground shows
            x, y = left + j * cell, top + i * high
            tip = _tip(rows, columns, i, j, values[i][j]) if count <= 32 else ""
            shade = f'fill-opacity="{min(fraction, 1.0):.3f}"'
            body.append(rect(x, y, cell - 0.6, high - 0.6, "heat", tip, shade))
            if cell >= 30:
                css = "cell middle on" if fraction > 0.55 else "cell middle"
                body.append(text(x + cell / 2, y + high / 2 + 4, values[i][j], css))
    shown = _labelled(rows, marked, high)
    for i, name in enumerate(names):
        if i in shown:
            css = "end strong mark" if rows[i] in marked else "end"
            body.append(text(left - 5, top + (i + 0.5) * high + 4, name, css))
        if rows[i] in marked:
            body.append(rect(left, top + i * high, cell * count, high, "outline"))
    shown = _labelled(columns, marked, cell)
    for j, name in enumerate(columns):
        if j in shown:
            css = "strong mark" if name in marked else ""
            x = left + (j + 0.5) * cell
            body.append(text(x, top - 5, elide(name, 14), css, rotate=-45))
        if name in marked:
            x = left + j * cell
            body.append(rect(x, top, cell, high * len(fractions), "outline"))
    width = left + cell * count + (0.72 * _CHAR * tall if columns else 2)
    return svg(width, top + high * len(fractions) + 2, label, body, "heatmap")


def _labelled(names: Sequence[str], marked: Collection[str], size: float) -> set[int]:
    """Indices with a label: all where cells are large, else marked ones that do not overlap."""
    if size >= 12:
        return set(range(len(names)))
    chosen: list[int] = []
    for i, name in enumerate(names):
        if name in marked and (not chosen or (i - chosen[-1]) * size >= 12):
            chosen.append(i)
    return set(chosen)


def _tip(rows: Sequence[str], columns: Sequence[str], i: int, j: int, value: str) -> str:
    row = rows[i] if i < len(rows) else f"row {i}"
    column = columns[j] if j < len(columns) else f"row {j}"
    return f"{row}, {column}: {value}"


def confusion_map(
    confusion: Sequence[Sequence[int]], labels: Sequence[str], marked: Collection[str], label: str
) -> Markup:
    """Draw a confusion matrix `[C, C]`: a row is a true class, shaded by its share of the row."""
    fractions = [[count / (sum(row) or 1) for count in row] for row in confusion]
    values = [[str(count) for count in row] for row in confusion]
    return heat_grid(fractions, values, labels, labels, marked, label)


def row_strip(fractions: Sequence[float], label: str) -> Markup:
    """Draw one unlabelled row of selected fractions; long ones are averaged to 128 cells."""
    cells = min(len(fractions), 128)
    edges = [i * len(fractions) // cells for i in range(cells + 1)] if cells else []
    means = [sum(fractions[start:stop]) / (stop - start) for start, stop in pairwise(edges)]
    width = min(16.0, 540 / max(cells, 1))
    body = [rect(0, 0, width * cells, 16, "ground")]
    for i, fraction in enumerate(means):
        if fraction > 0:
            span = f"row {edges[i]}" + (
                f" to {edges[i + 1] - 1}" if edges[i + 1] - edges[i] > 1 else ""
            )
            shade = f'fill-opacity="{min(fraction, 1.0):.3f}"'
            tip = f"{span}: {number(100 * fraction, 1, ' %')}"
            body.append(rect(i * width, 0, width, 16, "heat", tip, shade))
    return svg(width * cells, 16, label, body, "strip")


def time_bars(rows: Sequence[tuple[str, Sequence[tuple[str, str, float]]]], label: str) -> Markup:
    """Draw stacked bars over one linear time axis.

    Args:
        rows: (name, parts), each part (legend name, css class, seconds).
        label: what the chart shows.

    Returns:
        The image.
    """
    width, thick = 320.0, 18.0
    longest = max((sum(part[2] for part in parts) for _, parts in rows), default=0.0)
    body, y = [], 14.0
    for name, parts in rows:
        body.append(text(0, y - 4, name))
        x, total = 0.0, 0.0
        for part, css, seconds in parts:
            size = width * seconds / longest if longest > 0 else 0.0
            tip = f"{name}, {part}: {number(seconds, 3, ' s')}"
            body.append(rect(x, y, max(size, 0.8), thick, f"bar {css}", tip))
            x, total = x + size, total + seconds
        body.append(text(x + 6, y + 13, number(total, 2, " s"), "value"))
        y += thick + 22
    return svg(width + 66, y - 18, label, body, "times")
