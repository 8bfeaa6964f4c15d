"""Batches that shrink when a device runs out of memory."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from torch import Tensor

from disinherit.common.errors import DataError
from disinherit.common.models.devices import runs_out_of_memory
from disinherit.common.models.inputs import unpack_batch

T = TypeVar("T")

_log = logging.getLogger(__name__)


class ShrinkingBatches:
    """Batches that are halved, and stay halved, when a computation runs out of memory.

    Args:
        batches: inputs, a tensor `[n, ...]` or several, and class indices `[n]`; each iteration
            starts again.

    Raises:
        DataError: if the batches can be iterated only once.
    """

    def __init__(self, batches: Iterable[object]) -> None:
        if iterates_once(batches):
            raise DataError(
                "Expected batches that can be iterated again, such as a list or a DataLoader, but "
                f"got a {type(batches).__name__}, which is used up after the first time."
            )
        self._batches = batches
        self._limit: int | None = None
        self._largest = 0

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """Yield the inputs of the batches, one or several, and the class indices.

        No batch is larger than the size known to fit.

        Raises:
            FisherError: if a batch is no pair of inputs and targets.
        """
        self._largest = 0
        for index, item in enumerate(self._batches):
            inputs, targets = unpack_batch(item, index)
            size = min(self._limit or len(targets), len(targets))
            self._largest = max(self._largest, size)
            if size == len(targets):
                yield inputs, targets
            else:
                pieces = zip(*(tensor.split(size) for tensor in inputs), strict=True)
                yield from zip(pieces, targets.split(size), strict=True)

    def run(self, compute: Callable[[Iterable[tuple[tuple[Tensor, ...], Tensor]]], T]) -> T:
        """Compute on all batches; after running out of memory, start again with halved ones.

        Args:
            compute: the computation; it may be called again, so it must not keep earlier results.

        Returns:
            The result of `compute`.

        Raises:
            RuntimeError: torch's error, if a single sample does not fit.
        """
        while True:
            try:
                return compute(self)
            except (RuntimeError, MemoryError) as error:
                if self._largest <= 1 or not runs_out_of_memory(error):
                    raise
                self._limit = self._largest // 2
                _log.warning(
                    "Out of memory with %d samples at once, trying again with %d: %s",
                    self._largest,
                    self._limit,
                    error,
                )


def iterates_once(batches: object) -> bool:
    """Return whether batches are used up after the first time.

    Nothing is iterated: that alone starts the workers of a `DataLoader`.
    """
    return isinstance(batches, Iterator)


def check_logits(logits: object, targets: Tensor, classes: int) -> None:
    """Refuse logits or targets that do not fit the classes."""
    if not isinstance(logits, Tensor):
        raise DataError(
            f"Expected logits [{len(targets)}, {classes}], one per class, but the model returned "
            f"{type(logits).__name__}; wrap it so that it returns the logits alone."
        )
    if logits.shape != (len(targets), classes):
        raise DataError(
            f"Expected logits [{len(targets)}, {classes}], one per class, but the model returned "
            f"{list(logits.shape)}."
        )
    low, high = (int(bound) for bound in targets.aminmax())
    if low < 0 or high >= classes:
        raise DataError(
            f"Expected class indices in [0, {classes}), but got {low if low < 0 else high}."
        )
