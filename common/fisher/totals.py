"""Totals of squared per-sample gradients of one parameter: pooled, per class, by rows, factored.

Memory decides.  The sums of C classes take C times the parameter: for a head `[C, d]` C² d numbers,
which is 2 GB for 1,000 classes and 512 features.  Therefore:

- a class takes memory only once it has a sample;
- in a very large head each class keeps its own row, and each row the sum over the samples of all
  *other* classes: 2 C d numbers.  That suffices for a request that changes nothing in the head but
  the rows of forgotten classes;
- below the head, each class may keep the sums of the rows and of the columns of a matrix only, as
  Adafactor keeps second moments (Shazeer and Stern 2018, arXiv 1804.04235): C (o + d) numbers in
  the place of C o d.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from disinherit.common.errors import FisherError
from disinherit.common.fisher.gradients import widest
from disinherit.common.fisher.groups import Groups
from disinherit.common.models.devices import (
    is_accelerator,
    memory_left,
    readable_bytes,
    runs_out_of_memory,
)

# Largest parameter that is summed in float64: vectors, and small matrices.
_FEW = 2**14
# Largest sums over all classes that are allocated at once from the start.
_SMALL = 2**22
# The same on an accelerator, and the most values of a batch that are spread over the classes there.
_DEVICE_SMALL = 2**24
_SPREAD = 2**26
# Bytes that are allocated without checking the available memory.
_LITTLE = 2**24


class Total(Protocol):
    """Sums of one parameter over samples.

    Attributes:
        dtype: dtype of the sum.
    """

    dtype: torch.dtype

    def add(self, groups: Groups, squares: Tensor) -> None:
        """Add g² `[m, *shape]` of samples of the classes `groups`; may overwrite g²."""

    def add_large(self, label: int, gradient: Tensor, start: int = 0) -> None:
        """Add the squares of the rows of g from `start` on, `[k, *shape[1:]]`, of one sample."""

    def add_outer(self, groups: Groups, left: Tensor, right: Tensor) -> None:
        """Add `left[i] right[i]ᵀ`, `[n, o]` and `[n, d]`; may overwrite `left`."""

    def add_lookups(self, groups: Groups, rows: Tensor, squares: Tensor) -> None:
        """Add g² `[u, D]` of the table's rows `rows` `[u]`, each for the class in `groups`."""


class Pooled:
    """One sum over all samples."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.value = zeros(shape, _adding(shape, dtype, device), device)
        self.dtype = self.value.dtype

    def add(self, groups: Groups, squares: Tensor) -> None:
        """Add as in `Total`."""
        self.value += squares.sum(0)

    def add_large(self, label: int, gradient: Tensor, start: int = 0) -> None:
        """Add as in `Total`."""
        self.value[start : start + len(gradient)].addcmul_(gradient, gradient)

    def add_outer(self, groups: Groups, left: Tensor, right: Tensor) -> None:
        """Add as in `Total`."""
        self.value.addmm_(left.T, right)

    def add_lookups(self, groups: Groups, rows: Tensor, squares: Tensor) -> None:
        """Add as in `Total`."""
        self.value.index_add_(0, rows, squares)


class PerClass:
    """The sums of each class, allocated once it has a sample."""

    def __init__(
        self, classes: int, shape: Sequence[int], dtype: torch.dtype, device: torch.device
    ) -> None:
        self._shape, self._device = torch.Size(shape), device
        self.dtype = _adding(shape, dtype, device)
        most = _DEVICE_SMALL if is_accelerator(device) else _SMALL
        self._small = classes * self._shape.numel() <= most
        self._dense = zeros((classes if self._small else 0, *shape), self.dtype, device)
        self._sums: dict[int, Tensor] = {}

    def add(self, groups: Groups, squares: Tensor) -> None:
        """Add as in `Total`."""
        if self._small:
            self._dense.index_add_(0, groups.values, squares)
            return
        for label, chosen in groups.each():
            self._of(label).add_(squares[chosen].sum(0))

    def add_large(self, label: int, gradient: Tensor, start: int = 0) -> None:
        """Add as in `Total`."""
        self._of(label)[start : start + len(gradient)].addcmul_(gradient, gradient)

    def add_outer(self, groups: Groups, left: Tensor, right: Tensor) -> None:
        """Add as in `Total`."""
        count, width = left.shape
        if self._small and groups.runs is not None and count * len(self._dense) * width <= _SPREAD:
            # One product for all classes: a sample has zeros in the places of all but its own.
            spread = left.new_zeros(count, len(self._dense), width)
            spread[torch.arange(count, device=left.device), groups.values] = left
            self._dense.view(-1, right.shape[1]).addmm_(spread.view(count, -1).T, right)
            return
        for label, chosen in groups.each():
            self._of(label).addmm_(left[chosen].T, right[chosen])

    def add_lookups(self, groups: Groups, rows: Tensor, squares: Tensor) -> None:
        """Add as in `Total`."""
        if self._small:
            places = groups.values * self._shape[0] + rows
            self._dense.view(-1, *self._shape[1:]).index_add_(0, places, squares)
            return
        for label, chosen in groups.each():
            self._of(label).index_add_(0, rows[chosen], squares[chosen])

    def stacked(self, classes: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return the sums of classes with samples, `[P, *shape]`; the object is used up."""
        if self._small:
            return self._dense[torch.tensor(classes, device=self._device)].to(dtype)
        found = zeros((len(classes), *self._shape), dtype, self._device)
        for place, label in enumerate(classes):
            if label in self._sums:  # else no sample of it reaches the parameter
                found[place] = self._sums.pop(label)
        return found

    def _of(self, label: int) -> Tensor:
        if self._small:
            return self._dense[label]
        if label not in self._sums:
            self._sums[label] = zeros(self._shape, self.dtype, self._device)
        return self._sums[label]


class ByRows:
    """The sums of a head with a row per class: each class's own row, and all others' per row.

    Args:
        shape: `[C, ...]` of the parameter.
        dtype: dtype of the results.
        device: device of the results.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.dtype = _adding(shape, dtype, device)
        self.own = zeros(shape, self.dtype, device)
        self.others = zeros(shape, self.dtype, device)

    def add(self, groups: Groups, squares: Tensor) -> None:
        """Add as in `Total`."""
        samples = torch.arange(len(squares), device=squares.device)
        self.own.index_add_(0, groups.values, squares[samples, groups.values])
        squares[samples, groups.values] = 0
        self.others += squares.sum(0)

    def add_large(self, label: int, gradient: Tensor, start: int = 0) -> None:
        """Add as in `Total`."""
        others = self.others[start : start + len(gradient)]
        place = min(max(label - start, 0), len(gradient))  # the rows before and after its own
        for rows in (slice(None, place), slice(place + (label >= start), None)):
            others[rows].addcmul_(gradient[rows], gradient[rows])
        if 0 <= label - start < len(gradient):
            self.own[label].addcmul_(gradient[place], gradient[place])

    def add_outer(self, groups: Groups, left: Tensor, right: Tensor) -> None:
        """Add as in `Total`."""
        samples = torch.arange(len(left), device=left.device)
        self.own.index_add_(0, groups.values, left[samples, groups.values].unsqueeze(1) * right)
        left[samples, groups.values] = 0
        self.others.addmm_(left.T, right)

    def add_lookups(self, groups: Groups, rows: Tensor, squares: Tensor) -> None:
        """Refuse: a looked-up table is no head."""
        raise AssertionError("a head is no table")


class Factored:
    """The sums of the rows and of the columns of each class.

    Args:
        classes: number of classes C.
        shape: `[o, ...]` of the parameter; what follows the first dimension are its columns.
        dtype: dtype in which squares are computed.
        device: device of the sums.
    """

    def __init__(
        self, classes: int, shape: Sequence[int], dtype: torch.dtype, device: torch.device
    ) -> None:
        self.dtype = dtype
        wide = widest(device)
        self.rows = zeros((classes, shape[0]), wide, device)
        self.columns = zeros((classes, *shape[1:]), wide, device)

    def add(self, groups: Groups, squares: Tensor) -> None:
        """Add as in `Total`."""
        wide = self.rows.dtype
        self.rows.index_add_(0, groups.values, squares.flatten(2).sum(2, dtype=wide))
        self.columns.index_add_(0, groups.values, squares.sum(1, dtype=wide))

    def add_large(self, label: int, gradient: Tensor, start: int = 0) -> None:
        """Add as in `Total`."""
        wide, squares = self.rows.dtype, gradient.square()
        self.rows[label, start : start + len(gradient)] += squares.flatten(1).sum(1, dtype=wide)
        self.columns[label] += squares.sum(0, dtype=wide)

    def add_outer(self, groups: Groups, left: Tensor, right: Tensor) -> None:
        """Add as in `Total`."""
        left, right = left.to(self.rows.dtype), right.to(self.rows.dtype)
        self.rows.index_add_(0, groups.values, left * right.sum(1, keepdim=True))
        self.columns.index_add_(0, groups.values, right * left.sum(1, keepdim=True))

    def add_lookups(self, groups: Groups, rows: Tensor, squares: Tensor) -> None:
        """Add as in `Total`."""
        squares = squares.to(self.rows.dtype)
        self.rows.index_put_((groups.values, rows), squares.sum(1), accumulate=True)
        self.columns.index_add_(0, groups.values, squares)


def zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return zeros to sum into.

    Raises:
        FisherError: if there is not enough memory.
    """
    size = torch.Size(shape).numel() * dtype.itemsize
    left = memory_left(device) if size > _LITTLE else None
    try:
        if left is None or size <= 0.9 * left:
            return torch.zeros(tuple(shape), dtype=dtype, device=device)
    except (RuntimeError, MemoryError) as error:
        if not runs_out_of_memory(error):
            raise
    known = "less" if left is None else f"{readable_bytes(left)}"
    raise FisherError(
        f"Expected {readable_bytes(size)} of memory on {device} for another {list(shape)} sums of "
        f"squared gradients, but there is {known}. Sums are kept per class: take a narrower scope, "
        "such as 'head', or forget on a machine with more memory."
    )


def _adding(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.dtype:
    return widest(device) if torch.Size(shape).numel() <= _FEW else dtype
