"""Figures that follow something: depth in a chain, or how uneven the shares are."""

from collections import defaultdict
from collections.abc import Sequence

from disinherit.simulations.bench.cells import Record
from disinherit.simulations.bench.means import Side, panel_of
from disinherit.simulations.bench.statistics import Interval, interval

Curve = list[tuple[float, Interval]]
"""Points: where, and what over the seeds."""

DEEP = 5
"""From this many generations on, a case has a depth curve."""


def deep_labels(cells: Sequence[Record]) -> list[str]:
    """Return the labels of cases with enough generations for a depth curve."""
    return list(
        dict.fromkeys(
            cell["label"]
            for cell in cells
            if not cell["not_applicable"]
            and max(model["depth"] for model in cell["models"].values()) >= DEEP
        )
    )


def depth_curves(cells: Sequence[Record], label: str, metric: str, side: Side) -> dict[str, Curve]:
    """Return, for each method, a metric against the number of derivations below the root."""
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        if cell["label"] == label and not cell["not_applicable"]:
            for depth in sorted({model["depth"] for model in cell["models"].values()}):
                value = panel_of(cell, depth).get(metric, {}).get(side)
                if value is not None:
                    found[cell["method"]][depth].append(value)
    return _curves(found)


def skew_curves(
    cells: Sequence[Record], references: Sequence[Record], metric: str, side: Side
) -> dict[str, Curve]:
    """Return, for each method, a metric against the concentration of a Dirichlet partition."""
    settings = {one["case"]: one["declaration"]["settings"] for one in references}
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        case = settings[cell["case"]]
        if case["partition"] == "dirichlet" and not cell["not_applicable"]:
            value = panel_of(cell).get(metric, {}).get(side)
            if value is not None:
                found[cell["method"]][case["concentration"]].append(value)
    return _curves({m: points for m, points in found.items() if len(points) > 1})


def _curves(found: dict[str, dict[float, list[float]]]) -> dict[str, Curve]:
    return {
        method: [(where, interval(values)) for where, values in sorted(points.items())]
        for method, points in found.items()
    }
