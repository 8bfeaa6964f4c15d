"""The diagonal per-sample empirical Fisher information of a classifier.

For samples S, with gᵢ the gradient of sample i's cross-entropy and the model in eval mode::

    F(S) = 1/|S| Σ_{i ∈ S} gᵢ ∘ gᵢ

Squares are taken per sample, not of a batch's mean gradient, so batching does not affect the
result. Sums are kept per class: the Fisher information of any set of classes follows from them
without the data (FIUn, arXiv 2408.08493).

This is the *empirical* Fisher: gradients are those of the observed labels, not of labels drawn from
the model's own distribution.  It is not the true Fisher and may differ from the curvature of the
loss (Kunstner et al. 2019, arXiv 1905.12558).  Here it only ranks parameters by importance.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from disinherit.common.errors import FisherError
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.fisher.pooled import Fisher
from disinherit.common.fisher.summation import METHODS, run
from disinherit.common.models.heads import find_head
from disinherit.common.models.inputs import first_inputs
from disinherit.common.models.scope import resolve_scope
from disinherit.common.models.scope_text import is_head_scope

# `Any`, because a data loader yields lists, which no tuple type describes.
Batches = Iterable[tuple[Tensor | Sequence[Tensor], Tensor]] | Iterable[Any]
MethodName = Literal["auto", "head", "layers", "vmap"]


@overload
def fisher_diagonal(
    model: nn.Module,
    batches: Batches,
    *,
    scope: str | Sequence[str] = ...,
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
    scope: str | Sequence[str] = ...,
    per_class: Literal[True],
    apart: Collection[int] | None = ...,
    factored: bool = ...,
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
    scope: str | Sequence[str] = "head",
    per_class: bool = False,
    apart: Collection[int] | None = None,
    factored: bool = False,
    num_classes: int | None = None,
    device: torch.device | str | None = None,
    method: MethodName = "auto",
    chunk_size: int | None = None,
    clip_norm: float | None = None,
) -> Fisher | ClassFishers:
    """Compute the diagonal empirical Fisher information exactly, from per-sample gradients.

    The model runs in eval mode; modes, `requires_grad` and `.grad` are restored.  Each sample must
    be classified independently of the others in its batch.  A parameter without a gradient path to
    the logits has Fisher information 0.

    Args:
        model: maps inputs to logits `[n, C]`, in any floating-point precision.
        batches: yields `(inputs, targets)`: inputs a tensor `[n, ...]` or several, passed as
            positional arguments; targets `[n]` class indices.
        scope: parameters, frozen ones included: `"head"` (those of the layers that make the
            logits), `"all"`, or globs over parameter names, separated by commas; or a sequence of
            literal names.
        per_class: whether to keep sums per class; a head with more than 2²⁴ numbers over all
            classes is kept by rows (`ClassFishers`).
        apart: with `per_class`, the only classes to keep apart, with all their rows: all others are
            counted as the first of them. `None` for every class.
        factored: with `per_class`, whether to keep only the sums of rows and of columns of matrices
            outside of the head.
        num_classes: expected number of classes `C`; `None` takes the model's.
        device: device for the inputs; `None` for that of the first parameter.
        method: `"head"` is the closed form of a linear head from one forward pass; `"layers"` adds
            one backward pass and supports linear, convolution, normalisation and embedding layers;
            `"vmap"` is general.  `"auto"` takes the first that is exact for the model, or one
            backward pass per sample where vmap fails.
        chunk_size: number of per-sample gradients in memory at once, for the last two methods;
            `None` bounds them by 2²⁴ numbers.
        clip_norm: bound C on the L2 norm of a sample's *squared* gradient of each parameter: larger
            ones are scaled down to it, and the result is no longer a Fisher. `None` for no bound.

    Returns:
        A `Fisher`, or `ClassFishers` with `per_class`.

    Raises:
        FisherError: if there are no samples, inputs or targets do not fit the model, the chosen
            method cannot handle the model, a result is not finite, or the sums do not fit into
            memory.
        torch.OutOfMemoryError: if a batch does not fit into memory, on any device.
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
    found = run(
        model,
        names,
        batches,
        METHODS[method],
        place,
        per_class,
        apart,
        factored,
        num_classes,
        chunk_size,
        clip_norm,
    )
    if per_class:
        return ClassFishers(
            found.sums, found.counts, found.classes, found.others, columns=found.columns
        )
    count = int(found.counts.sum())
    return Fisher({name: value.div_(count) for name, value in found.sums.items()}, count)
