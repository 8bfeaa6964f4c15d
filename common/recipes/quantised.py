"""Quantised copies, in the layouts of bitsandbytes: 8-bit integers, and 4-bit normal floats.

Which tensors are quantised, the copy itself says.  LLM.int8(): Dettmers et al., arXiv 2208.07339;
NF4: Dettmers et al., arXiv 2305.14314.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from disinherit.common.errors import CheckpointError
from disinherit.common.graph.recipes import Recipe
from disinherit.common.limits import shown
from disinherit.common.recipes.computing import Parent, only_parent, parent_tensor

_VALUES = 16
"""Values that 4 bits stand for."""

_STATE = ".quant_state.bitsandbytes__nf4"


def int8(
    recipe: Recipe, parents: Sequence[Parent], like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return a copy with matrices as 8-bit integers and the largest value of each row.

    A matrix `M.weight` `[rows, columns]` becomes integers of that name and `M.SCB` `[rows]`, both
    of its values in float16.

    Args:
        recipe: it has no parameters.
        parents: the one model.
        like: the copy.

    Raises:
        CheckpointError: if there is more than one parent, or it lacks a tensor.
    """
    source = only_parent(recipe, parents)
    made: dict[str, Tensor] = {}
    for name, old in like.items():
        if name.endswith(".weight_format"):  # how the integers are laid out in memory
            made[name] = old
        elif name.endswith(".SCB"):
            made[name] = _highest(parent_tensor(source, name.removesuffix("SCB") + "weight"))
        elif old.dtype == torch.int8:
            value = parent_tensor(source, name)
            rows = _highest(value)[:, None].clamp_min(torch.finfo(torch.float32).tiny)
            made[name] = (value.half().float() * 127 / rows).round().to(torch.int8)
        else:
            made[name] = parent_tensor(source, name)
    return made


def nf4(recipe: Recipe, parents: Sequence[Parent], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy with matrices as 4-bit normal floats in blocks, each by its largest value.

    A matrix `M.weight` becomes bytes of that name, two values in each, the first in the upper half,
    and `M.weight.absmax` `[blocks]`, `M.weight.quant_map` `[16]` and the description of the format.

    Args:
        recipe: it has no parameters.
        parents: the one model.
        like: the copy; its map of values and descriptions of the format are kept.

    Raises:
        CheckpointError: if there is more than one parent, it lacks a tensor, or the copy quantises
            the largest values of blocks as well.
    """
    source = only_parent(recipe, parents)
    made: dict[str, Tensor] = {}
    for name, old in like.items():
        matrix, _, part = name.rpartition(".")
        if name.endswith((".nested_absmax", ".nested_quant_map")):
            raise CheckpointError(
                f"Expected a copy whose blocks are not quantised twice, but got {shown(name)}."
            )
        if name.endswith((".quant_map", _STATE)):
            made[name] = old
        elif part == "absmax":
            made[name] = _blocks(parent_tensor(source, matrix), old.numel()).abs().amax(1)
        elif f"{name}.absmax" in like:
            count = like[f"{name}.absmax"].numel()
            made[name] = _packed(
                _blocks(parent_tensor(source, name), count), like[f"{name}.quant_map"]
            ).reshape(old.shape)
        else:
            made[name] = parent_tensor(source, name)
    return made


def is_quantised(weights: Mapping[str, Tensor], name: str) -> bool:
    """Return whether a tensor of a copy is a quantised matrix, in one of the layouts here."""
    return f"{name}.absmax" in weights or (
        name in weights
        and weights[name].dtype == torch.int8
        and f"{name.removesuffix('weight')}SCB" in weights
    )


def unquantised(weights: Mapping[str, Tensor], name: str, shape: Sequence[int]) -> Tensor:
    """Return the values that a quantised matrix stands for, in float32.

    In torch alone: what bitsandbytes itself computes on a CPU depends on its release.

    Args:
        weights: a copy, or the tensors of one of its layers.
        name: the matrix, for which `is_quantised`.
        shape: its shape before, `[rows, columns]`.

    Raises:
        CheckpointError: if its tensors do not fit each other or the shape.
    """
    packed, count, matrix = weights[name], math.prod(shape), name.removesuffix("weight")
    rows, layout = weights.get(f"{matrix}SCB"), weights.get(f"{matrix}weight_format")
    highest, values = weights.get(f"{name}.absmax"), weights.get(f"{name}.quant_map")
    by_row = layout is None or not layout.any()
    if packed.dtype == torch.int8 and rows is not None and by_row:
        if packed.numel() == count and len(shape) == 2 and rows.shape == (shape[0],):
            return packed.reshape(*shape).float() * rows[:, None] / 127
    elif packed.dtype == torch.uint8 and highest is not None and values is not None:
        blocks = highest.numel() if highest.is_floating_point() else 0
        if values.numel() == _VALUES and 2 * packed.numel() == count and _divides(blocks, count):
            both = packed.reshape(-1).long()
            found = values[torch.stack([both >> 4, both & 15], 1)].reshape(blocks, -1)
            return (found * highest.reshape(-1, 1)).reshape(*shape)
    raise CheckpointError(
        f"Expected {shown(name)} with the tensors of a quantised matrix of {list(shape)}, but "
        "they do not fit. Quantise the model again, its blocks once."
    )


def _divides(part: int, whole: int) -> bool:
    return part > 0 and whole % part == 0


def _highest(matrix: Tensor) -> Tensor:
    return matrix.half().abs().amax(1).float()


def _blocks(matrix: Tensor, count: int) -> Tensor:
    """Return a matrix as float32 blocks `[blocks, size]`."""
    if not count or matrix.numel() % count:
        raise CheckpointError(
            f"Expected a matrix of {count} whole blocks, but got {list(matrix.shape)}."
        )
    return matrix.float().reshape(count, -1)


def _packed(blocks: Tensor, values: Tensor) -> Tensor:
    """Return the nearest of 16 values of each element, two in a byte."""
    scaled = (blocks / blocks.abs().amax(1, keepdim=True)).nan_to_num().reshape(-1)
    halfway = (values[1:] + values[:-1]) / 2
    nearest = torch.bucketize(scaled, halfway)
    return (nearest[0::2] << 4 | nearest[1::2]).to(torch.uint8)
