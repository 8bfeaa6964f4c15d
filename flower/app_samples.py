"""Samples of a loader of a Flower app, each with an id, in an order that stays the same.

The id is what the app's data say: `id` or `sample_id` of a batch that is a dict, or `ids` of the
data set.  Otherwise it is the position in the loader's data set, whatever order the loader draws.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

from disinherit.client.owner.batches import iterates_once
from disinherit.client.owner.owner import Batches
from disinherit.common.errors import DataError
from disinherit.common.fields import is_iterable
from disinherit.common.models.inputs import Inputs, take_rows, unpack_batch

_TARGETS = ("label", "labels", "target", "targets", "y")
_IDS = ("id", "sample_id")
_AT_ONCE = 64
"""Samples of a batch whose loader does not say how many."""


class AppSamples:
    """Samples of a loader, in the order of its data set.

    Args:
        loader: yields batches; a `DataLoader`, or a list of batches.
        what: what it is, for an error.
        batch: makes (inputs, targets) of a batch; `None` to find them by their names.

    Raises:
        DataError: if it is no loader, or can be iterated only once.
    """

    def __init__(
        self, loader: object, what: str, batch: Callable[[object], object] | None = None
    ) -> None:
        if not is_iterable(loader) or isinstance(loader, str | Mapping | Tensor):
            raise DataError(
                f"Expected {what} to be a DataLoader or a list of batches, but got "
                f"{type(loader).__name__}."
            )
        assert isinstance(loader, Iterable)
        streamed = isinstance(loader, DataLoader) and isinstance(loader.dataset, IterableDataset)
        if iterates_once(loader) or streamed:
            raise DataError(
                f"Expected {what} to be a DataLoader over a data set with indices, or a list of "
                f"batches, but got a {type(loader).__name__} that streams."
            )
        self._loader: Iterable[object] = loader
        self._what = what
        self._batch = batch

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids, in order; each once.  Where the data say none, positions in the data set.

        Raises:
            DataError: if two samples have the same.
        """
        ids = self._said
        if ids is None:
            drawn = self._drawn
            places: Sequence[int] = range(len(self.targets)) if drawn is None else drawn
            ids = tuple(map(str, places))
        if len({*ids}) != len(ids):
            raise DataError(f"Expected a different id of each sample of {self._what}.")
        return ids

    @property
    def are_positions(self) -> bool:
        """Whether the ids are positions, which name other samples in other data."""
        return self._said is None

    @property
    def positions(self) -> int | None:
        """One more than the last position; `None` if the data say ids."""
        return 1 + max(map(int, self.ids), default=-1) if self.are_positions else None

    @cached_property
    def _said(self) -> tuple[str, ...] | None:
        """Ids by the data set, or in its batches; `None` without any."""
        known = getattr(getattr(self._loader, "dataset", None), "ids", None)
        drawn = self._drawn
        if drawn is not None and isinstance(known, Sequence) and not isinstance(known, str):
            return tuple(str(known[place]) for place in drawn)
        if any(isinstance(item, Mapping) and _named(item) for item in self._first()):
            return tuple(id for item in self._items(None) for id in _named(item))
        return None

    @cached_property
    def targets(self) -> tuple[int, ...]:
        """The class index of each sample, in order; reads all samples.

        Raises:
            DataError: if targets are no class indices.
        """
        found: list[int] = []
        for _, targets in self.of_all():
            if targets.ndim != 1 or targets.is_floating_point():
                raise DataError(
                    f"Expected class indices [n] as targets of {self._what}, but got "
                    f"{targets.dtype} of shape {list(targets.shape)}."
                )
            found += targets.tolist()
        return tuple(found)

    @property
    def digest(self) -> str:
        """SHA-256 of number and classes of the samples, by which later changes are seen."""
        return hashlib.sha256(repr(self.targets).encode()).hexdigest()

    def of_all(self) -> Batches:
        """Return batches of all samples, in order."""
        return _Chosen(self, None)

    def some(self, places: Collection[int]) -> Batches:
        """Return batches of the samples at some places, in order."""
        return _Chosen(self, tuple(sorted(places)))

    def iterate(self, places: tuple[int, ...] | None) -> Iterator[tuple[Inputs, Tensor]]:
        """Yield batches of samples, in order; one that is empty is skipped.

        Args:
            places: places of the samples; `None` for all.

        Raises:
            DataError: if a batch is a dict in which inputs and targets cannot be told.
        """
        for index, item in enumerate(self._items(places)):
            inputs, targets = unpack_batch(self._pair(item), index)
            if len(targets):
                yield inputs[0] if len(inputs) == 1 else inputs, targets

    @property
    def _drawn(self) -> Sequence[int] | None:
        """Places in the data set of the samples that the loader draws; `None` without one."""
        loader = self._loader
        if not isinstance(loader, DataLoader) or loader.batch_size is None:
            return None
        indices = getattr(loader.sampler, "indices", None)
        size = len(loader.dataset)  # type: ignore[arg-type]
        return sorted({*map(int, indices)}) if indices is not None else range(size)

    def _items(self, places: Sequence[int] | None) -> Iterator[object]:
        loader, drawn = self._loader, self._drawn
        if drawn is not None and isinstance(loader, DataLoader):
            chosen = [drawn[place] for place in (range(len(drawn)) if places is None else places)]
            if chosen:
                subset = Subset(loader.dataset, chosen)
                size = loader.batch_size or _AT_ONCE
                yield from DataLoader(subset, size, collate_fn=loader.collate_fn)
            return
        wanted, start = None if places is None else {*places}, 0
        for index, item in enumerate(loader):
            if wanted is None:
                yield item
                continue
            inputs, targets = unpack_batch(self._pair(item), index)
            taken = [start + row in wanted for row in range(len(targets))]
            start += len(targets)
            rows = torch.tensor(taken, dtype=torch.bool)
            if rows.any():
                yield take_rows(inputs, rows), targets[rows.to(targets.device)]

    def _first(self) -> Iterator[object]:
        drawn = self._drawn
        for item in self._items(None if drawn is None else range(min(1, len(drawn)))):
            yield item
            return

    def _pair(self, item: object) -> object:
        if self._batch is not None and not _is_pair(item):
            return self._batch(item)
        if not isinstance(item, Mapping):
            return item
        tensors = [key for key, value in item.items() if isinstance(value, Tensor)]
        targets = [key for key in tensors if key in _TARGETS]
        inputs = [key for key in tensors if key not in (*_TARGETS, *_IDS)]
        if len(targets) != 1 or len(inputs) != 1:
            raise DataError(
                f"Expected batches of {self._what} to have one tensor of inputs and one of targets "
                f"({', '.join(_TARGETS)}), but got {', '.join(map(str, item))}. Give "
                "batch=lambda batch: (batch[...], batch[...]) to owner_app."
            )
        return item[inputs[0]], item[targets[0]]


@dataclass(frozen=True, slots=True, eq=False)
class _Chosen:
    """Batches of some samples, which can be iterated again."""

    samples: AppSamples
    places: tuple[int, ...] | None

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        return self.samples.iterate(self.places)


def split_loaders(
    loaded: object, what: str, batch: Callable[[object], object] | None
) -> tuple[AppSamples, AppSamples | None]:
    """Return what a loading function of an app gave: its samples, and held-out ones if any.

    Args:
        loaded: a loader, or a tuple of a training loader and a held-out one.
        what: what it is, for an error.
        batch: as in `AppSamples`.

    Raises:
        DataError: if it is something else.
    """
    if not isinstance(loaded, tuple):
        return AppSamples(loaded, what, batch), None
    if not 1 <= len(loaded) <= 2:
        raise DataError(
            f"Expected {what} to be a loader, or a training and a held-out loader, but got "
            f"{len(loaded)} things. Give a function that returns these two."
        )
    held_out = AppSamples(loaded[1], f"held-out {what}", batch) if len(loaded) == 2 else None
    return AppSamples(loaded[0], what, batch), held_out


def _named(item: object) -> list[str]:
    """Return the ids in a batch; empty if it has none."""
    if not isinstance(item, Mapping):
        return []
    key = next((key for key in _IDS if key in item), None)
    if key is None:
        return []
    values = item[key]
    return [str(one) for one in (values.tolist() if isinstance(values, Tensor) else values)]


def _is_pair(item: object) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], Tensor)
