"""Comparison of two methods: which is closer to exact retraining, beyond noise.

Both are run on the same cases, so they are compared seed by seed.  The distance of a method is the
absolute gap of its figure to that of the retrained models; the difference of two distances is taken
for each seed, and is beyond noise where its 95% t-interval over the seeds does not contain 0.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from disinherit.simulations.bench.cells import Record
from disinherit.simulations.bench.means import PANEL, panel_of
from disinherit.simulations.bench.statistics import Interval, interval

Verdict = Literal["closer", "same", "farther"]


@dataclass(frozen=True, slots=True)
class MethodComparison:
    """A metric of one method beside that of another.

    Attributes:
        metric: name of the metric.
        difference: distance of the one minus distance of the other, over the seeds; below 0 where
            the one is closer to retraining.
    """

    metric: str
    difference: Interval

    @property
    def verdict(self) -> Verdict:
        """What can be said beyond noise; nothing from a single seed."""
        if self.difference.half is None or self.difference.low <= 0 <= self.difference.high:
            return "same"
        return "closer" if self.difference.mean < 0 else "farther"


def compare(cells: Iterable[Record], label: str, one: str, other: str) -> list[MethodComparison]:
    """Compare two methods on all cases of a label, metric by metric.

    Args:
        cells: of a run.
        label: of the cases.
        one: label of a method.
        other: label of the method it is compared with.

    Returns:
        One comparison for each metric that both have for at least one seed.
    """
    by_method: dict[str, dict[str, Mapping[str, Record]]] = {one: {}, other: {}}
    for cell in cells:
        if cell["label"] == label and cell["method"] in by_method and not cell["not_applicable"]:
            by_method[cell["method"]][cell["case"]] = panel_of(cell)
    shared = [case for case in by_method[one] if case in by_method[other]]
    found = []
    for metric in PANEL:
        differences = [
            abs(mine) - abs(theirs)
            for case in shared
            if (mine := _gap(by_method[one][case], metric.name)) is not None
            and (theirs := _gap(by_method[other][case], metric.name)) is not None
        ]
        if differences:
            found.append(MethodComparison(metric.name, interval(differences)))
    return found


def counts(comparisons: Sequence[MethodComparison]) -> dict[Verdict, int]:
    """Return how many metrics have each verdict."""
    verdicts: tuple[Verdict, ...] = ("closer", "same", "farther")
    return {v: sum(one.verdict == v for one in comparisons) for v in verdicts}


def _gap(panel: Mapping[str, Record], metric: str) -> float | None:
    gap: float | None = panel.get(metric, {}).get("gap")
    return gap
