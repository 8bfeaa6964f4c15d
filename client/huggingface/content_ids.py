"""Ids of samples by their content, for data sets in which no column names them.

What a sample is called must not depend on where it stands: the third row of one data set is not
that of another, and models of one owner are compared by the ids of what they were trained on.  So
the id is that of what a model gets of the sample: the tokens of a sequence, without padding, else
all inputs; and of the name of its class, if it has one.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from disinherit.client.huggingface.batches import MASK, TOKENS, Pairs, pairs_of
from disinherit.common.errors import DataError
from disinherit.common.models.content import content_id


def places_by_content(loader: DataLoader[Any]) -> dict[str, list[int]]:
    """Return the id of each sample -> its indices in the data set, which is read once.

    Samples of the same content have one id, so they are forgotten together.

    Args:
        loader: of `make_loader`.

    Raises:
        DataError: if a row is another one whenever it is read.
    """
    rows: Any = loader.dataset
    places: dict[str, list[int]] = {}
    for index, id in enumerate(contents(loader, range(len(rows)))):
        places.setdefault(id, []).append(index)
    return places


def contents(loader: DataLoader[Any], indices: Iterable[int]) -> Iterator[str]:
    """Yield the ids by content of some samples of the data set; errors as of `places_by_content`.

    Args:
        loader: of `make_loader`.
        indices: of the samples.
    """
    rows: Any = loader.dataset
    given = pairs_of(loader)
    pairs = Pairs(given.collate, given.form, given.fill)  # no wider than the sample itself
    for count, index in enumerate(indices):
        id = _id_of(pairs, rows[index])
        if not count and _id_of(pairs, rows[index]) != id:
            raise DataError(
                "Expected the same row whenever it is read, to know samples by their content, but "
                "the first one differs each time, as by random augmentation. Name a column of ids."
            )
        yield id


def _id_of(pairs: Pairs, row: Any) -> str:
    inputs, targets = pairs([row])
    named = dict(zip(pairs.form.arguments, inputs, strict=True))
    if TOKENS in named:
        tokens = named[TOKENS]
        named = {TOKENS: tokens[named[MASK].bool()] if MASK in named else tokens[0]}
    is_classified = pairs.form.task == "classification"
    label = pairs.form.labels[int(targets[0])] if is_classified else ""
    return content_id(label, (named[name] for name in sorted(named)))
