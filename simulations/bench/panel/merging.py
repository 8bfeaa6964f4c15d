"""Merging: what comes back when an unlearned model is averaged with one that still remembers."""

from disinherit.common.errors import NotMeasuredError
from disinherit.simulations.bench.cases.subjects import MethodCase, Weights
from disinherit.simulations.bench.panel.accuracies import forget_accuracy, retain_accuracy
from disinherit.simulations.bench.panel.exam import EvaluationContext, ModelUnderTest


def merged_accuracy(exam: EvaluationContext, candidate: ModelUnderTest) -> dict[str, float]:
    """Forget and retain accuracy of the average with a sibling that was not unlearned.

    The retrained model remembers something after that, too: what the sibling knows.
    """
    sibling = sibling_of(exam.case, exam.subject.id)
    if sibling is None:
        raise NotMeasuredError(
            f"no other affected model has the classes and shapes of {exam.subject.id}"
        )
    merged = exam.candidate(
        merged_with(dict(candidate.network.state_dict()), exam.case.subjects[sibling].original)
    )
    found = forget_accuracy(exam, merged) | retain_accuracy(exam, merged)
    return {f"merged_{name}": value for name, value in found.items()}


def sibling_of(case: MethodCase, model: str) -> str | None:
    """Return the affected model that shares most parents with a model, or `None`.

    It has the same classes and shapes; of several, it is the first in the case.
    """
    mine = case.subjects[model]
    shapes = {name: value.shape for name, value in mine.original.items()}
    alike = [
        name
        for name, other in case.subjects.items()
        if name != model
        and other.labels == mine.labels
        and {key: value.shape for key, value in other.original.items()} == shapes
    ]
    return max(
        alike,
        key=lambda name: len(set(case.subjects[name].parents) & set(mine.parents)),
        default=None,
    )


def merged_with(weights: Weights, other: Weights) -> Weights:
    """Return the average of two models; what counts steps is the first one's."""
    return {
        name: (value + other[name]) / 2 if value.is_floating_point() else value
        for name, value in weights.items()
    }
