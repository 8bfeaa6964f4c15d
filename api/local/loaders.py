"""Loaders of models that live in one process: checked, counted, and taken apart by sample.

A sample is known by its values: its id is a SHA-256 over its inputs and its target.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from disinherit.client.owner.batches import iterates_once
from disinherit.client.owner.owner import Batches
from disinherit.common.errors import DataError
from disinherit.common.fields import is_iterable
from disinherit.common.models.content import content_id
from disinherit.common.models.inputs import Inputs, as_arguments, take_rows, unpack_batch
from disinherit.common.models.observation import PROBED
from disinherit.local.arguments import shown

_AT_ONCE = 64
"""Samples of a batch that is made here."""


@dataclass(frozen=True, slots=True)
class LoaderCount:
    """What one look at all batches of a loader shows.

    Attributes:
        inputs: a few of the first batch of each shape and dtype, in the order in which they come.
        samples: number of samples per class index, without trailing zeros.
    """

    inputs: tuple[Inputs, ...]
    samples: tuple[int, ...]


def count(loader: Iterable[object], what: str) -> LoaderCount:
    """Look at all batches of a loader once.

    What is no list and no `DataLoader` over a data set with indices is then begun once more, to see
    that it starts again.

    Args:
        loader: yields pairs of inputs and class indices.
        what: what it is, for an error.

    Raises:
        DataError: if it yields nothing, cannot be iterated again, or its targets are no class
            indices.
        FisherError: if a batch is no pair of inputs and a tensor of targets.
    """
    given = cast("object", loader)  # whatever a person gives
    if isinstance(given, Dataset) and not isinstance(given, IterableDataset):
        raise DataError(
            f"Expected {what} to yield batches, but got {shown(given)}. Give "
            "DataLoader(dataset, batch_size=64)."
        )
    if not is_iterable(given):
        raise DataError(
            f"Expected {what} to be a list of batches or a DataLoader, but got {shown(given)}."
        )
    if iterates_once(loader):
        raise DataError(
            f"Expected {what} to be a list of batches or a DataLoader, which can be iterated "
            f"again, but got a {type(loader).__name__}."
        )
    firsts: dict[tuple[object, ...], Inputs] = {}
    found = torch.zeros(0, dtype=torch.int64)
    for index, item in enumerate(loader):
        inputs, targets = unpack_batch(item, index)
        if targets.ndim and not len(targets):
            continue
        if targets.ndim != 1 or targets.is_floating_point() or int(targets.min()) < 0:
            raise DataError(
                f"Expected class indices [n] from 0 on as targets of {what}, but batch {index} has "
                f"{targets.dtype} of shape {list(targets.shape)}"
                + (f" and minimum {targets.min().item()}." if targets.numel() else ".")
            )
        kind = tuple((tensor.dtype, tensor.shape[1:]) for tensor in inputs)
        if kind not in firsts:
            firsts[kind] = tuple(tensor[:PROBED].clone() for tensor in inputs)
        more = torch.bincount(targets.cpu(), minlength=len(found))
        more[: len(found)] += found
        found = more
    if not firsts:
        raise DataError(f"Expected {what} to have at least one sample, but it yields nothing.")
    if not _starts_again(loader):
        raise DataError(
            f"Expected {what} to be a list of batches or a DataLoader, which can be iterated "
            f"again, but got a {type(loader).__name__} that yields nothing the second time."
        )
    return LoaderCount(tuple(firsts.values()), tuple(found.tolist()))


def _starts_again(loader: Iterable[object]) -> bool:
    """Return whether a loader that was iterated yields something again."""
    if isinstance(loader, DataLoader):
        known = not isinstance(loader.dataset, IterableDataset)
    else:
        known = isinstance(loader, Sequence)
    return known or next(iter(loader), None) is not None


def sample_ids(inputs: Inputs, targets: Tensor) -> list[str]:
    """Return the ids of a batch's samples.

    Args:
        inputs: one tensor `[n, ...]` or several.
        targets: class indices `[n]`.
    """
    arguments = [tensor.detach().cpu() for tensor in as_arguments(inputs)]
    return [
        content_id(str(target), [tensor[row] for tensor in arguments])
        for row, target in enumerate(targets.tolist())
    ]


def all_sample_ids(batches: Batches) -> list[str]:
    """Return the ids of all samples, each once, in the order in which they come."""
    return list(dict.fromkeys(id for batch in batches for id in sample_ids(*batch)))


@dataclass(frozen=True, slots=True, eq=False)
class SomeSamples:
    """The samples of batches that are among some, or that are not.

    Attributes:
        batches: inputs and class indices.
        ids: of the samples.
        among: whether these are taken, or all others.
    """

    batches: Batches
    ids: frozenset[str]
    among: bool

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        """Yield what is taken of each batch, as it was; one with nothing of it is skipped."""
        for inputs, targets in self.batches:
            found = [(id in self.ids) is self.among for id in sample_ids(inputs, targets)]
            taken = torch.tensor(found, dtype=torch.bool)
            if taken.any():
                rows = take_rows(inputs, taken)
                one = rows[0] if isinstance(inputs, Tensor) else rows
                yield one, targets[taken.to(targets.device)]


def named_samples(samples: object, loader: Iterable[object], model: str) -> list[str]:
    """Return the ids of samples that a person names.

    Args:
        samples: indices into the loader's data set, a data set of samples, or batches of them.
        loader: what the model was trained on.
        model: its name, for an error.

    Raises:
        DataError: if there is none, one is not among the loader's, or they cannot be read.
    """
    known = set(all_sample_ids(_pairs(loader)))
    ids = all_sample_ids(_pairs(_batches(samples, loader, model)))
    missing = sum(id not in known for id in ids)
    if not ids or missing:
        raise DataError(
            f"Expected samples that model {model!r} was trained on, but "
            + (
                f"{missing} of {len(ids)} are not among what its loader yields. They are compared "
                "value by value: leave out random augmentation."
                if ids
                else "got none."
            )
        )
    return ids


def samples_among(ids: Sequence[str], loader: Iterable[object]) -> list[str]:
    """Return those ids that are of samples of a loader, in their order."""
    known = frozenset(all_sample_ids(_pairs(loader)))
    return [id for id in ids if id in known]


def _pairs(batches: Iterable[object]) -> Iterator[tuple[Inputs, Tensor]]:
    for index, item in enumerate(batches):
        yield unpack_batch(item, index)


def _batches(samples: object, loader: Iterable[object], model: str) -> Iterable[object]:
    collate: Callable[[list[Any]], Any] | None = getattr(loader, "collate_fn", None)
    indices = _indices(samples)
    if indices is not None:
        data = getattr(loader, "dataset", None)
        if data is None or not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
            raise DataError(
                f"Expected the loader of model {model!r} to have a data set, to look up samples by "
                f"index, but got a {type(loader).__name__}. Give the samples themselves."
            )
        beyond = [index for index in indices if not 0 <= index < len(data)]
        if beyond:
            raise DataError(
                f"Expected indices from 0 to {len(data) - 1} into the data set of model "
                f"{model!r}, but got {beyond[0]}."
            )
        return DataLoader(Subset(data, indices), _AT_ONCE, collate_fn=collate)
    if isinstance(samples, Dataset):
        return DataLoader(samples, _AT_ONCE, collate_fn=collate)
    if is_iterable(samples) and not isinstance(samples, str | Tensor):
        return cast("Iterable[object]", samples)
    raise DataError(
        f"Expected indices, a data set or batches as samples of model {model!r}, but got "
        f"{type(samples).__name__}."
    )


def _indices(samples: object) -> Sequence[int] | None:
    """Return samples that are given as indices; `None` if they are given otherwise."""
    if isinstance(samples, DataLoader | Dataset | str) or not isinstance(samples, Iterable):
        return None
    if isinstance(samples, Iterator):  # which could be read only once
        return None
    try:
        return [_index(one) for one in samples]
    except TypeError:
        return None


def _index(value: object) -> int:
    """Return an integer of any library; a truth value is none."""
    if isinstance(value, bool) or "bool" in str(getattr(value, "dtype", "")):
        raise TypeError
    return operator.index(cast("SupportsIndex", value))
