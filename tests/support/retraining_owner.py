"""An owner of points that can train its models again, as `Retrains` has it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from disinherit.common.graph.records import ModelRecord
from tests.support.owner import LABELS, DataSet, PointsOwner, average, fit, make_network

ODD = [f"cat-{i}" for i in range(8)]
"""Samples of `OddOwner` that only their own training teaches."""


class RetrainingOwner(PointsOwner):
    """`PointsOwner` with its own training replayed, from the start that it keeps beside its store.

    Attributes:
        kept: whether what a replay takes is still there.
        given: tensors that the replay returns in the place of its own.
        asked: what it was asked to leave out.
    """

    def __init__(self, root: Path, name: str = "anna", **options: Any) -> None:
        super().__init__(root, name, **options)
        self.starts = root.with_name(f"{root.name}.starts")
        self.kept = True
        self.given: dict[str, Tensor] = {}
        self.asked: list[Collection[str] | None] = []
        self.dtype = torch.float64
        self.make: Callable[[int], nn.Module] = make_network

    def __enter__(self) -> Self:
        return self

    def network(self, record: ModelRecord) -> nn.Module:
        return self.make(len(record.labels)).to(self.dtype)

    def train(
        self,
        model_id: str,
        classes: Sequence[str],
        created_us: int,
        start: Sequence[Mapping[str, Tensor]] = (),
        labels: Sequence[str] = LABELS,
        steps: int = 60,
    ) -> ModelRecord:
        if start:
            self.starts.mkdir(exist_ok=True)
            save_file(average(start), self.starts / f"{model_id}.safetensors")
        return super().train(model_id, classes, created_us, start, labels, steps)

    def can_retrain(self, record: ModelRecord) -> bool:
        return self.kept

    def retrain(self, record: ModelRecord, without: Collection[str] | None) -> Mapping[str, Tensor]:
        self.asked.append(without)
        network = make_network(len(record.labels))
        kept = self.starts / f"{record.id.partition('~')[0]}.safetensors"
        if kept.exists():
            network.load_state_dict(load_file(kept))
        if without is not None:
            _, batches = self.split_training_data(record, list(without))
            fit(network, batches)
        return {**network.state_dict(), **self.given}


class OddOwner(RetrainingOwner):
    """`RetrainingOwner` with samples in its training data that are like no others: `ODD`."""

    def points(
        self, split: DataSet, labels: Sequence[str], classes: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        inputs, targets = super().points(split, labels, classes)
        if split == "train" and "cat" in classes:
            places = (targets == labels.index("cat")).nonzero().flatten()[: len(ODD)]
            inputs[places] = inputs[places].roll(-1, 1)  # along the axis of no class
        return inputs, targets
