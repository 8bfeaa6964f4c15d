"""Quantised copies, in the layouts of bitsandbytes: 8-bit integers, and 4-bit normal floats.

Which tensors are quantised, the copy itself says.  LLM.int8(): Dettmers et al., arXiv 2208.07339;
NF4: Dettmers et al., arXiv 2305.14314.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from disinherit.common.errors import CheckpointError
from disinherit.common.graph.recipes import Recipe
from disinherit.common.limits import shown
from disinherit.common.recipes.computing import Parent

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
    source = _only(recipe, parents)
    made: dict[str, Tensor] = {}
    for name, old in like.items():
        if name.endswith(".weight_format"):  # how the integers are laid out in memory
            made[name] = old
        elif name.endswith(".SCB"):
            made[name] = _highest(_tensor(source, name.removesuffix("SCB") + "weight"))
        elif old.dtype == torch.int8:
            value = _tensor(source, name)
            rows = _highest(value)[:, None].clamp_min(torch.finfo(torch.float32).tiny)
            made[name] = (value.half().float() * 127 / rows).round().to(torch.int8)
        else:
            made[name] = _tensor(source, name)
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
    source = _only(recipe, parents)
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
            made[name] = _blocks(_tensor(source, matrix), old.numel()).abs().amax(1)
        elif f"{name}.absmax" in like:
            count = like[f"{name}.absmax"].numel()
            made[name] = _packed(
                _blocks(_tensor(source, name), count), like[f"{name}.quant_map"]
            ).reshape(old.shape)
        else:
            made[name] = _tensor(source, name)
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
    packed = weights[name]
    try:
        if f"{name}.absmax" not in weights:
            rows = weights[f"{name.removesuffix('weight')}SCB"]
            return (packed.float() * rows[:, None] / 127).reshape(*shape)
        both = packed.reshape(-1).long()
        places = torch.stack([both >> 4, both & 15], 1)
        highest = weights[f"{name}.absmax"]
        blocks = weights[f"{name}.quant_map"][places].reshape(highest.numel(), -1)
        return (blocks * highest[:, None]).reshape(*shape)
    except (KeyError, IndexError, RuntimeError) as error:
        raise CheckpointError(
            f"Expected {shown(name)} to be a quantised matrix of {list(shape)} values, but its "
            f"tensors do not fit",
            foreign=" ".join(str(error).split()),
        ) from error


def _only(recipe: Recipe, parents: Sequence[Parent]) -> Mapping[str, Tensor]:
    if len(parents) != 1:
        raise CheckpointError(
            f"Expected one parent for recipe {recipe.name!r}, but got {len(parents)}."
        )
    return parents[0].load()


def _tensor(source: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in source:
        raise CheckpointError(f"Expected a parent with {shown(name)}, as its quantised copy has.")
    return source[name]


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
