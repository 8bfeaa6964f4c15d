"""Running sums of squared per-sample gradients, for all samples together or per class."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from disinherit.common.errors import FisherError
from disinherit.common.fisher.groups import Groups, runs_of
from disinherit.common.fisher.totals import ByRows, Factored, PerClass, Pooled
from disinherit.common.models.devices import is_accelerator
from disinherit.common.models.inputs import to_device

# Numbers of per-sample gradients in memory at once, unless a number of samples is given: the most,
# and the number that stays in a CPU's cache, for loops with little overhead.  An accelerator, for
# which each call costs as much as many values, takes more.
MOST_ELEMENTS = 2**24
_CACHED = 2**21
_DEVICE_ELEMENTS = 2**26
_LARGE = 2**16
# Values of a large gradient that are widened and squared at a time.
_PIECE = 2**18
# Range of powers of two for scaling a factor of a gradient, well within float32.
_EXPONENT = 100


@dataclass(frozen=True, slots=True)
class Batch:
    """A checked batch on the model's device; on an accelerator in the order of classes.

    Attributes:
        inputs: positional arguments of the model, each with `n` rows.
        targets: class indices, `[n]` int64.
        groups: the class that counts each sample.
        counts: samples per class, `[C]` int64, on the CPU.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    groups: Groups
    counts: Tensor

    @property
    def size(self) -> int:
        """Number of samples `n`."""
        return self.targets.shape[0]


@dataclass(frozen=True, slots=True)
class Grouping:
    """The sums to keep.

    Attributes:
        per_class: whether to keep sums per class.
        by_rows: parameters of a head with a row per class that are kept by rows: the class's own
            row, and for each row the sum over all other classes.
        factored: matrices of which only the sums of rows and of columns are kept.
        leaders: the class that counts the samples of each class, `[C]` int64, on the CPU; `None` if
            each class counts its own.
    """

    per_class: bool
    by_rows: frozenset[str] = frozenset()
    factored: frozenset[str] = frozenset()
    leaders: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """The final sums.

    Attributes:
        sums: parameter name -> `[*shape]`, or `[P, *shape]` for the P classes with samples;
            `[P, *shape[1:]]` for one kept by rows; `[P, shape[0]]`, the sums of its rows, for a
            factored one.
        counts: samples per class, `[C]` int64, on the CPU.
        classes: the classes with samples, `[P]` int64, on the CPU.
        others: name -> `[C, *shape[1:]]` for parameters kept by rows.
        columns: name -> sums of columns, `[P, *shape[1:]]`, for factored parameters.
    """

    sums: dict[str, Tensor]
    counts: Tensor
    classes: Tensor
    others: dict[str, Tensor]
    columns: dict[str, Tensor]


class Sums:
    """Sums of g² of every parameter, over all samples or per class.

    Vectors and small matrices are summed in float64 if the device supports it: the cost is small,
    and rounding over many samples would show there first.  All others, and all results, are in
    float32, or in float64 for float64 parameters.

    Args:
        parameters: the parameters in scope.
        num_classes: number of classes C.
        grouping: which sums to keep.
        chunk_size: number of per-sample gradients in memory at once; `None` for the budget.
        clip_norm: bound C on the L2 norm of a sample's g² of one parameter: the added term is then
            min(1, C / ‖g²‖₂) g².  `None` for no bound.

    Attributes:
        counts: samples per class, `[C]` int64, on the CPU.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        num_classes: int,
        grouping: Grouping,
        chunk_size: int | None,
        clip_norm: float | None,
    ) -> None:
        self._parameters = parameters
        self.counts = torch.zeros(num_classes, dtype=torch.int64)
        self._grouping = grouping
        self._dtypes = {
            name: torch.promote_types(p.dtype, torch.float32) for name, p in parameters.items()
        }
        self.dtype = max(self._dtypes.values(), key=lambda dtype: dtype.itemsize)
        self._chunk_size = chunk_size
        self._clip_norm = clip_norm
        self._totals: dict[str, Pooled | PerClass | ByRows | Factored] = {}
        for name, p in parameters.items():
            if not grouping.per_class:
                self._totals[name] = Pooled(p.shape, self._dtypes[name], p.device)
            elif name in grouping.by_rows:
                self._totals[name] = ByRows(p.shape, self._dtypes[name], p.device)
            elif name in grouping.factored:
                self._totals[name] = Factored(num_classes, p.shape, self._dtypes[name], p.device)
            else:
                self._totals[name] = PerClass(num_classes, p.shape, self._dtypes[name], p.device)

    def chunks(self, batch: Batch, elements: int, cached: bool = False) -> Iterator[slice]:
        """Yield slices of samples that fit the memory budget, at `elements` numbers a sample."""
        budget = _CACHED if cached else MOST_ELEMENTS
        if batch.groups.runs is not None:
            budget = _DEVICE_ELEMENTS
        size = self._chunk_size or max(1, budget // max(1, elements))
        for start in range(0, batch.size, size):
            yield slice(start, min(start + size, batch.size))

    def add(self, name: str, batch: Batch, gradients: Tensor, rows: slice) -> None:
        """Add the squares of g `[m, *shape]` of the samples `rows`."""
        total, labels = self._totals[name], batch.groups.part(rows)
        gradients = gradients.to(total.dtype)
        large = gradients[:1].numel() >= _LARGE and batch.groups.runs is None
        if self._clip_norm is None and large:
            # Reads a large gradient once; its square would be written and read again.
            for label, gradient in zip(labels.values.tolist(), gradients, strict=True):
                total.add_large(label, gradient)
            return
        squares = gradients.square()
        if self._clip_norm is not None:
            norms = squares.reshape(len(squares), math.prod(squares.shape[1:])).norm(dim=1)
            squares.mul_(self._kept(norms).view(-1, *[1] * (squares.ndim - 1)))
        total.add(labels, squares)

    def add_sample(
        self, name: str, batch: Batch, gradient: Tensor, scale: Tensor, sample: int
    ) -> None:
        """Add the square of s g of one sample; no copy is made of a large g.

        Args:
            name: name of the parameter.
            batch: the batch.
            gradient: g `[*shape]`, in any floating-point dtype; sparse by rows for a table.
            scale: the factor s that was split off the residuals, a scalar.
            sample: index of the sample.
        """
        total, scale = self._totals[name], scale.to(self.dtype)
        if gradient.is_sparse and gradient.sparse_dim() == gradient.dense_dim() == 1:
            gradient = gradient.coalesce()
            places = gradient.indices()[0] + sample * len(gradient)
            self.add_lookups(name, batch, places, gradient.values().to(self.dtype) * scale)
            return
        gradient = gradient.to_dense() if gradient.is_sparse else gradient
        if self._clip_norm is not None or gradient.numel() < _LARGE:
            whole = gradient.unsqueeze(0).to(self.dtype) * scale
            self.add(name, batch, whole, slice(sample, sample + 1))
            return
        label = int(batch.groups.values[sample])
        step = max(1, _PIECE // max(1, gradient[0].numel()))
        for start in range(0, len(gradient), step):
            piece = gradient[start : start + step].to(self.dtype) * scale
            total.add_large(label, piece.to(total.dtype), start)

    def add_outer(self, name: str, batch: Batch, left: Tensor, right: Tensor) -> None:
        """Add g² of every sample i, with g = `left[i] right[i]ᵀ`, `[n, o]` and `[n, d]`."""
        total = self._totals[name]
        # A small factor times a large one must not underflow when it is squared.
        largest = right.abs().amax(1, keepdim=True).float()
        exponents = largest.clamp(2.0**-_EXPONENT, 2.0**_EXPONENT).log2_().round_()
        left = torch.ldexp(left, exponents).to(total.dtype).square_()
        right = torch.ldexp(right.to(total.dtype), -exponents).square_()
        if self._clip_norm is not None:
            left.mul_(self._kept(left.norm(dim=1) * right.norm(dim=1)).unsqueeze(1))
        total.add_outer(batch.groups, left, right)

    def add_lookups(self, name: str, batch: Batch, places: Tensor, gradients: Tensor) -> None:
        """Add g² of single rows of a table `[V, D]`.

        Args:
            name: name of the table.
            batch: the batch.
            places: `[u]`, sample * V + row, each once.
            gradients: `[u, D]`.
        """
        total, size = self._totals[name], self._parameters[name].shape[0]
        squares = gradients.to(total.dtype).square()
        samples, rows = places // size, places % size
        if self._clip_norm is not None:
            norms = squares.new_zeros(batch.size)
            norms.index_add_(0, samples, squares.square().sum(1)).sqrt_()
            squares.mul_(self._kept(norms)[samples].unsqueeze(1))
        total.add_lookups(Groups(batch.groups.values[samples]), rows, squares)

    def _kept(self, norms: Tensor) -> Tensor:
        """Return the clipping factor of each sample's g², from its norm."""
        assert self._clip_norm is not None
        return self._clip_norm / norms.clamp(min=self._clip_norm)

    def results(self) -> Results:
        """Return the sums; this object cannot be used afterwards.

        Raises:
            FisherError: if a sum is NaN or infinite.
        """
        counts = self.counts
        if self._grouping.leaders is not None:
            counts = torch.zeros_like(counts).index_add_(0, self._grouping.leaders, counts)
        present = counts.nonzero().flatten()
        sums, others, columns = {}, {}, {}
        for name, dtype in self._dtypes.items():
            total = self._totals.pop(name)
            match total:
                case Pooled():
                    sums[name] = total.value.to(dtype)
                case PerClass():
                    sums[name] = total.stacked(present.tolist(), dtype)
                case ByRows():
                    sums[name] = total.own[present.to(total.own.device)].to(dtype)
                    others[name] = total.others.to(dtype)
                case Factored():
                    places = present.to(total.rows.device)
                    sums[name] = total.rows[places].to(dtype)
                    columns[name] = total.columns[places].to(dtype)
            for value in (sums[name], others.get(name), columns.get(name)):
                if value is not None and not torch.isfinite(value).all():
                    raise FisherError(
                        f"Expected finite squared gradients, but got NaN or infinity for "
                        f"parameter {name!r}; check the model's weights and the inputs, and that "
                        f"the precision ({value.dtype} sums) suffices."
                    )
        return Results(sums, counts, present, others, columns)


def make_batch(
    inputs: tuple[Tensor, ...],
    targets: Tensor,
    num_classes: int,
    device: torch.device,
    leaders: Tensor | None = None,
) -> Batch:
    """Check targets that belong to `inputs`, and move both to the device.

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
    groups = labels if leaders is None else leaders[labels]
    inputs, counts = to_device(inputs, device), torch.bincount(labels, minlength=num_classes)
    if not is_accelerator(device):
        return Batch(inputs, labels, Groups(groups), counts)
    order = groups.argsort(stable=True)
    groups, places = groups[order], order.to(device)
    return Batch(
        tuple(one.index_select(0, places) for one in inputs),
        labels[order].to(device),
        Groups(groups.to(device), runs_of(groups)),
        counts,
    )
