"""What a method changed at the roots, added to models that have nothing of their own to forget."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from disinherit.simulations.bench.cases.subjects import MethodCase, MethodSubject, Weights
from disinherit.simulations.bench.methods.campaign import broadcast
from disinherit.simulations.bench.methods.head_reset import aligned
from disinherit.simulations.bench.methods.method import Unlearned
from disinherit.simulations.bench.methods.tuning import Tuner

T = TypeVar("T")


def difference(subject: MethodSubject, new: Weights) -> Weights:
    """Return what new weights of a subject differ by from its original ones, without counters."""
    return {
        name: value - subject.original[name]
        for name, value in new.items()
        if value.is_floating_point()
    }


def with_differences(
    case: MethodCase, model: str, differences: Mapping[str, Weights], scale: float = 1.0
) -> Weights:
    """Return a model's original weights with the differences of all roots above it added.

    Args:
        case: the case.
        model: id of a subject.
        differences: root -> what it differs by.
        scale: of a difference that is not the model's own.
    """
    subject = case.subjects[model]
    weights = dict(subject.original)
    for root in case.upstream(model):
        factor = 1.0 if root == model else scale
        for name, change in aligned(differences[root], case.subjects[root], subject).items():
            weights[name] = weights[name] + factor * change
    return weights


def trained_or_handed_down(
    case: MethodCase, tuner: Tuner[T], trained: Callable[[MethodSubject, T], Weights]
) -> Unlearned:
    """Return what a method makes that needs the samples to forget, which descendants do not have.

    A model with samples of its own to forget is trained with the candidate that is best on its
    tuning split.  Every other one gets the differences that this made at the roots above it.

    Args:
        case: the case.
        tuner: with the candidates.
        trained: what a candidate makes of a subject with samples to forget.
    """
    weights = {
        name: tuner.best(name, partial(trained, subject))
        for name, subject in case.subjects.items()
        if len(subject.forget)
    }
    differences = {root: difference(case.subjects[root], weights[root]) for root in case.roots}
    for name in case.subjects:
        if name not in weights:
            weights[name] = with_differences(case, name, differences)
    return Unlearned(
        weights,
        sent=broadcast(case, differences),
        tune_seconds=tuner.seconds,
        chosen=tuner.record(),
    )
