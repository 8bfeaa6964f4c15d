"""Quantised copies in the blocks of GGUF: of 32 values in a row, as 8-bit or 4-bit integers.

A block is two bytes, the factor of its values in float16, and then the integers; of 4 bits, the
first half of a block is in the lower halves of its bytes.  Which tensors are quantised, the copy
itself says: it has bytes for them.  Names are those of the parent, and nothing is permuted.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from disinherit.common.errors import CheckpointError
from disinherit.common.graph.recipes import Recipe
from disinherit.common.recipes.computing import Parent, only_parent, parent_tensor

BLOCK = 32
"""Values of a block."""

_FACTOR = 2  # bytes
_BYTES = {"q8_0": BLOCK, "q4_0": BLOCK // 2}
"""Recipe -> bytes of the integers of a block."""


def blocks(
    recipe: Recipe, parents: Sequence[Parent], like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return a copy with matrices as Q8_0 or Q4_0, which the name of the recipe says.

    A matrix `[rows, columns]` becomes bytes `[rows, columns / 32 * 34]`, or 18 for 34.

    Args:
        recipe: it has no parameters.
        parents: the one model.
        like: the copy.

    Raises:
        CheckpointError: if there is more than one parent, it lacks a tensor, or its rows are not of
            whole blocks.
    """
    source = only_parent(recipe, parents)
    made: dict[str, Tensor] = {}
    for name, old in like.items():
        value = parent_tensor(source, name)
        made[name] = packed(recipe.name, value) if old.dtype == torch.uint8 else value
    return made


def packed(kind: str, matrix: Tensor) -> Tensor:
    """Return a matrix as bytes.

    Args:
        kind: `q8_0` or `q4_0`.
        matrix: `[rows, columns]`.

    Raises:
        CheckpointError: if its rows are not of whole blocks.
    """
    if matrix.ndim != 2 or matrix.shape[1] % BLOCK:
        raise CheckpointError(
            f"Expected a matrix with rows of whole blocks of {BLOCK}, but got {list(matrix.shape)}."
        )
    values = matrix.float().reshape(-1, BLOCK)
    integers, factors = (_eight if kind == "q8_0" else _four)(values)
    joined = torch.cat([factors.half().view(torch.uint8), integers], dim=1)
    return joined.reshape(len(matrix), -1)


def unpacked(kind: str, data: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the values that bytes stand for, in float32.

    Args:
        kind: `q8_0` or `q4_0`.
        data: the bytes.
        shape: of the matrix.

    Raises:
        CheckpointError: if they do not fit.
    """
    size = _FACTOR + _BYTES[kind]
    if data.dtype != torch.uint8 or data.numel() * BLOCK != math.prod(shape) * size:
        raise CheckpointError(
            f"Expected {kind} bytes of a matrix of {list(shape)}, but got {data.numel()} of "
            f"{data.dtype}."
        )
    rows = data.reshape(-1, size)
    factors = rows[:, :_FACTOR].contiguous().view(torch.float16).float()
    integers = rows[:, _FACTOR:].contiguous()
    if kind == "q8_0":
        found = integers.view(torch.int8).float()
    else:
        found = torch.cat([integers & 15, integers >> 4], dim=1).float() - 8
    return (found * factors).reshape(*shape)


def _eight(values: Tensor) -> tuple[Tensor, Tensor]:
    factors = values.abs().amax(1, keepdim=True) / 127
    scaled = values * _inverse(factors)
    size = scaled.abs()
    whole = size.floor()
    # Halves are rounded away from zero, as roundf in C does.
    rounded = scaled.sign() * (whole + (2 * (size - whole)).floor())
    return rounded.to(torch.int8).view(torch.uint8), factors


def _four(values: Tensor) -> tuple[Tensor, Tensor]:
    place = values.abs().argmax(1, keepdim=True)
    factors = values.gather(1, place) / -8
    rounded = (values * _inverse(factors) + 8.5).trunc().clamp(0, 15).to(torch.uint8)
    first, second = rounded.chunk(2, dim=1)
    return first | second << 4, factors


def _inverse(factors: Tensor) -> Tensor:
    return torch.where(factors == 0, 0, 1 / factors)
