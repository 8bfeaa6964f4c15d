"""Unlearned model: the new weights of one model, before anything is stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from disinherit.client.dampening.summaries import FisherSummary
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.tensors.shards import ShardWriter
from disinherit.v1 import unlearning_pb2 as pb


@dataclass(frozen=True, slots=True, eq=False)
class UnlearnedModel:
    """Outcome of unlearning in one model, by dampening or by the changes of its roots.

    Attributes:
        result: strength or shares, and what was selected; without a successor.
        weights: the complete new weights on the CPU, with unchanged dtypes; read when they are
            asked for, where they are staged.  If nothing was selected they are the old ones: the
            gauge alone does not justify a new version.
        summary: the Fisher summary that the new version gets; `None` for none, or for that of the
            version before, unread.
        doubt: why rows that were put at the bottom of the head may not lie below the kept ones for
            every input; `""` if they do.
        exact: whether they are the weights of training without what is to be forgotten.
        changed: whether any value changed; `None` to compare them with those of before.
        cleared: whether earlier requests made it forget all of it, by what its roots sent.
        staged: where the new weights are written; `None` where they are in memory.
        keeps_summary: whether the new version has the Fisher summary of the one before.
    """

    result: pb.ModelResult
    weights: Mapping[str, Tensor]
    summary: FisherSummary | None
    doubt: str = ""
    exact: bool = False
    changed: bool | None = None
    cleared: bool = False
    staged: ShardWriter | None = None
    keeps_summary: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.staged is not None:
            self.staged.close()

    @property
    def digest(self) -> str:
        """The `weights_digest` of the new weights."""
        return weights_digest(self.weights) if self.staged is None else self.staged.digest
