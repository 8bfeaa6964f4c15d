"""Unlearned model: the new weights of one model, before anything is stored."""

from dataclasses import dataclass

from torch import Tensor

from disinherit.client.dampening.summaries import FisherSummary
from disinherit.v1 import unlearning_pb2 as pb


@dataclass(frozen=True, slots=True, eq=False)
class UnlearnedModel:
    """Outcome of unlearning in one model, by dampening or by the changes of its roots.

    Attributes:
        result: strength or shares, and what was selected; without a successor.
        weights: the complete new weights on the CPU, with unchanged dtypes.  If nothing was
            selected they are the old ones: the gauge alone does not justify a new version.
        summary: the Fisher summary of before, which the new version inherits; `None` for none.
        doubt: why rows that were put at the bottom of the head may not lie below the kept ones for
            every input; `""` if they do.
        exact: whether they are the weights of training without what is to be forgotten.
        changed: whether any value changed; `None` to compare them with those of before.
        cleared: whether earlier requests made it forget all of it, by what its roots sent.
    """

    result: pb.ModelResult
    weights: dict[str, Tensor]
    summary: FisherSummary | None
    doubt: str = ""
    exact: bool = False
    changed: bool | None = None
    cleared: bool = False
