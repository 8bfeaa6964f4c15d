"""Merges of task vectors, what models learned beyond a common base: task arithmetic and TIES.

The arithmetic is that of mergekit's methods of these names, operation by operation, so that its
merges can be computed again bit for bit.  Task arithmetic: Ilharco et al., arXiv 2212.04089; TIES:
Yadav et al., arXiv 2306.01708.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from disinherit.common.errors import CheckpointError, InputError
from disinherit.common.graph.recipes import Recipe
from disinherit.common.limits import shown
from disinherit.common.recipes.computing import Parent, flag, number, numbers, same_tensors

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def task_arithmetic(
    recipe: Recipe, parents: Sequence[Parent], like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return base + lambda * sum of weights * task vectors, divided by the weights if asked.

    Args:
        recipe: `weights`, one for each parent but the base; `lambda` (1), `normalize` (false) and
            `dtype` (that of the parents) of the computation.
        parents: the base, then the models.
        like: the merge; its names say which tensors are made.

    Raises:
        InputError: if a parameter is wrong.
        CheckpointError: if there are fewer than two parents, or their tensors differ.
    """
    return _merge(recipe, parents, like, trims=False)


def ties(
    recipe: Recipe, parents: Sequence[Parent], like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the base plus task vectors trimmed by magnitude, where their signs agree.

    Args:
        recipe: as above, with `density`, the share of values of a task vector that is kept (1), and
            `normalize` (true).
        parents: the base, then the models.
        like: the merge; its names say which tensors are made.

    Raises:
        InputError: if a parameter is wrong.
        CheckpointError: if there are fewer than two parents, or their tensors differ.
    """
    return _merge(recipe, parents, like, trims=True)


def _merge(
    recipe: Recipe, parents: Sequence[Parent], like: Mapping[str, Tensor], *, trims: bool
) -> dict[str, Tensor]:
    if len(parents) < 2:
        raise CheckpointError(
            f"Expected a base and models for recipe {recipe.name!r}, but got {len(parents)} parent."
        )
    weights = numbers(recipe, "weights", len(parents) - 1)
    densities = numbers(recipe, "density", len(parents) - 1, 1.0) if trims else []
    factor = number(recipe, "lambda", 1.0)
    normalize = flag(recipe, "normalize", trims)
    wanted = recipe.parameters.get("dtype")
    if wanted is not None and wanted not in _DTYPES:
        raise InputError(
            f"Expected dtype of recipe {recipe.name!r} among {', '.join(_DTYPES)}, but got "
            f"{shown(wanted)}."
        )
    loaded = [parent.load() for parent in parents]
    same_tensors(loaded, f"recipe {recipe.name!r}")
    made: dict[str, Tensor] = {}
    for name in like:
        if name not in loaded[0]:
            raise CheckpointError(f"Expected parents with {shown(name)}, as the merge has it.")
        base, *models = (one[name] for one in loaded)
        if not base.is_floating_point():
            made[name] = base
            continue
        if wanted is not None:
            base, *models = (one.to(_DTYPES[wanted]) for one in (base, *models))
        vectors = torch.stack([model - base for model in models])
        if trims:
            for vector, density in zip(vectors, densities, strict=True):
                vector.copy_(_largest(vector, density))
        factors = torch.tensor(weights, dtype=vectors.dtype, device=vectors.device).reshape(
            -1, *[1] * base.dim()
        )
        vectors *= factors
        if trims:
            agreed = (vectors.sum(0) >= 0).to(vectors.dtype) * 2 - 1
            kept = vectors.sign() == agreed
            total, divisor = (vectors * kept).sum(0), (factors * kept).sum(0)
            divisor[divisor == 0] = 1
        else:
            total, divisor = vectors.sum(0), factors.sum(0)
            divisor[divisor.abs() < 1e-8] = 1
        if normalize:
            total /= divisor
        if factor != 1:
            total *= factor
        made[name] = base + total
    return made


def _largest(vector: Tensor, density: float) -> Tensor:
    """Return a tensor with all but its largest values zero; at least one is kept."""
    if density >= 1:
        return vector
    if density <= 0 or not vector.numel():
        return torch.zeros_like(vector)
    count = max(1, int(density * vector.numel()))
    order = torch.argsort(vector.abs().reshape(-1).float(), descending=True)
    mask = torch.zeros(vector.numel(), dtype=vector.dtype, device=vector.device)
    mask[order[:count]] = 1
    return vector * mask.reshape(vector.shape)
