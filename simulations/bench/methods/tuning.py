"""Choice of hyper-parameters on the tuning split: one score and budget for every method."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch

from disinherit.common.errors import InputError
from disinherit.simulations.bench.cases.subjects import MethodCase, MethodSubject, Samples, Weights
from disinherit.simulations.bench.panel.outputs import logits_of

T = TypeVar("T")

BUDGET = 18
"""Candidates that a method may try on a model, at most."""


@dataclass
class Tuner(Generic[T]):
    """Chooses among candidates, model by model.

    Attributes:
        case: the case.
        candidates: what there is to choose from, the default first; at most `BUDGET`.
        chosen: model -> what was chosen.
        seconds: what choosing took.

    Raises:
        InputError: if there are too many candidates, or none.
    """

    case: MethodCase
    candidates: Sequence[T]
    chosen: dict[str, T] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= len(self.candidates) <= BUDGET:
            raise InputError(
                f"Expected 1 to {BUDGET} candidates to choose from, but got "
                f"{len(self.candidates)}: the budget is the same for all methods."
            )

    def best(self, model: str, weights: Callable[[T], Weights]) -> Weights:
        """Return the weights of the candidate with the best score on a model's tuning split.

        A model that has nothing to weigh candidates with takes what its first root took, or the
        default.

        Args:
            model: id of a subject.
            weights: what a candidate leads to.
        """
        started = time.perf_counter()
        scored = score_of(self.case, model)
        best: tuple[float, T, Weights] | None = None
        if scored is not None and len(self.candidates) > 1:
            for candidate in self.candidates:
                made = weights(candidate)
                score = scored(made)
                if best is None or score > best[0] + 1e-12:
                    best = score, candidate, made
        if best is None:
            inherited = self.chosen.get(self.case.upstream(model)[0], self.candidates[0])
            self.chosen[model] = inherited
            return weights(inherited)
        self.chosen[model] = best[1]
        self.seconds += time.perf_counter() - started
        return best[2]

    def record(self) -> dict[str, Any]:
        """Return what was chosen, for the record."""
        return {model: str(choice) for model, choice in self.chosen.items()}


def score_of(case: MethodCase, model: str) -> Callable[[Weights], float] | None:
    """Return the score of weights on what the model's owner has, in [0, 1]; `None` if on nothing.

    Classes: `(1 - forget) retain`, accuracies on the tuning split.  Samples: with the accuracy
    `forget` on the model's own samples to forget, `(1 - |forget - retain|) retain`, since samples
    that were never seen are classified like any others.  A backdoor: `(1 - forget) retain`, since
    its samples are wrong on purpose.
    """
    subject = case.subjects[model]
    if case.by_class:
        mask = torch.isin(subject.tuning.targets, torch.tensor(case.forgotten(model)))
        forget, retain = subject.tuning[mask], subject.tuning[~mask]
    else:
        forget, retain = subject.forget, subject.tuning
    if not len(forget) or not len(retain):
        return None
    alike = not case.by_class and case.granularity != "backdoor"

    def score(weights: Weights) -> float:
        forgot, kept = (accuracy(subject, weights, samples) for samples in (forget, retain))
        return (1 - abs(forgot - kept) if alike else 1 - forgot) * kept

    return score


def accuracy(subject: MethodSubject, weights: Weights, samples: Samples) -> float:
    """Return the accuracy of a subject with given weights, in [0, 1]."""
    right = logits_of(subject.network(weights), samples).argmax(dim=1) == samples.targets
    return right.double().mean().item()
