"""The diagonal per-sample empirical Fisher information of a classifier.

For samples S, with gᵢ the gradient of sample i's cross-entropy and the model in eval mode::

    F(S) = 1/|S| Σ_{i ∈ S} gᵢ ∘ gᵢ

Squares are taken per sample, not of the mean gradient of a batch, so the result does not depend on
how the samples are batched.  Sums are kept per class, because the Fisher information of any set of
classes follows from them without access to the data (FIUn, arXiv 2408.08493).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from disinherit.common._fisher_run import METHODS, run
from disinherit.common.errors import FisherError
from disinherit.common.heads import find_head
from disinherit.common.inputs import first_inputs
from disinherit.common.scope import is_head_scope, resolve_scope

# `Any` as a data loader yields lists, which no tuple type describes.
Batches = Iterable[tuple[Tensor | Sequence[Tensor], Tensor]] | Iterable[Any]
MethodName = Literal["auto", "head", "layers", "vmap"]


@dataclass(frozen=True, slots=True, eq=False)
class Fisher:
    """Mean squared per-sample gradient.

    Attributes:
        values: parameter name -> F, of the parameter's shape, float32 or float64, >= 0.
        count: number of samples behind it.

    Raises:
        FisherError: if `count` is not positive.
    """

    values: dict[str, Tensor]
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise FisherError(f"Expected a Fisher of at least one sample, but got {self.count}.")


@dataclass(frozen=True, slots=True, eq=False)
class ClassFishers:
    """Sums of squared per-sample gradients of each class.

    Attributes:
        sums: parameter name -> Σ gᵢ ∘ gᵢ over the samples of each class, `[C, *shape]`.
        counts: samples per class, `[C]` int64, on the CPU.

    Raises:
        FisherError: if the shapes do not fit each other, or a count is negative.

    Example:
        >>> fishers = ClassFishers(
        ...     {"weight": torch.tensor([[2.0], [9.0], [0.0]])}, torch.tensor([2, 3, 0])
        ... )
        >>> fishers.over([0]).values["weight"].tolist()
        [1.0]
        >>> fishers.excluding([0]).values["weight"].tolist()
        [3.0]
        >>> fishers.total().count
        5
    """

    sums: dict[str, Tensor]
    counts: Tensor

    def __post_init__(self) -> None:
        if self.counts.ndim != 1 or self.counts.dtype != torch.int64:
            raise FisherError(
                f"Expected class counts [C] of torch.int64, but got {self.counts.dtype} of shape "
                f"{list(self.counts.shape)}."
            )
        if (self.counts < 0).any():
            raise FisherError(f"Expected class counts >= 0, but got {self.counts.tolist()}.")
        for name, value in self.sums.items():
            if value.shape[:1] != self.counts.shape:
                raise FisherError(
                    f"Expected sums [{self.num_classes}, ...] for parameter {name!r}, but got "
                    f"shape {list(value.shape)}."
                )

    @property
    def num_classes(self) -> int:
        """Number of classes `C`, with or without samples."""
        return self.counts.shape[0]

    def over(self, classes: Iterable[int]) -> Fisher:
        """Pool some classes: the mean over all their samples, Σ n_c F_c / Σ n_c.

        Args:
            classes: class indices; repeated ones count once.

        Returns:
            The Fisher over the samples of these classes.

        Raises:
            FisherError: if a class is out of range, or the classes have no sample.
        """
        chosen = self._check(classes)
        count = int(self.counts[chosen].sum())
        if not count:
            raise FisherError(
                f"Expected classes with at least one sample, but got {chosen}, which have none."
            )
        values = {
            name: value[torch.tensor(chosen, device=value.device)].sum(0).div_(count)
            for name, value in self.sums.items()
        }
        return Fisher(values, count)

    def excluding(self, classes: Iterable[int]) -> Fisher:
        """Pool all classes but some.

        Args:
            classes: class indices to leave out.

        Returns:
            The Fisher over the samples of the other classes.

        Raises:
            FisherError: if a class is out of range, or the other classes have no sample.
        """
        left_out = set(self._check(classes))
        return self.over(c for c in range(self.num_classes) if c not in left_out)

    def each(self, classes: Iterable[int]) -> dict[int, Fisher]:
        """Keep some classes apart.

        Args:
            classes: class indices.

        Returns:
            Class -> the Fisher over its samples, in ascending order.

        Raises:
            FisherError: if a class is out of range or has no sample.
        """
        return {c: self.over([c]) for c in self._check(classes)}

    def total(self) -> Fisher:
        """Pool all classes.

        Returns:
            The Fisher over all samples.

        Raises:
            FisherError: if there is no sample.
        """
        return self.over(range(self.num_classes))

    def __add__(self, other: "ClassFishers") -> "ClassFishers":
        """Add the sums over other samples, say of another shard, for the same model.

        Raises:
            FisherError: if classes, parameters or shapes differ.
        """
        mine, theirs = self._shapes(), other._shapes()
        if mine != theirs:
            raise FisherError(f"Expected sums of the same shapes, but got {mine} and {theirs}.")
        sums = {
            name: value + other.sums[name].to(value.device) for name, value in self.sums.items()
        }
        return ClassFishers(sums, self.counts + other.counts.to(self.counts.device))

    def _shapes(self) -> dict[str, list[int]]:
        return {"": list(self.counts.shape)} | {n: list(v.shape) for n, v in self.sums.items()}

    def _check(self, classes: Iterable[int]) -> list[int]:
        chosen = sorted(set(classes))
        if wrong := [c for c in chosen if not 0 <= c < self.num_classes]:
            raise FisherError(f"Expected classes in [0, {self.num_classes}), but got {wrong}.")
        return chosen


@overload
def fisher_diagonal(
    model: nn.Module,
    batches: Batches,
    *,
    scope: str = ...,
    per_class: Literal[False] = ...,
    num_classes: int | None = ...,
    device: torch.device | str | None = ...,
    method: MethodName = ...,
    chunk_size: int | None = ...,
    clip_norm: float | None = ...,
) -> Fisher: ...


@overload
def fisher_diagonal(
    model: nn.Module,
    batches: Batches,
    *,
    scope: str = ...,
    per_class: Literal[True],
    num_classes: int | None = ...,
    device: torch.device | str | None = ...,
    method: MethodName = ...,
    chunk_size: int | None = ...,
    clip_norm: float | None = ...,
) -> ClassFishers: ...


def fisher_diagonal(
    model: nn.Module,
    batches: Batches,
    *,
    scope: str = "head",
    per_class: bool = False,
    num_classes: int | None = None,
    device: torch.device | str | None = None,
    method: MethodName = "auto",
    chunk_size: int | None = None,
    clip_norm: float | None = None,
) -> Fisher | ClassFishers:
    """Compute the diagonal empirical Fisher information exactly, from per-sample gradients.

    The model runs in eval mode and is left as it was: modes, `requires_grad` and `.grad`.  Each
    sample must be classified independently of the others in its batch.  A parameter without a
    gradient path to the logits has Fisher 0.

    Args:
        model: maps inputs to logits `[n, C]`, in any floating-point precision.
        batches: yields `(inputs, targets)`: inputs a tensor `[n, ...]` or several, passed as
            positional arguments; targets `[n]` class indices.
        scope: which parameters, see `resolve_scope`; frozen ones included.
        per_class: whether to keep the sums of each class.
        num_classes: number of classes `C` the model is expected to have; `None` takes the model's.
        device: where the inputs are moved to; `None` for the device of the first parameter.
        method: `"head"` is the closed form of a linear head from one forward pass; `"layers"` adds
            one backward pass and knows linear, convolution, normalisation and embedding layers;
            `"vmap"` is general.  `"auto"` takes the first that is exact for the model, and where
            vmap cannot handle it one backward pass per sample.
        chunk_size: samples whose gradients are held at once by the last two; `None` bounds them by
            2²⁴ numbers.
        clip_norm: bound C on the L2 norm of a sample's *squared* gradient of each parameter: what
            is larger is scaled down to it, and the result is no Fisher any more. `None` for no
            bound.

    Returns:
        A `Fisher`, or `ClassFishers` with `per_class`.

    Raises:
        FisherError: if there are no samples, inputs or targets do not fit the model, the method
            asked for cannot handle it, or a result is not finite.
        ScopeError: if the scope cannot be resolved.

    Example:
        >>> model = nn.Linear(2, 3)
        >>> batch = torch.randn(5, 2), torch.tensor([0, 0, 1, 2, 1])
        >>> fishers = fisher_diagonal(model, [batch], per_class=True)
        >>> fishers.counts.tolist(), fishers.sums["weight"].shape
        ([2, 2, 1], torch.Size([3, 3, 2]))
    """
    if method not in METHODS:
        raise FisherError(f"Expected a method in {list(METHODS)}, but got {method!r}.")
    if chunk_size is not None and chunk_size < 1:
        raise FisherError(f"Expected chunk_size >= 1 or None, but got {chunk_size}.")
    if clip_norm is not None and not 0 < clip_norm < math.inf:
        raise FisherError(f"Expected clip_norm > 0 or None, but got {clip_norm}.")
    head = None
    if is_head_scope(scope):
        inputs, batches = first_inputs(batches)
        head = find_head(model, inputs)
    names = resolve_scope(model, scope, head)
    place = next(model.parameters()).device if device is None else torch.device(device)
    sums, counts = run(
        model, names, batches, METHODS[method], place, per_class, num_classes, chunk_size, clip_norm
    )
    if per_class:
        return ClassFishers(sums, counts)
    count = int(counts.sum())
    return Fisher({name: value.div_(count) for name, value in sums.items()}, count)
