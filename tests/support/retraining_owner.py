"""An owner of points that can train its models again, as `Retrains` has it."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from disinherit.client.owner.owner import Batches
from disinherit.common.graph.records import ModelRecord
from tests.support.owner import LABELS, PointsOwner, make_network


class RetrainingOwner(PointsOwner):
    """`PointsOwner` with its own training replayed.

    Attributes:
        kept: whether what a replay takes is still there.
        given: tensors that the replay returns in the place of its own.
        asked: what it was asked to leave out.
    """

    def __init__(self, root: Path, name: str = "anna") -> None:
        super().__init__(root, name)
        self.kept = True
        self.given: dict[str, Tensor] = {}
        self.asked: list[Collection[str] | None] = []
        self.dtype = torch.float64
        self.make: Callable[[int], nn.Module] = make_network

    def __enter__(self) -> Self:
        return self

    def network(self, record: ModelRecord) -> nn.Module:
        return self.make(len(record.labels)).to(self.dtype)

    def can_retrain(self, record: ModelRecord) -> bool:
        return self.kept

    def retrain(self, record: ModelRecord, without: Collection[str] | None) -> Mapping[str, Tensor]:
        self.asked.append(without)
        network = make_network(len(LABELS))
        if without is not None:
            _, batches = self.split_training_data(record, list(without))
            fit(network, batches)
        return {**network.state_dict(), **self.given}


def fit(network: nn.Module, batches: Batches, steps: int = 60) -> None:
    """Train as `PointsOwner.train` does."""
    ((inputs, targets),) = batches
    assert isinstance(inputs, Tensor)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), targets).backward()
        optimizer.step()
