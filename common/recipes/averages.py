"""Averages of weights, computed as FedAvg and mergekit do, so that they can be made again."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from disinherit.common.errors import CheckpointError
from disinherit.common.graph.recipes import Recipe
from disinherit.common.limits import shown
from disinherit.common.recipes.computing import Parent, flag, numbers, same_tensors


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


def average_of(
    recipe: Recipe, parents: Sequence[Parent], like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the sum of parents, each multiplied by the weight of its edge, as FedAvg computes it.

    Args:
        recipe: it has no parameters.
        parents: the parents.
        like: the average.

    Raises:
        CheckpointError: as `average`.
    """
    return average((parent.load(), parent.weight) for parent in parents)


def linear(
    recipe: Recipe, parents: Sequence[Parent], like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the weighted sum of parents as mergekit's `linear` computes it, in float32 at least.

    Args:
        recipe: `weights`, one for each parent, and `normalize` (true), whether the sum is divided
            by theirs.
        parents: the parents.
        like: the merge; its names say which tensors are made.

    Raises:
        InputError: if a parameter is wrong.
        CheckpointError: if there is no parent, or their tensors differ.
    """
    weights = numbers(recipe, "weights", len(parents))
    normalize = flag(recipe, "normalize", True)
    if not parents:
        raise CheckpointError("Expected at least one parent of a linear merge, but got none.")
    loaded = [parent.load() for parent in parents]
    same_tensors(loaded, "a linear merge")
    made: dict[str, Tensor] = {}
    for name, first in loaded[0].items():
        if name not in like:
            continue
        if not first.is_floating_point():
            made[name] = first
            continue
        wide = torch.float64 if first.dtype == torch.float64 else torch.float32
        factors = torch.tensor(weights, dtype=wide, device=first.device)
        total = torch.zeros_like(first, dtype=wide)
        for one, factor in zip(loaded, factors, strict=True):
            total.addcmul_(one[name], factor)
        if normalize:
            total.div_(factors.sum())
        made[name] = total.to(first.dtype)
    return made
