"""The Fisher information of a set of samples."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from disinherit.common.errors import FisherError


@dataclass(frozen=True, slots=True, eq=False)
class Fisher:
    """Mean squared per-sample gradient.

    Attributes:
        values: parameter name -> F, of the parameter's shape, float32 or float64, >= 0; computed
            when it is asked for, where sums were factored.
        count: number of samples in the mean.

    Raises:
        FisherError: if `count` is not positive.
    """

    values: Mapping[str, Tensor]
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise FisherError(f"Expected a Fisher of at least one sample, but got {self.count}.")

    def __repr__(self) -> str:
        return f"Fisher({len(self.values)} parameters, {self.count} samples)"
