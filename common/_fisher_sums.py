"""Running sums of squared per-sample gradients, for all samples together or per class."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from disinherit.common._residuals import widest
from disinherit.common.errors import FisherError
from disinherit.common.inputs import to_device

# Numbers of per-sample gradients held at once, unless a number of samples is given: at most,
# and where a loop over few samples costs next to nothing, so that they stay in a cache.
_BUDGET = 2**24
_CACHED = 2**21
_LARGE = 2**16
# Sums of at most so many numbers are added up in float64.
_FEW = 2**22
# Powers of two that a factor of a gradient may be multiplied by, well within float32.
_EXPONENT = 100


@dataclass(frozen=True, slots=True)
class Batch:
    """A checked batch on the model's device.

    Attributes:
        inputs: positional arguments of the model, each with `n` rows.
        targets: class indices, `[n]` int64.
        counts: samples per class, `[C]` int64, on the CPU.
        order: permutation that sorts the samples by class, `[n]`.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    counts: Tensor
    order: Tensor

    @property
    def size(self) -> int:
        """Number of samples `n`."""
        return self.targets.shape[0]

    def segments(self) -> Iterator[tuple[int, slice]]:
        """Yield each class that occurs and where its samples stand after sorting by `order`."""
        stop = 0
        for label, count in enumerate(self.counts.tolist()):
            start, stop = stop, stop + count
            if count:
                yield label, slice(start, stop)


class Sums:
    """Sums of g², one tensor per parameter, `[*shape]` or `[C, *shape]`.

    Sums of few numbers are added up in float64, where the device has it; there they cost little,
    and over many samples rounding would show first.  All others, and all results, are in float32,
    or in float64 for float64 parameters.

    Args:
        parameters: the parameters in scope.
        num_classes: number of classes C.
        per_class: whether to keep the sums of each class.
        chunk_size: samples whose gradients are held at once; `None` for as many as fit the budget.
        clip_norm: bound C on the L2 norm of a sample's g² of one parameter: what is added is then
            min(1, C / ‖g²‖₂) g².  `None` for no bound.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        num_classes: int,
        per_class: bool,
        chunk_size: int | None,
        clip_norm: float | None,
    ) -> None:
        self.per_class = per_class
        self.counts = torch.zeros(num_classes, dtype=torch.int64)
        self._dtypes = {
            name: torch.promote_types(p.dtype, torch.float32) for name, p in parameters.items()
        }
        self.dtype = max(self._dtypes.values(), key=lambda dtype: dtype.itemsize)
        self._chunk_size = chunk_size
        self._clip_norm = clip_norm
        leading = (num_classes,) if per_class else ()
        self._values = {
            name: torch.zeros(
                (*leading, *p.shape),
                dtype=self._adding_dtype(name, math.prod(leading) * p.numel(), p.device),
                device=p.device,
            )
            for name, p in parameters.items()
        }

    def _adding_dtype(self, name: str, size: int, device: torch.device) -> torch.dtype:
        return widest(device) if size <= _FEW else self._dtypes[name]

    def chunks(self, batch: Batch, elements: int, cached: bool = False) -> Iterator[slice]:
        """Yield slices of samples that need at most the memory budget at `elements` a sample."""
        budget = _CACHED if cached else _BUDGET
        size = self._chunk_size or max(1, budget // max(1, elements))
        for start in range(0, batch.size, size):
            yield slice(start, min(start + size, batch.size))

    def add(self, name: str, batch: Batch, gradients: Tensor, rows: slice) -> None:
        """Add the squares of g `[m, *shape]` of the samples `rows`."""
        total = self._values[name]
        gradients = gradients.to(total.dtype)
        if self._clip_norm is None and gradients[:1].numel() >= _LARGE:
            # A large gradient is read once here; its square would be written and read again.
            labels = batch.targets[rows].tolist() if self.per_class else [None] * len(gradients)
            for label, gradient in zip(labels, gradients, strict=True):
                (total if label is None else total[label]).addcmul_(gradient, gradient)
            return
        squares = gradients.square()
        if self._clip_norm is not None:
            norms = squares.flatten(1).norm(dim=1)
            squares.mul_(self._kept(norms).view(-1, *[1] * (squares.ndim - 1)))
        if self.per_class:
            total.index_add_(0, batch.targets[rows], squares)
        else:
            total += squares.sum(0)

    def add_outer(self, name: str, batch: Batch, left: Tensor, right: Tensor) -> None:
        """Add g² of every sample i, with g = `left[i] right[i]ᵀ`, `[n, o]` and `[n, d]`."""
        total = self._values[name]
        # What is small on the one side and large on the other must not vanish when it is squared.
        largest = right.abs().amax(1, keepdim=True).float()
        exponents = largest.clamp(2.0**-_EXPONENT, 2.0**_EXPONENT).log2_().round_()
        left = torch.ldexp(left, exponents).to(total.dtype).square_()
        right = torch.ldexp(right.to(total.dtype), -exponents).square_()
        if self._clip_norm is not None:
            left.mul_(self._kept(left.norm(dim=1) * right.norm(dim=1)).unsqueeze(1))
        if not self.per_class:
            total.addmm_(left.T, right)
            return
        left, right = left[batch.order], right[batch.order]
        for label, rows in batch.segments():
            total[label].addmm_(left[rows].T, right[rows])

    def add_lookups(self, name: str, batch: Batch, places: Tensor, gradients: Tensor) -> None:
        """Add g² of single rows of a table `[V, D]`.

        Args:
            name: the table.
            batch: the batch.
            places: `[u]`, sample * V + row, each once.
            gradients: `[u, D]`.
        """
        total = self._values[name]
        size = total.shape[-2]
        squares = gradients.to(total.dtype).square()
        samples, rows = places // size, places % size
        if self._clip_norm is not None:
            norms = squares.new_zeros(batch.size)
            norms.index_add_(0, samples, squares.square().sum(1)).sqrt_()
            squares.mul_(self._kept(norms)[samples].unsqueeze(1))
        if self.per_class:
            rows = rows + size * batch.targets[samples]
        total.view(-1, total.shape[-1]).index_add_(0, rows, squares)

    def _kept(self, norms: Tensor) -> Tensor:
        """Return the factor that is left of each sample's g², by its norm."""
        assert self._clip_norm is not None
        return self._clip_norm / norms.clamp(min=self._clip_norm)

    def results(self) -> dict[str, Tensor]:
        """Return the sums, which are used up.

        Raises:
            FisherError: if one is NaN or infinite.
        """
        found = {}
        for name, dtype in self._dtypes.items():
            value = self._values.pop(name).to(dtype)
            if not torch.isfinite(value).all():
                raise FisherError(
                    f"Expected finite squared gradients, but got NaN or infinity for parameter "
                    f"{name!r}; check the model's weights and the inputs, and that the precision "
                    f"({value.dtype} sums) suffices."
                )
            found[name] = value
        return found


def make_batch(
    inputs: tuple[Tensor, ...],
    targets: Tensor,
    num_classes: int,
    device: torch.device,
) -> Batch:
    """Check targets that belong to `inputs`, move both to the device and sort by class.

    Returns:
        The batch.

    Raises:
        FisherError: if the targets are not `n` integers in `[0, num_classes)`.
    """
    size = inputs[0].shape[0]
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise FisherError(f"Expected integer class indices as targets, but got {targets.dtype}.")
    if targets.shape != (size,):
        raise FisherError(
            f"Expected targets of shape [{size}] for {size} inputs, but got {list(targets.shape)}."
        )
    # On the CPU, so that a wrong index is an error message and not a device-side assertion.
    labels = targets.to("cpu", torch.int64)
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0 or high >= num_classes:
        raise FisherError(
            f"Expected targets in [0, {num_classes}), as the model has {num_classes} outputs, but "
            f"got {low if low < 0 else high}."
        )
    return Batch(
        to_device(inputs, device),
        labels.to(device),
        torch.bincount(labels, minlength=num_classes),
        labels.argsort(stable=True).to(device),
    )
