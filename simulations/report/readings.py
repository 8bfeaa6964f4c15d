"""Readings of a report: accuracies with their samples, gaps to retraining, standings of models."""

from collections.abc import Sequence
from typing import Literal

from disinherit.documents.intervals import Share
from disinherit.documents.standing import ShownModel, Standing
from disinherit.documents.verdict import Pair, gaps_of
from disinherit.documents.words import number
from disinherit.simulations.report.document import Evaluation, ModelFigures, RunReport

AccuracyKey = Literal["forget_accuracy", "retain_accuracy"]

Stage = Literal["before", "after", "retrained", "published"]

TOLERANCE = 1.0
"""Percentage points above the retrained reference (or 0 %) within which a class is forgotten."""

UNFINISHED = ("ineffective", "not_reached", "harmful", "failed", "pending")
"""Outcomes of models that have not forgotten."""

_BOTH: tuple[Literal["before", "after"], ...] = ("before", "after")


def share_of(
    report: RunReport, model: ModelFigures, stage: Stage, key: AccuracyKey
) -> Share | None:
    """Return an accuracy with the number of samples it was counted on, if it was measured."""
    evaluation = model[stage]
    if evaluation is None or (percent := evaluation[key]) is None:
        return None
    sure = report.get("certainty", {}).get(model["id"], {}).get(stage, {}).get(key)
    return Share(percent, sure["samples"] if sure else 0)


def reference_of(model: ModelFigures, key: AccuracyKey) -> float | None:
    """Accuracy of the retrained model, in percent, if there is one."""
    retrained = model["retrained"]
    return None if retrained is None else retrained[key]


def gap_of(model: ModelFigures, key: AccuracyKey) -> float | None:
    """Percentage points by which an accuracy is above that of the retrained model, if known."""
    after, reference = model["after"][key], reference_of(model, key)
    return None if after is None or reference is None else after - reference


def is_done(model: ModelFigures) -> bool:
    """Whether the request was applied to the model, now or earlier."""
    return model["outcome"] in ("applied", "already_applied")


def has_forgotten(model: ModelFigures, evaluation: Evaluation) -> bool | None:
    """Whether the forget accuracy is within `TOLERANCE` of retraining; `None` if not measured."""
    accuracy = evaluation["forget_accuracy"]
    if accuracy is None:
        return None
    return accuracy <= (reference_of(model, "forget_accuracy") or 0.0) + TOLERANCE


def affected_models(report: RunReport) -> list[ModelFigures]:
    """The models the request concerns, in the order of the report."""
    return [model for model in report["models"] if model["role"] != "untouched"]


def standing_of(model: ModelFigures) -> Standing:
    """Return where a model stands, by its outcome and its figures."""
    if model["role"] == "untouched" or model["outcome"] == "untouched":
        return Standing.LEFT
    if not is_done(model):
        stands = {"failed": Standing.FAILED, "pending": Standing.OPEN}
        return stands.get(model["outcome"], Standing.KEPT)
    forgot = has_forgotten(model, model["after"])
    if forgot is False:
        return Standing.KEPT
    return Standing.UNSHOWN if forgot is None or hardly_knew(model) else Standing.FORGOT


def shown_model(model: ModelFigures) -> ShownModel:
    """Return a model as pictures show it."""
    note = ""
    if model["role"] != "untouched":
        before, after = (number(model[key]["forget_accuracy"]) for key in _BOTH)
        note = f"{model['outcome'].replace('_', ' ')}; forget accuracy {before} → {after} %"
    return ShownModel(model["id"], model["owner"], model["role"], standing_of(model), note)


def hardly_knew(model: ModelFigures) -> bool:
    """Whether a model recognised the classes neither before nor afterwards: it shows nothing."""
    applied = model["outcome"] == "applied"
    return applied and all(has_forgotten(model, model[key]) is True for key in _BOTH)


def by_standing(report: RunReport, models: Sequence[ModelFigures]) -> list[ModelFigures]:
    """Return models with the worst first: by standing, then by what they kept and lost."""

    def badness(model: ModelFigures) -> tuple[int, float, float]:
        forget = gaps_of(pairs_of(report, [model], "forget_accuracy"))
        retain = gaps_of(pairs_of(report, [model], "retain_accuracy"))
        still = forget[0].points if forget else -100.0
        apart = abs(retain[0].points) if retain else 0.0
        return standing_of(model).rank, -max(still, 0.0), -apart

    return sorted(models, key=badness)


def pairs_of(report: RunReport, models: Sequence[ModelFigures], key: AccuracyKey) -> list[Pair]:
    """Return what was measured after the request, and after training without the data."""
    return [
        (m["id"], share_of(report, m, "after", key), share_of(report, m, "retrained", key))
        for m in models
    ]
