"""Values of one model's parameters brought into the shape of another's."""

from collections.abc import Mapping

from torch import Tensor

from disinherit.common.errors import ScopeError
from disinherit.common.fiun.alignment import align_rows
from disinherit.simulations.bench.cases.subjects import MethodSubject


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
