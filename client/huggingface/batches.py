"""Batches of data sets whose samples are mappings: pairs of tensors and class indices.

A sample is a row of a map-style data set, such as `datasets.Dataset`.  All batches of one data set
have the same width, so that samples of several can be put together.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from disinherit.client.huggingface.forms import LABELS, Form, answering, form_of, known_form
from disinherit.client.huggingface.names import base_of
from disinherit.common.errors import DataError
from disinherit.common.models.sequences import IGNORED
from disinherit.common.text import one_line

Collate = Callable[[list[Any]], Mapping[str, Any]]
"""Makes a batch of rows, such as a data collator of transformers."""

BATCH = 8
"""Samples of a batch."""

MASK = "attention_mask"
TOKENS = "input_ids"
_LABEL_NAMES = (LABELS, "label", "label_ids")


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Makes a pair of inputs and class indices of rows.

    Attributes:
        collate: makes a batch of rows by names.
        form: form of the model.
        fill: name of an argument `[n, T]` -> value at padding.
        width: number of positions of padded arguments; 0 for that of each batch.
    """

    collate: Collate
    form: Form
    fill: Mapping[str, int]
    width: int = 0

    def __call__(self, rows: list[Any]) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return the model's arguments, each `[n, ...]`, and class indices `[n]`.

        Raises:
            DataError: if an argument or the labels are missing, a sequence has no token that
                counts, or the rows make no batch.
        """
        batch = _begun_at_once(collated(self.collate, rows), self.fill)
        if self.form.task == "causal-lm":
            batch[LABELS] = token_labels(batch)
            targets = torch.zeros(len(batch[LABELS]), dtype=torch.int64)
        else:
            targets = _class_indices(batch)
        missing = [name for name in self.form.arguments if not isinstance(batch.get(name), Tensor)]
        if missing:
            raise DataError(
                f"Expected rows with {', '.join(self.form.arguments)}, as the first data set of "
                f"the model has, but {missing[0]} is missing among {', '.join(map(str, batch))}."
            )
        return tuple(self._wide(name, batch[name]) for name in self.form.arguments), targets

    def _wide(self, name: str, value: Tensor) -> Tensor:
        lacking = self.width - value.shape[1] if name in self.fill and value.ndim == 2 else 0
        return F.pad(value, (0, lacking), value=self.fill[name]) if lacking > 0 else value


def make_loader(
    data: Any,
    model: nn.Module,
    *,
    collate: Collate | None = None,
    batch_size: int = BATCH,
    form: Form | None = None,
) -> DataLoader[Any]:
    """Return a loader of pairs over a data set whose rows are mappings; it reads the data once.

    Sequences are padded on the right, to the longest of the data set.

    Args:
        data: a map-style data set, such as `datasets.Dataset`; or a `DataLoader` over one, of which
            the data set and the collation are taken.
        model: the model that it is for.
        collate: makes a batch of rows; by default, their values are stacked, and padded where they
            are sequences. Labels of tokens are those of the batch, else its tokens.
        batch_size: samples of a batch.
        form: form of the model, if it is known from other data.

    Raises:
        DataError: if it has no rows, or they lack labels or inputs of the model.
        InputError: as in `form_of`.
    """
    data, collate = _rows(data, collate)
    fill = _fill(model)
    collate = _Stack(fill) if collate is None else collate
    form = form or known_form(model) or form_of(model, collated(collate, [data[0]]))
    pairs = Pairs(collate, form, fill)
    width = 0
    if any(name in fill for name in form.arguments):
        width = max(
            value.shape[1]
            for inputs, _ in DataLoader(data, batch_size, collate_fn=pairs)
            for name, value in zip(form.arguments, inputs, strict=True)
            if name in fill and value.ndim == 2
        )
    return DataLoader(data, batch_size, collate_fn=Pairs(collate, form, fill, width))


def adapt(model: nn.Module, data: Any, *, collate: Collate | None = None) -> nn.Module:
    """Let a model of transformers answer as `Network.add` asks, in place, and return it.

    Called by names it answers as before.  Tensors of a model with an adapter have the names of its
    base, in which the adapter sits, and which is returned.

    Args:
        model: a sequence classifier, an image classifier or a causal language model.
        data: rows that it takes, as for `make_loader`.
        collate: likewise.

    Raises:
        DataError: if there are no rows.
        InputError: if it is another kind of model, or takes nothing of the rows.
    """
    rows, collate = _rows(data, collate)
    stack = _Stack(_fill(model)) if collate is None else collate
    return answering(model, form_of(model, collated(stack, [rows[0]])))


def collated(collate: Collate, rows: list[Any]) -> dict[str, Any]:
    """Return the batch that some rows make.

    Raises:
        DataError: if they make none.
    """
    try:
        return dict(collate(rows))
    except DataError:
        raise
    except Exception as error:  # whatever a collator raises about rows that are not as it has them
        name = getattr(collate, "__name__", type(collate).__name__)
        how = "" if isinstance(collate, _Stack) else f" by {name}"
        raise DataError(
            "Expected rows that are mappings of the same names and shapes, such as those of "
            f"datasets.Dataset, but they make no batch{how}: {type(error).__name__}: "
            f"{one_line(str(error), 200)}."
        ) from error


def pairs_of(loader: DataLoader[Any]) -> Pairs:
    """Return what makes the batches of a loader of `make_loader`."""
    assert isinstance(loader.collate_fn, Pairs)
    return loader.collate_fn


def some_rows(loader: DataLoader[Any], positions: Sequence[int]) -> DataLoader[Any]:
    """Return a loader over some rows of another's data set, in the order of their positions."""
    some: Subset[Any] = Subset(loader.dataset, list(positions))
    return DataLoader(some, loader.batch_size, collate_fn=loader.collate_fn)


def token_labels(batch: Mapping[str, Any]) -> Tensor:
    """Return the labels of the tokens of a batch `[n, T]`, by default the tokens themselves.

    Padding does not count, whatever its labels are.

    Raises:
        DataError: if it has no tokens, or a sequence has none that counts.
    """
    tokens, labels, mask = batch.get(TOKENS), batch.get(LABELS), batch.get(MASK)
    if not isinstance(tokens, Tensor):
        raise DataError(f"Expected rows with {TOKENS}, but got {', '.join(map(str, batch))}.")
    if not isinstance(labels, Tensor):
        labels = tokens
    if labels.shape != tokens.shape:
        raise DataError(
            f"Expected a label for each token {list(tokens.shape)}, but got {list(labels.shape)}."
        )
    if mask is not None:
        labels = labels.where(mask.bool(), IGNORED)
    if not bool((labels[:, 1:] != IGNORED).any(1).all()):
        raise DataError(
            f"Expected sequences with a token to predict after the first, but one of the batch has "
            f"none: its labels are all {IGNORED}, or it is too short. Leave it out."
        )
    return labels


def _begun_at_once(batch: dict[str, Any], fill: Mapping[str, int]) -> dict[str, Any]:
    """Return a batch with what is padded on the left padded on the right instead.

    A sequence would have other positions, and its first token a loss, by how long the longest is.
    """
    mask = batch.get(MASK)
    if not isinstance(mask, Tensor) or mask.ndim != 2 or not mask.numel() or mask[:, 0].all():
        return batch
    starts = mask.bool().int().argmax(1)
    places = torch.arange(mask.shape[1]) + starts[:, None]
    for name, padding in fill.items():
        value = batch.get(name)
        if isinstance(value, Tensor) and value.shape == mask.shape:
            moved = value.gather(1, places.clamp(max=mask.shape[1] - 1))
            batch[name] = moved.where(places < mask.shape[1], padding)
    return batch


def _class_indices(batch: Mapping[str, Any]) -> Tensor:
    for name in _LABEL_NAMES:
        value = batch.get(name)
        if isinstance(value, Tensor) and value.ndim == 1 and not value.is_floating_point():
            return value.long()
    raise DataError(
        f"Expected rows with a class index as {' or '.join(_LABEL_NAMES[:2])}, a whole number, but "
        f"the numbers that they have are {', '.join(map(str, batch)) or 'none'}."
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Stack:
    """Stacks the values of rows, and pads sequences on the right."""

    fill: Mapping[str, int]

    def __call__(self, rows: list[Mapping[str, Any]]) -> dict[str, Tensor]:
        batch = {}
        for name in rows[0]:
            values = [_as_tensor(row[name]) for row in rows]
            if any(value is None for value in values):  # a text, say
                continue
            found = [value for value in values if value is not None]
            if name in self.fill and found[0].ndim == 1:
                longest = max(map(len, found))
                found = [
                    F.pad(value, (0, longest - len(value)), value=self.fill[name])
                    for value in found
                ]
                if name == TOKENS and MASK not in rows[0]:
                    lengths = torch.tensor([len(row[name]) for row in rows])
                    batch[MASK] = (torch.arange(longest) < lengths[:, None]).long()
            batch[name] = torch.stack(found)
        return batch


def _as_tensor(value: object) -> Tensor | None:
    if value is None or isinstance(value, str | bytes):
        return None
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def _rows(data: Any, collate: Collate | None) -> tuple[Any, Collate | None]:
    """Return a data set with rows, and what makes a batch of them, if that is given."""
    if isinstance(data, DataLoader):
        collate = data.collate_fn if collate is None else collate
        data = data.dataset
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__") or not len(data):
        raise DataError(
            "Expected a data set with rows and indices, such as datasets.Dataset, but got "
            f"{'one without rows' if hasattr(data, '__len__') else type(data).__name__}."
        )
    try:
        data[0]
    except Exception as error:  # several splits, for one
        raise DataError(
            "Expected a data set with rows and indices, such as datasets.Dataset, but the first "
            f"row of a {type(data).__name__} cannot be read: {one_line(str(error), 200)}"
        ) from error
    return data, collate


def _fill(model: nn.Module) -> dict[str, int]:
    """Return the values at padding; of tokens any will do, as they are masked."""
    token = getattr(base_of(model).config, "pad_token_id", None)
    padding = token if isinstance(token, int) and token >= 0 else 0
    return {TOKENS: padding, MASK: 0, LABELS: IGNORED, "token_type_ids": 0, "position_ids": 0}


def count_classes(loader: Iterable[tuple[Any, Tensor]], labels: Sequence[str]) -> dict[str, int]:
    """Return class name -> number of samples, of those with any.

    Raises:
        DataError: if a class index has no label.
    """
    counts: dict[int, int] = {}
    for _, targets in loader:
        for index in targets.tolist():
            counts[index] = counts.get(index, 0) + 1
    if wrong := [index for index in counts if not 0 <= index < len(labels)]:
        raise DataError(f"Expected class indices in [0, {len(labels)}), but got {wrong[0]}.")
    return {labels[index]: count for index, count in sorted(counts.items())}
