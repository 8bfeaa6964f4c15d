"""Figures by depth: how far a root's Fisher information reaches.

The *inheritance score* says how like the roots' Fisher is to a model's own.  It is judged by what
came of it: does a low score say beforehand that a model will not forget?
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from disinherit.common.models.membership import area_under_curve
from disinherit.simulations.bench.cells import Record
from disinherit.simulations.bench.curves import depth_curves
from disinherit.simulations.bench.markdown import NO_FIGURE, TextTable, number
from disinherit.simulations.bench.means import Side
from disinherit.simulations.bench.statistics import interval

MISSED = 5.0
"""A model did not forget if it names so many points more of what was to be forgotten than the
retrained one does."""

_SHOWN = 10
"""Depths in a table, about: evenly spread, the first and the last among them."""


def depth_table(cells: Sequence[Record], label: str, metric: str, side: Side) -> TextTable:
    """Return a metric by method and depth, with the inheritance scores of methods that have them.

    Args:
        cells: of a run.
        label: of a case with many generations.
        metric: of the panel.
        side: of the metric.
    """
    curves = {
        method: {where: number(found, 1) for where, found in curve}
        for method, curve in depth_curves(cells, label, metric, side).items()
    }
    for method, scores in _scores(cells, label).items():
        curves[f"score, {method}"] = {
            depth: number(interval(values), 3) for depth, values in scores.items()
        }
    depths = sorted({depth for curve in curves.values() for depth in curve})
    step = max(1, round(len(depths) / _SHOWN))
    shown = [*depths[:-1:step], depths[-1]]
    return TextTable(
        ("derivations below the root", *curves),
        tuple(
            (f"{depth:.0f}", *(curve.get(depth, NO_FIGURE) for curve in curves.values()))
            for depth in shown
        ),
    )


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the inheritance score said of a method's models beforehand.

    Attributes:
        method: label of the method.
        models: models with a score, over all seeds.
        missed: how many of them did not forget.
        first: the least depth at which one did not; `None` if all forgot.
        area: chance that a model which did not forget has a lower score than one which did (the
            area under the ROC curve); `None` without models of both kinds.
        highest: the highest score of a model that did not forget.
    """

    method: str
    models: int
    missed: int
    first: int | None
    area: float | None
    highest: float | None


def predictions(cells: Sequence[Record], label: str) -> list[Prediction]:
    """Judge the inheritance score of every method of a case that has it.

    Args:
        cells: of a run.
        label: of the case.
    """
    judged: dict[str, list[tuple[float, int, bool]]] = defaultdict(list)
    for cell in _of(cells, label):
        for model, score in _scored(cell):
            gap = cell["models"][model]["metrics"]["forget_accuracy"]["gap"]
            if gap is not None:
                depth = cell["models"][model]["depth"]
                judged[cell["method"]].append((score, depth, gap > MISSED))
    return [_prediction(method, found) for method, found in judged.items()]


def prediction_table(found: Sequence[Prediction]) -> TextTable:
    """Return what the inheritance score was worth, a row for each method."""
    return TextTable(
        (
            "method",
            "models",
            "did not forget",
            "first at depth",
            "AUC of the score",
            "their highest",
        ),
        tuple(
            (
                one.method,
                f"{one.models}",
                f"{one.missed}",
                NO_FIGURE if one.first is None else f"{one.first}",
                NO_FIGURE if one.area is None else f"{one.area:.2f}",
                NO_FIGURE if one.highest is None else f"{one.highest:.3f}",
            )
            for one in found
        ),
    )


def _of(cells: Sequence[Record], label: str) -> Iterator[Record]:
    return (cell for cell in cells if cell["label"] == label and not cell["not_applicable"])


def _scored(cell: Record) -> Iterator[tuple[str, float]]:
    for model, chosen in cell["chosen"].items():
        score = chosen.get("inheritance") if isinstance(chosen, dict) else None
        if score is not None and model in cell["models"]:
            yield model, score


def _scores(cells: Sequence[Record], label: str) -> dict[str, dict[float, list[float]]]:
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in _of(cells, label):
        for model, score in _scored(cell):
            found[cell["method"]][cell["models"][model]["depth"]].append(score)
    return found


def _prediction(method: str, found: Sequence[tuple[float, int, bool]]) -> Prediction:
    missed = [(score, depth) for score, depth, bad in found if bad]
    kept = [score for score, _, bad in found if not bad]
    area = None
    if missed and kept:
        # Low scores are to stand for models that do not forget.
        area = area_under_curve(
            torch.tensor([-score for score, _ in missed]), torch.tensor([-score for score in kept])
        )
    return Prediction(
        method,
        len(found),
        len(missed),
        min((depth for _, depth in missed), default=None),
        area,
        max((score for score, _ in missed), default=None),
    )
