"""Tensors that are computed each time they are asked for, so that nobody has to hold them all."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from torch import Tensor

BLOCK = 2**18
"""Values of a large tensor that are computed at a time."""


class LazyTensors(Mapping[str, Tensor]):
    """Tensors by name, computed when they are asked for.

    Args:
        names: their names.
        compute: name -> the tensor; another copy each time, or the same.
        block: name and rows -> these rows of the tensor, where that takes less than all of it;
            `None` where it does not.
        shapes: name -> shape, of tensors that `block` can divide.

    Example:
        >>> import torch
        >>> halves = LazyTensors(["w"], lambda name: torch.ones(2) / 2)
        >>> halves["w"], list(halves), "b" in halves
        (tensor([0.5000, 0.5000]), ['w'], False)
    """

    def __init__(
        self,
        names: Iterable[str],
        compute: Callable[[str], Tensor],
        block: Callable[[str, slice], Tensor] | None = None,
        shapes: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self._names = dict.fromkeys(names)
        self._compute = compute
        self._block = block
        self.shapes: Mapping[str, Sequence[int]] = shapes or {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._compute(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # nothing is computed

    def block(self, name: str, rows: slice) -> Tensor:
        """Return some rows of a tensor, where possible without the others."""
        if name not in self._names:
            raise KeyError(name)
        return self._compute(name)[rows] if self._block is None else self._block(name, rows)


def rows_of(tensors: Mapping[str, Tensor], name: str, rows: slice) -> Tensor:
    """Return some rows of one of several tensors, without the others where it is divided.

    Args:
        tensors: tensors by name.
        name: one of them, of at least one dimension.
        rows: places in its first dimension.
    """
    return tensors.block(name, rows) if isinstance(tensors, LazyTensors) else tensors[name][rows]


def shape_of(tensors: Mapping[str, Tensor], name: str) -> Sequence[int]:
    """Return the shape of one of several tensors, where it is known without computing it."""
    if isinstance(tensors, LazyTensors) and name in tensors.shapes:
        return tensors.shapes[name]
    return tensors[name].shape


def is_divided(tensors: Mapping[str, Tensor], name: str) -> bool:
    """Return whether one of several tensors is large, and computed block by block."""
    if not isinstance(tensors, LazyTensors) or name not in tensors.shapes:
        return False
    shape = tensors.shapes[name]
    return len(shape) > 1 and math.prod(shape) > BLOCK


def row_blocks(shape: Sequence[int]) -> Iterator[slice]:
    """Yield the rows of a tensor in blocks of at most `BLOCK` values, or single rows."""
    step = max(1, BLOCK // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def blocks_of(*sides: Mapping[str, Tensor], name: str) -> Iterator[tuple[Tensor, ...]]:
    """Yield a tensor of several mappings side by side: whole, or in blocks of rows if one is so.

    Args:
        sides: tensors by name, each with this name and shape.
        name: the name.
    """
    divided = next((side for side in sides if is_divided(side, name)), None)
    if not isinstance(divided, LazyTensors):
        yield tuple(side[name] for side in sides)
        return
    for rows in row_blocks(divided.shapes[name]):
        yield tuple(rows_of(side, name, rows) for side in sides)


def select_names(tensors: Mapping[str, Tensor], names: Iterable[str]) -> Mapping[str, Tensor]:
    """Return some of several tensors; lazy ones stay so, and nothing is computed."""
    if isinstance(tensors, LazyTensors):
        return LazyTensors(names, tensors.__getitem__, tensors.block, tensors.shapes)
    return {name: tensors[name] for name in names}


def mapped(
    tensors: Mapping[str, Tensor], change: Callable[[Tensor], Tensor]
) -> Mapping[str, Tensor]:
    """Return tensors after an element-wise change; lazy ones are changed when they are asked for.

    Args:
        tensors: tensors by name.
        change: of all values, or of some rows.
    """
    if isinstance(tensors, LazyTensors):
        return LazyTensors(
            tensors,
            lambda name: change(tensors[name]),
            lambda name, rows: change(tensors.block(name, rows)),
            tensors.shapes,
        )
    return {name: change(value) for name, value in tensors.items()}
