"""Plots with axes as SVG strings; colours come from the page's style sheet by class name.

Labels stand beside what they name, so no plot needs a legend.  Every function escapes what it is
given and returns `Markup`.  Coordinates are in pixels at natural size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from disinherit.common.text import elide
from disinherit.documents.svg import line, path, rect, svg, text
from disinherit.documents.words import typographic

SERIES = 8
"""Looks of lines: colours with their own dashes."""

_TICKS = (0, 1, 2, 5, 10, 20, 40, 80)
_LINE = 12.0  # pixels between two labels
_ROOM = 26.0  # pixels between two ticks


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a scatter plot.

    Attributes:
        name: what it is.
        x: where, with half the width of its interval or 0.
        y: the same.
        css: its kind: `first` stands out, `other` does not.
        labelled: whether its name is written beside the plot.
    """

    name: str
    x: tuple[float, float]
    y: tuple[float, float]
    css: str
    labelled: bool


@dataclass(frozen=True, slots=True)
class Line:
    """A line with its band: (x, mean, low, high) of each point, by x."""

    name: str
    points: Sequence[tuple[float, float, float, float]]


def origin_scatter(points: Sequence[Point], x_title: str, y_title: str, label: str) -> Markup:
    """Draw points around an origin that is the aim, on axes of signed square roots.

    These leave room to what is near the origin, and still show what is far away.  The origin is a
    target with its name; names of labelled points stand to the right, with a line to the point.

    Args:
        points: to draw, in percentage points.
        x_title: of the horizontal axis.
        y_title: of the vertical axis.
        label: what the plot shows, for those who cannot see it.
    """
    left, top, wide, high = 40.0, 10.0, 228.0, 178.0
    xs = [value for one in points for value in (one.x[0] - one.x[1], one.x[0] + one.x[1])]
    ys = [value for one in points for value in (one.y[0] - one.y[1], one.y[0] + one.y[1])]
    place_x, ticks_x = _rooted(xs, left, left + wide)
    place_y, ticks_y = _rooted(ys, top + high, top)
    body = []
    for tick in ticks_x:
        x = place_x(tick)
        css = "axis zero" if tick == 0 else "axis"
        body.append(line(x, top, x, top + high, css))
        body.append(text(x, top + high + 13, _tick(tick), "tick middle"))
    for tick in ticks_y:
        y = place_y(tick)
        css = "axis zero" if tick == 0 else "axis"
        body.append(line(left, y, left + wide, y, css))
        body.append(text(left - 6, y + 3.5, _tick(tick), "tick end"))
    body.append(text(left + wide / 2, top + high + 28, x_title, "tick middle"))
    body.append(text(10, top + high / 2, y_title, "tick middle", rotate=-90))
    origin = (place_x(0), place_y(0))
    body.append(f'<circle cx="{origin[0]:.1f}" cy="{origin[1]:.1f}" r="9" class="target"/>')
    anchors = [("as retrained", origin, "goal")]
    for one in sorted(points, key=lambda point: point.labelled):
        x, y = place_x(one.x[0]), place_y(one.y[0])
        tip = f"{one.name}: {_tip(one.x)} and {_tip(one.y)}"
        bars = ""
        if one.labelled:
            anchors.append((one.name, (x, y), one.css))
            if one.x[1]:
                ends = place_x(one.x[0] - one.x[1]), place_x(one.x[0] + one.x[1])
                bars += line(ends[0], y, ends[1], y, "spread")
            if one.y[1]:
                ends = place_y(one.y[0] - one.y[1]), place_y(one.y[0] + one.y[1])
                bars += line(x, ends[0], x, ends[1], "spread")
        body.append(
            f"<g><title>{escape(tip)}</title>{bars}"
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" class="spot {escape(one.css)}"/></g>'
        )
    edge = left + wide
    for (name, (x, y), css), at in zip(
        anchors, _apart([y for _, (_, y), _ in anchors], top + 6, top + high - 2), strict=True
    ):
        start = x + (9 if css == "goal" else 4)
        body.append(
            f'<path d="M{start:.1f} {y:.1f}L{edge:.1f} {at:.1f}h5" class="lead {escape(css)}"/>'
        )
        body.append(text(edge + 8, at + 3.5, elide(name, 18), f"name {css}"))
    return svg(edge + 120, top + high + 34, label, body, "scatter")


def log_bars(rows: Sequence[tuple[str, float, str, str]], label: str) -> Markup:
    """Draw positive values as bars on a logarithmic axis.

    Args:
        rows: (name, value above 0, value in words, css class).
        label: what the plot shows.
    """
    longest = max((len(elide(name, 20)) for name, *_ in rows), default=0)
    left, wide, thick = 14 + 6.4 * longest, 200.0, 17.0
    values = [value for _, value, _, _ in rows] or [1.0]
    low = math.floor(math.log10(min(values)))
    most = math.ceil(math.log10(max(values)))
    decades = max(most - low, 1)
    high = thick * len(rows)
    body = []
    for step in range(0, decades + 1, max(1, math.ceil(decades * _ROOM / wide))):
        x = left + wide * step / decades
        body.append(line(x, 14, x, 16 + high, "axis"))
        body.append(text(x, 10, f"{10.0 ** (low + step):g}", "tick middle"))
    for i, (name, value, words, css) in enumerate(rows):
        y = 18 + i * thick
        size = wide * (math.log10(value) - low) / decades
        body.append(text(left - 6, y + 10, elide(name, 20), "end"))
        body.append(rect(left, y, max(size, 1.5), thick - 5, f"bar {css}"))
        body.append(text(left + max(size, 1.5) + 5, y + 10, words, "value"))
    return svg(left + wide + 130, 22 + high, label, body, "logbars")


def line_plot(
    lines: Sequence[Line], x_title: str, label: str, *, logarithmic: bool = False
) -> Markup:
    """Draw lines with their bands; each has its name at its end, its colour and its dashes.

    Args:
        lines: to draw, at least one with a point.
        x_title: of the horizontal axis.
        label: what the plot shows.
        logarithmic: whether the horizontal axis is.
    """
    left, top, wide, high = 44.0, 10.0, 300.0, 190.0
    follow: Callable[[float], float] = math.log10 if logarithmic else float
    xs = [follow(x) for one in lines for x, *_ in one.points]
    ys = [mean for one in lines for _, mean, _, _ in one.points]
    start, end = min(xs), max(xs)
    ticks = _nice(min(ys), max(ys))
    low, most = ticks[0], ticks[-1]  # of the means: a band that is wider ends at the frame

    def place(x: float, y: float) -> tuple[float, float]:
        along = (follow(x) - start) / (end - start) if end > start else 0.5
        return left + wide * along, top + high * (1 - (min(max(y, low), most) - low) / (most - low))

    body = []
    for tick in ticks:
        _, y = place(10**start if logarithmic else start, tick)
        body.append(line(left, y, left + wide, y, "axis zero" if tick == 0 else "axis"))
        body.append(text(left - 6, y + 3.5, _tick(tick), "tick end"))
    last = -math.inf
    for where in sorted({x for one in lines for x, *_ in one.points}):
        x, _ = place(where, low)
        if x - last >= _ROOM:
            body.append(text(x, top + high + 14, f"{where:g}", "tick middle"))
            last = x
    body.append(text(left + wide / 2, top + high + 29, x_title, "tick middle"))
    ends = []
    for number, one in enumerate(lines):
        css = f"s{number % SERIES}"
        upper = [place(x, top_y) for x, _, _, top_y in one.points]
        lower = [place(x, low_y) for x, _, low_y, _ in reversed(one.points)]
        middle = [place(x, mean) for x, mean, _, _ in one.points]
        parts = [f"<title>{escape(one.name)}</title>"]
        if any(high_y > low_y for _, _, low_y, high_y in one.points):
            parts.append(f'<path d="{path([*upper, *lower])}z" class="band"/>')
        parts.append(f'<path d="{path(middle)}" class="curve"/>')
        body.append(f'<g class="{css}">{"".join(parts)}</g>')
        ends.append((one.name, middle[-1], css))
    edge = left + wide
    body += line_names(ends, edge, top, high, 24)
    return svg(edge + 160, top + high + 36, label, body, "lines")


def line_names(
    ends: Sequence[tuple[str, tuple[float, float], str]],
    edge: float,
    top: float,
    high: float,
    longest: int,
) -> list[str]:
    """Return the names of lines to the right of a plot, each with a lead from the line's end.

    Args:
        ends: name, end and css class of each.
        edge: right edge of the plot.
        top: its upper edge.
        high: its height.
        longest: characters of a name that are shown at most.
    """
    parts = []
    places = _apart([y for _, (_, y), _ in ends], top + 6, top + high - 2)
    for (name, (x, y), css), at in zip(ends, places, strict=True):
        parts.append(f'<path d="M{x:.1f} {y:.1f}L{edge + 6:.1f} {at:.1f}h5" class="lead {css}"/>')
        parts.append(text(edge + 14, at + 3.5, elide(name, longest), f"name {css}"))
    return parts


def _rooted(
    values: Sequence[float], start: float, end: float
) -> tuple[Callable[[float], float], list[float]]:
    """Return a scale of signed square roots that has 0 and all values, and its ticks."""
    low, most = _root(min([-1.0, *values])), _root(max([1.0, *values]))
    margin = 0.06 * (most - low)
    low, most = low - margin, most + margin

    def place(value: float) -> float:
        return start + (end - start) * (_root(value) - low) / (most - low)

    chosen: list[float] = []
    for size in _TICKS:
        for tick in sorted({float(size), -float(size)}):
            inside = low <= _root(tick) <= most
            if inside and all(abs(place(tick) - place(one)) >= _ROOM for one in chosen):
                chosen.append(tick)
    return place, chosen


def _root(value: float) -> float:
    return math.copysign(math.sqrt(abs(value)), value)


def _nice(low: float, most: float) -> list[float]:
    """Return about five round ticks around a range.

    Example:
        >>> _nice(0.0, 93.0)
        [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    """
    span = (most - low) or abs(most) or 1.0
    rough = span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * one for one in (1, 2, 5, 10) if power * one >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(most / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def _apart(wanted: Sequence[float], low: float, most: float) -> list[float]:
    """Return heights of labels, each near to where it is wanted and none over another.

    Example:
        >>> _apart([50.0, 50.0], 0.0, 100.0)
        [44.0, 56.0]
        >>> _apart([99.0, 100.0], 0.0, 100.0)
        [88.0, 100.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[tuple[float, list[int]]] = []  # height of the first label, and the labels
    for i in order:
        blocks.append((wanted[i], [i]))
        while True:
            start, members = blocks[-1]
            start = max(min(start, most - _LINE * (len(members) - 1)), low)
            blocks[-1] = (start, members)
            if len(blocks) < 2 or blocks[-2][0] + _LINE * len(blocks[-2][1]) <= start:
                break
            members = blocks[-2][1] + members
            blocks[-2:] = [
                (
                    sum(wanted[j] - _LINE * k for k, j in enumerate(members)) / len(members),
                    members,
                )
            ]
    placed = {j: start + _LINE * k for start, members in blocks for k, j in enumerate(members)}
    return [placed[i] for i in range(len(wanted))]


def _tick(value: float) -> str:
    return typographic(f"{value:g}")


def _tip(value: tuple[float, float]) -> str:
    return typographic(f"{value[0]:.1f}") + (f" ± {value[1]:.1f}" if value[1] else "")
