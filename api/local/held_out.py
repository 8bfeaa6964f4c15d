"""Held-out data of a model, told apart from data that it was trained on or tuned by.

Told apart are objects, not values: honest data may have equal samples.  A loader, a batch's inputs,
a data set, the tensors of a `TensorDataset`, and the indices of subsets and samplers of PyTorch are
followed.  A copy is another object, and so is a data set that was loaded again or is wrapped in a
class of one's own: those cannot be seen.
"""

import operator
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import SupportsIndex, cast

import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from disinherit.common.errors import DataError
from disinherit.common.models.heads import count_logits
from disinherit.common.models.inputs import Inputs, as_arguments
from disinherit.common.text import one_line


def check_held_out(data: Iterable[object], what: str, seen: Mapping[str, Iterable[object]]) -> None:
    """Refuse held-out data that is certainly among what was used before.

    Args:
        data: a loader.
        what: what it is, for an error.
        seen: what it must not be, for an error -> its loader.

    Raises:
        DataError: if they share a sample whenever they are iterated.
    """
    drawn = _Drawn(data)
    for name, loader in seen.items():
        if loader is data:
            shared = "the same loader"
        elif drawn.shares(_Drawn(loader)):
            shared = "a loader of the same samples"
        else:
            continue
        raise DataError(
            f"Expected {what} to be held out, but got {shared} as {name}. Give samples that were "
            "used for nothing else, or leave it out."
        )


def check_inputs(
    model: nn.Module, inputs: Iterable[Inputs], trained: Inputs, classes: int, what: str
) -> None:
    """Refuse held-out data that a model cannot take, by forward passes.

    Args:
        model: the model, which takes its training data.
        inputs: a few of each shape.
        trained: a few of the training data, for an error.
        classes: number of logits.
        what: what it is, for an error.

    Raises:
        DataError: if the model fails on some, or returns more or fewer logits.
    """
    for few in inputs:
        try:
            found = count_logits(model, few)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a network does with other inputs
            reason = getattr(error, "foreign", "") or f"{type(error).__name__} {error}"
        else:
            reason = "" if found == classes else f"{found} logits instead of {classes}"
        if reason:
            raise DataError(
                f"Expected {what} to have inputs such as its training data has, "
                f"{_forms(trained)}, but got {_forms(few)}. Prepare both alike. The model answered",
                foreign=one_line(reason),
            )


def _forms(inputs: Inputs) -> str:
    """Return dtypes and shapes of the inputs of a batch, for an error."""
    forms = [(tensor.dtype, ["n", *tensor.shape[1:]]) for tensor in as_arguments(inputs)]
    return " and ".join(f"{dtype} [{', '.join(map(str, shape))}]" for dtype, shape in forms)


class _Drawn:
    """Samples that a loader draws, as positions in the objects that hold them.

    Args:
        loader: the loader.
    """

    def __init__(self, loader: Iterable[object]) -> None:
        self._positions: dict[int, Tensor] = {}
        self._all = True  # or it draws some of them, and it is not known which
        for held, positions in self._origins(loader):
            earlier = self._positions.get(id(held), positions[:0])
            self._positions[id(held)] = torch.cat([earlier, positions])

    def shares(self, other: "_Drawn") -> bool:
        """Whether both certainly draw some of the same samples."""
        common = [
            torch.isin(positions, other._positions[held])
            for held, positions in self._positions.items()
            if held in other._positions
        ]
        if self._all and other._all:
            return any(bool(among.any()) for among in common)
        if self._all:
            return other._is_within(self)
        return other._all and self._is_within(other)

    def _is_within(self, other: "_Drawn") -> bool:
        nothing = torch.zeros(0, dtype=torch.int64)
        return bool(self._positions) and all(
            bool(torch.isin(positions, other._positions.get(held, nothing)).all())
            for held, positions in self._positions.items()
        )

    def _origins(self, loader: Iterable[object]) -> Iterator[tuple[object, Tensor]]:
        if not isinstance(loader, DataLoader):
            return _of_batches(loader)
        data = cast("object", loader.dataset)
        if isinstance(data, IterableDataset):
            return iter([(data, torch.zeros(1, dtype=torch.int64))])
        sampler: object = loader.sampler
        if loader.batch_sampler is not None:
            batched = loader.batch_sampler
            sampler = batched.sampler if isinstance(batched, BatchSampler) else batched
        indices: Iterable[object]
        if isinstance(sampler, SubsetRandomSampler):
            indices = sampler.indices
        elif isinstance(sampler, SequentialSampler | RandomSampler):
            indices = range(len(sampler.data_source))
            if isinstance(sampler, RandomSampler):
                self._all = not sampler.replacement and sampler.num_samples >= len(indices)
        else:
            indices = range(len(data)) if isinstance(data, Sized) else ()
            self._all = False
        positions = _positions(indices)
        return iter(()) if positions is None else _of_dataset(data, positions)


def _of_batches(batches: Iterable[object]) -> Iterator[tuple[object, Tensor]]:
    """Yield the first inputs of each batch of a list, and its rows; nothing of others."""
    if isinstance(batches, list | tuple):
        for item in batches:
            inputs = as_arguments(item[0])[0]
            yield inputs, torch.arange(len(inputs))


def _of_dataset(data: object, positions: Tensor) -> Iterator[tuple[object, Tensor]]:
    """Yield the objects that hold samples of a data set, and the positions there."""
    if isinstance(data, Subset):
        chosen = _positions(data.indices)
        if chosen is not None:
            yield from _of_dataset(data.dataset, chosen[positions])
            return
    elif isinstance(data, ConcatDataset):
        start = 0
        for part, end in zip(data.datasets, data.cumulative_sizes, strict=True):
            inside = positions[(positions >= start) & (positions < end)]
            yield from _of_dataset(part, inside - start)
            start = end
        return
    yield data.tensors[0] if isinstance(data, TensorDataset) else data, positions


def _positions(indices: Iterable[object]) -> Tensor | None:
    """Return indices as a tensor; `None` if they are keys of another kind."""
    found = []
    for index in indices:
        if not isinstance(index, SupportsIndex):
            return None
        found.append(operator.index(index))
    return torch.tensor(found, dtype=torch.int64)
