"""What an owner of models of transformers keeps of a model, beside its versions."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader

from disinherit.client.huggingface.content_ids import contents, places_by_content
from disinherit.client.huggingface.forms import Form
from disinherit.common.errors import DataError
from disinherit.common.limits import shown

Retrain = Callable[[Any | None], "nn.Module | Mapping[str, Tensor]"]
"""Trains a model again on some rows of its data set, or on none (`HuggingFaceOwner.add`)."""


@dataclass(frozen=True, eq=False)
class KeptModel:
    """What an owner keeps of a model, beside its versions.

    Attributes:
        hollow: its architecture, without weights.
        form: how it is called.
        training: what it was trained on directly.
        tuning: held-out data to choose strengths by.
        evaluation: held-out data to measure by.
        column: of the ids of its samples; `""` for ids by content.
        retrain: trains it again.
        folder: where it came from.
        origin: its id on the hub; `""` for a module or another folder.
        curvature: whether its curvature is registered.
    """

    hollow: nn.Module
    form: Form
    training: DataLoader[Any] | None
    tuning: DataLoader[Any] | None
    evaluation: DataLoader[Any] | None
    column: str
    retrain: Retrain | None
    folder: Path | None
    origin: str
    curvature: bool

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """Id of each training sample -> its indices.

        Raises:
            DataError: if there is no such column, two samples that are no copies have one id in
                it, or rows differ whenever they are read.
        """
        if self.training is None:
            return {}
        if not self.column:
            return places_by_content(self.training)
        rows: Any = self.training.dataset
        if self.column not in (first := rows[0]):
            raise DataError(
                f"Expected column {self.column!r} with the ids of samples, but the columns are "
                f"{', '.join(map(str, first))}. Name one of them, or none."
            )
        places: dict[str, list[int]] = {}
        for index in range(len(rows)):
            places.setdefault(str(rows[index][self.column]), []).append(index)
        for id, some in places.items():
            if len(some) > 1 and len({*contents(self.training, some)}) > 1:
                raise DataError(
                    f"Expected column {self.column!r} to have an id for each sample, but "
                    f"{shown(id)} is that of {len(some)} of {len(rows)}, which are not copies. "
                    "Name another column."
                )
        return places

    def places_of(self, ids: Iterable[str]) -> set[int]:
        """Return the indices of the training samples with some ids."""
        return {*chain.from_iterable(self.places[id] for id in ids)}
