"""Cutting the forgotten classes' rows out of the head: the baseline that every other must beat."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from disinherit.common.errors import NotApplicableError, ScopeError
from disinherit.common.fiun.alignment import align_rows
from disinherit.simulations.bench.cases.subjects import MethodCase, MethodSubject, Weights
from disinherit.simulations.bench.methods.method import Unlearned


@dataclass(frozen=True)
class HeadReset:
    """Zeroes the rows of the forgotten classes and masks them by their bias.

    Attributes:
        margin: how far below all other biases those of the rows are set.
    """

    margin: float = 30.0

    def __call__(self, case: MethodCase) -> Unlearned:
        """Reset the rows in every affected model.

        Raises:
            NotApplicableError: if samples are to be forgotten, for which there is no row, or the
                head has no bias to mask with.
        """
        if not case.by_class:
            raise NotApplicableError("the head has a row for a class, but none for samples")
        weights: dict[str, Weights] = {}
        for name, subject in case.subjects.items():
            layers = subject.head().layers
            if len(layers) > 1:
                raise NotApplicableError(
                    f"the logits of model {name} are the sum of several layers"
                )
            (head,) = layers
            if head.bias is None:
                raise NotApplicableError(f"the head of model {name} has no bias to mask with")
            new = dict(subject.original)
            rows = list(case.forgotten(name))
            new[head.weight] = new[head.weight].clone()
            new[head.weight][rows] = 0.0
            new[head.bias] = new[head.bias].clone()
            new[head.bias][rows] = new[head.bias].min() - self.margin
            weights[name] = new
        return Unlearned(weights)


def aligned(
    values: Mapping[str, Tensor], source: MethodSubject, target: MethodSubject
) -> dict[str, Tensor]:
    """Return the values for the parameters that a target has as well.

    Rows of the head are matched by class name; a class that the source does not know has zeros.
    Parameters that the target does not have, or has in another shape, are left out.
    """
    try:
        head = source.head().parameters
    except ScopeError:
        head = ()
    placed = {
        name: align_rows(value, source.labels, target.labels) if name in head else value
        for name, value in values.items()
    }
    return {
        name: value
        for name, value in placed.items()
        if name in target.original and target.original[name].shape == value.shape
    }
