"""Loaders, labels and shown figures of networks in one process."""

from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader

from disinherit import ModelOutcome, Network
from tests.support.blobs import blobs

LABELS = ["cat", "dog", "owl"]

ALL = [0, 1, 2]


def loader(classes: list[int], seed: int, **options: Any) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(blobs(classes, seed), 32, **options)


def added(network: Network, name: str) -> nn.Module:
    return network._members[name].module


def shown(outcome: ModelOutcome) -> tuple[str, str]:
    return str(outcome.forget or "not measured"), str(outcome.retain or "not measured")
