"""Changes of roots for classes: features from a replay of each root, rows taken out of the head."""

from collections.abc import Mapping
from dataclasses import dataclass

from disinherit.common.errors import NotApplicableError
from disinherit.common.fiun.unlearning import clear_rows
from disinherit.common.method import DELTA_REPAIR
from disinherit.simulations.bench.cases.subjects import MethodCase, Weights
from disinherit.simulations.bench.methods.campaign import broadcast
from disinherit.simulations.bench.methods.handing_down import (
    coefficients_of,
    difference,
    hand_down,
    repaired,
)
from disinherit.simulations.bench.methods.method import Unlearned


@dataclass(frozen=True)
class ChangesForClasses:
    """What `ours` does for samples, with the rule of the head for classes.

    Each root is trained again exactly without the classes.  Its change goes to all descendants,
    times the coefficient that a coordinator finds; their rows of the classes are taken out of the
    head, also after the repair.  Roots keep what their replay gave.

    Attributes:
        repair_steps: steps of training of each descendant on its retained samples; 0 for none.
    """

    repair_steps: int = DELTA_REPAIR

    def __call__(self, case: MethodCase) -> Unlearned:
        """Replay the roots, and hand their changes down.

        Raises:
            NotApplicableError: if samples are to be forgotten, for which there is no row.
        """
        if not case.by_class:
            raise NotApplicableError("the head has a row for a class, but none for samples")
        changes: dict[str, Weights] = {}
        for root in case.roots:
            subject = case.subjects[root]
            changes[root] = difference(subject, case.retrain(root, range(len(subject.forget))))
        originals = {model: subject.original for model, subject in case.subjects.items()}
        weights = hand_down(case, originals, changes, coefficients_of(case))
        _take_rows_out(case, weights)
        if self.repair_steps:
            weights = repaired(case, weights, self.repair_steps)
            _take_rows_out(case, weights)
        return Unlearned(weights, sent=broadcast(case, changes))


def _take_rows_out(case: MethodCase, weights: Mapping[str, Weights]) -> None:
    """Take the forgotten classes' rows out of the heads of all descendants, in place."""
    for model, subject in case.subjects.items():
        if model not in case.roots:
            clear_rows(weights[model], subject.head().names, case.forgotten(model))
