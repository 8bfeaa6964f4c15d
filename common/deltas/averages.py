"""Averages of weights, computed as FedAvg does, so that they can be computed again bit for bit."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from disinherit.common.errors import CheckpointError
from disinherit.common.limits import shown


@torch.no_grad()
def average(parents: Iterable[tuple[Mapping[str, Tensor], float]]) -> dict[str, Tensor]:
    """Return the weighted sum of parents, added one after the other.

    Each value is multiplied by the weight in the dtype of its tensor; integers become float64.
    At most one parent is needed at a time.

    Args:
        parents: weights and factor of each, in the order of addition.

    Raises:
        CheckpointError: if there is no parent, or names, shapes or dtypes differ.

    Example:
        >>> average([({"w": torch.tensor([1.0])}, 0.25), ({"w": torch.tensor([3.0])}, 0.75)])
        {'w': tensor([2.5000])}
    """
    total: dict[str, Tensor] = {}
    for weights, factor in parents:
        if total and weights.keys() != total.keys():
            other = min(weights.keys() ^ total.keys())
            raise CheckpointError(
                f"Expected parents of an average with the same tensors, but got only in one of "
                f"them {shown(other)}."
            )
        first = not total
        for name, value in weights.items():
            wide = value if value.is_floating_point() else value.double()
            part = wide * torch.tensor(factor, dtype=wide.dtype)
            if first:
                total[name] = part
            elif part.shape != total[name].shape or part.dtype != total[name].dtype:
                raise CheckpointError(
                    f"Expected parents of an average with {shown(name)} as {total[name].dtype} "
                    f"{list(total[name].shape)}, but got {part.dtype} {list(part.shape)}."
                )
            else:
                total[name] += part
    if not total:
        raise CheckpointError("Expected at least one parent with tensors to average, but got none.")
    return total
