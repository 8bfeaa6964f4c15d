"""Plots of powers: on two logarithmic axes they are straight lines."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from disinherit.documents.plots import SERIES, line_names
from disinherit.documents.svg import line, path, svg, text


@dataclass(frozen=True, slots=True)
class Series:
    """Points with the law through them: (x, y) of each, by x, and of both ends of the law."""

    name: str
    points: Sequence[tuple[float, float]]
    law: Sequence[tuple[float, float]]


def growth_plot(
    series: Sequence[Series], wanted: float, x_title: str, y_title: str, label: str
) -> Markup:
    """Draw points and the law through them on two logarithmic axes, with a line at what is wanted.

    A power is a straight line there.  Each series has its name at the end of its law.

    Args:
        series: to draw, at least one, all values above 0.
        wanted: value of y that stands out.
        x_title: of the horizontal axis.
        y_title: of the vertical axis.
        label: what the plot shows.
    """
    left, top, wide, high = 48.0, 10.0, 300.0, 230.0
    every = [point for one in series for point in (*one.points, *one.law)]
    start, end = _decades([x for x, _ in every])
    low, most = _decades([wanted, *(y for _, y in every)])

    def place(x: float, y: float) -> tuple[float, float]:
        along = (math.log10(x) - start) / (end - start)
        return left + wide * along, top + high * (1 - (math.log10(y) - low) / (most - low))

    body = []
    for tick in range(start, end + 1):
        x, _ = place(10.0**tick, 10.0**low)
        body.append(line(x, top, x, top + high, "axis"))
        body.append(text(x, top + high + 14, f"{10.0**tick:g}", "tick middle"))
    for tick in range(low, most + 1):
        _, y = place(10.0**start, 10.0**tick)
        body.append(line(left, y, left + wide, y, "axis"))
        body.append(text(left - 6, y + 3.5, f"{10.0**tick:g}", "tick end"))
    _, y = place(10.0**start, wanted)
    body.append(line(left, y, left + wide, y, "wanted"))
    body.append(text(left + wide / 2, top + high + 29, x_title, "tick middle"))
    body.append(text(10, top + high / 2, y_title, "tick middle", rotate=-90))
    ends = []
    for number, one in enumerate(series):
        css = f"s{number % SERIES}"
        spots = "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.8" class="mark"/>'
            for x, y in (place(*point) for point in one.points)
        )
        law = [place(*point) for point in one.law]
        body.append(
            f'<g class="{css}"><title>{escape(one.name)}</title>'
            f'<path d="{path(law)}" class="curve"/>{spots}</g>'
        )
        ends.append((one.name, law[-1], css))
    edge = left + wide
    body += line_names(ends, edge, top, high, 30)
    return svg(edge + 190, top + high + 36, label, body, "lines")


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Return the powers of ten around values.

    Example:
        >>> _decades([0.3, 20.0]), _decades([1.0])
        ((-1, 2), (0, 1))
    """
    low, most = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(most, low + 1)
