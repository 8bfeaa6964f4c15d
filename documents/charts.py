"""Charts as SVG strings; colours come from the page's style sheet by class name.

Every function escapes what it is given and returns `Markup`, so a template does not escape twice.
Coordinates are in pixels at natural size.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from disinherit.common.text import elide
from disinherit.documents.intervals import Share
from disinherit.documents.svg import rect, svg, text
from disinherit.documents.words import number

_CHAR = 6.3  # pixels a character of the 11 px labels takes, on average


@dataclass(frozen=True, slots=True)
class Dot:
    """One value on the line of a dot plot.

    Attributes:
        name: what it is, in words.
        css: its kind: `before`, `after`, `retrained`, `published`, or `limit`: the least allowed.
        share: its value; `None` if it could not be computed.
    """

    name: str
    css: str
    share: Share | None


def dot_plot(lines: Sequence[tuple[str, Sequence[Dot]]], label: str) -> Markup:
    """Draw one line from 0 to 100 % for each model: before (ring), after (disc), references.

    Kinds differ in shape, so that they are told apart without colours; a bar on the line of `after`
    is its interval.

    Args:
        lines: (model id, its values).
        label: what the chart shows, for those who cannot see it.
    """
    longest = max((len(name) for name, _ in lines), default=0)
    left, scale, high = 20.0 + 6.8 * min(longest, 16), 2.72, 17.0
    body, y = [], 24.0
    for name, dots in lines:
        tip = f"{name}: " + ", ".join(f"{one.name} {_words(one.share)}" for one in dots)
        known = {one.css: one.share for one in dots if one.share is not None}
        parts = [
            f"<title>{escape(tip)}</title>",
            text(left - 10, y + 4, elide(name, 16), "end strong"),
        ]
        if not known:
            parts.append(text(left, y + 4, "n/a", "value muted"))
        before, after = known.get("before"), known.get("after")
        if before is not None and after is not None:
            x, u = (left + scale * one.percent for one in (before, after))
            parts.append(f'<line x1="{x:.1f}" x2="{u:.1f}" y1="{y:.1f}" y2="{y:.1f}" class="way"/>')
        if after is not None and after.interval is not None:
            low, top = (left + scale * one for one in after.interval)
            parts.append(rect(low, y - 2, top - low, 4, "range"))
        parts += [_mark(css, left + scale * one.percent, y) for css, one in known.items()]
        if after is not None:
            parts.append(text(left + scale * 100 + 10, y + 4, number(after.percent), "value"))
        body.append(f"<g>{''.join(parts)}</g>")
        y += high
    axis = []
    for tick in (0, 25, 50, 75, 100):
        x = left + scale * tick
        axis.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="14" y2="{y - 6:.1f}" class="axis"/>')
        axis.append(text(x, 9, f"{tick} %" if tick == 100 else f"{tick}", "tick middle"))
    return svg(left + scale * 100 + 44, y, label, axis + body, "dots")


_SHAPES = {
    "retrained": "M{x:.1f} {up:.1f}l4.6 5-4.6 5-4.6-5z",
    "published": "M{x:.1f} {up:.1f}l4.6 8.4h-9.2z",
    "limit": "M{x:.1f} {up:.1f}v10",
}


def _mark(css: str, x: float, y: float) -> str:
    if css in _SHAPES:
        return f'<path d="{_SHAPES[css].format(x=x, up=y - 5)}" class="dot {css}"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="dot {escape(css)}"/>'


def _words(share: Share | None) -> str:
    if share is None or share.interval is None:
        return number(None if share is None else share.percent, 1, " %")
    low, high = share.interval
    return f"{share.percent:.1f} % ({share.hits} of {share.samples}; {low:.1f} to {high:.1f} %)"


def histogram(bins: Sequence[tuple[str, int, str]], label: str) -> Markup:
    """Draw how many models fall into each bin, as bars from top to bottom.

    Args:
        bins: (range in words, number of models, css class).
        label: what the chart shows.
    """
    left, width, high = 132.0, 210.0, 19.0
    most = max((n for _, n, _ in bins), default=0) or 1
    body = []
    for i, (name, n, css) in enumerate(bins):
        y = 4 + i * high
        body.append(text(left - 8, y + 12, name, "end"))
        if n:
            body.append(rect(left, y, max(width * n / most, 1.5), high - 5, f"bar {css}"))
        body.append(text(left + width * n / most + 6, y + 12, str(n), "value"))
    return svg(left + width + 46, 6 + len(bins) * high, label, body, "histogram")


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
            tip = _tip(rows, columns, i, j, values[i][j]) if 12 < count <= 32 else ""
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
