"""Summation over all batches, by the fastest method that is exact for the model."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from disinherit.common.errors import FisherError, NoSamplesError, ScopeError
from disinherit.common.fisher.factors import is_shortened
from disinherit.common.fisher.methods import (
    FisherMethod,
    HeadMethod,
    LayersMethod,
    Probe,
    SamplesMethod,
    probe,
)
from disinherit.common.fisher.sums import Batch, Grouping, Results, Sums, make_batch
from disinherit.common.models.forward import Unsupported, prepared
from disinherit.common.models.heads import find_head
from disinherit.common.models.inputs import refused_inputs, to_device, unpack_batch

Factory = Callable[[Probe], FisherMethod]

WHOLE = 2**24
"""Most numbers of a head's per-class sums; a larger head is kept by rows."""

# Name -> methods to try in this order; the next one follows on `Unsupported`.
METHODS: Mapping[str, Sequence[Factory]] = {
    "auto": (HeadMethod, LayersMethod, partial(SamplesMethod, vmap_only=False)),
    "head": (HeadMethod,),
    "layers": (LayersMethod,),
    "vmap": (partial(SamplesMethod, vmap_only=True),),
}


def run(
    model: nn.Module,
    names: Sequence[str],
    batches: Iterable[object],
    factories: Sequence[Factory],
    device: torch.device,
    per_class: bool,
    apart: Collection[int] | None,
    factored: bool,
    num_classes: int | None,
    chunk_size: int | None,
    clip_norm: float | None,
) -> Results:
    """Sum the squared per-sample gradients of all batches; the model's state is restored.

    Returns:
        The sums, all finite, of at least one sample.

    Raises:
        FisherError: as in `fisher_diagonal`.
    """
    choice: _Choice | None = None
    sums: Sums | None = None
    grouping = Grouping(per_class)
    with torch.inference_mode(False), prepared(model, names):
        for index, item in enumerate(batches):
            inputs, targets = unpack_batch(item, index)
            if inputs[0].shape[0] == 0:
                continue
            try:
                if choice is None or sums is None:
                    sample = to_device(tuple(t[:1] for t in inputs), device)
                    seen = probe(model, names, sample, inputs[0].shape[0])
                    _check_classes(seen.logits.shape[1], num_classes)
                    classes = seen.logits.shape[1]
                    grouping = _grouping(seen, per_class, apart, factored)
                    sums = Sums(seen.parameters, classes, grouping, chunk_size, clip_norm)
                    choice = _Choice(seen, factories)
                    del seen  # with what the layers got; a method that needs it has it
                batch = make_batch(inputs, targets, sums.counts.shape[0], device, grouping.leaders)
                choice.add(batch, sums)
            except (FisherError, torch.OutOfMemoryError):
                raise
            except (RuntimeError, TypeError, ValueError, LookupError, MemoryError) as error:
                raise refused_inputs(model, index, inputs, device, error) from error
    if sums is None:
        raise NoSamplesError("Expected at least one sample, but got none in all batches.")
    return sums.results()


def _grouping(
    seen: Probe, per_class: bool, apart: Collection[int] | None, factored: bool
) -> Grouping:
    """Return the grouping of the sums.

    Raises:
        FisherError: if a class to keep apart does not exist.
    """
    classes = seen.logits.shape[1]
    if not per_class:
        return Grouping(False)
    matrices = _matrices(seen) if factored else frozenset()
    if apart is None:
        return Grouping(True, _large_head(seen), matrices)
    if wrong := sorted(c for c in apart if not 0 <= c < classes):
        raise FisherError(f"Expected classes in [0, {classes}), but got {wrong}.")
    rest = [c for c in range(classes) if c not in apart]
    leaders = torch.arange(classes)
    leaders[rest] = rest[0] if rest else 0
    return Grouping(True, factored=matrices, leaders=leaders)


def _matrices(seen: Probe) -> frozenset[str]:
    """Return what can be factored: matrices and kernels outside of the head."""
    try:
        head = set(find_head(seen.model, seen.inputs).parameters)
    except (ScopeError, FisherError):  # no head, or none with rows of its own
        head = set()
    return frozenset(
        name for name, p in seen.parameters.items() if name not in head and is_shortened(p.shape)
    )


def _large_head(seen: Probe) -> frozenset[str]:
    """Return the head's parameters in scope, if their per-class sums are very large."""
    classes = seen.logits.shape[1]
    large = [p.numel() for p in seen.parameters.values() if len(p.shape) and len(p) == classes]
    if classes * sum(large) <= WHOLE:
        return frozenset()
    try:
        head = find_head(seen.model, seen.inputs)
    except (ScopeError, FisherError):
        return frozenset()
    names = [name for name in head.parameters if name in seen.parameters]
    if any(seen.uses[name] > 1 for name in names):
        return frozenset()
    if classes * sum(seen.parameters[name].numel() for name in names) <= WHOLE:
        return frozenset()
    return frozenset(names)


class _Choice:
    """The method in use; it is replaced when a batch is unsupported."""

    def __init__(self, seen: Probe, factories: Sequence[Factory]) -> None:
        self._seen: Probe | None = seen
        self._left = list(factories)
        self._method = self._next()

    def add(self, batch: Batch, sums: Sums) -> None:
        """Add a batch by the first remaining method that supports it."""
        while True:
            try:
                self._method.add(batch, sums)
            except Unsupported as reason:
                self._method = self._next(reason)
            else:
                sums.counts += batch.counts
                return

    def _next(self, reason: Unsupported | None = None) -> FisherMethod:
        while self._left:
            assert self._seen is not None
            try:
                method = self._left.pop(0)(self._seen)
            except Unsupported as unsupported:
                reason = unsupported
            else:
                self._seen = self._seen if self._left else None
                return method
        raise FisherError(
            f"Expected a model that the method can handle, but {reason}; use method 'auto'."
        )


def _check_classes(found: int, expected: int | None) -> None:
    if expected is not None and found != expected:
        raise FisherError(f"Expected a model with {expected} classes, but got {found} logits.")
