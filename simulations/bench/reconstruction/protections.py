"""What an owner can do to a change before it is released."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from disinherit.common.deltas.codes import StoredChanges, encode_changes
from disinherit.common.method import DeltaCode

Changes = Mapping[str, Tensor]
Protection = Callable[[Changes], Changes]


def protections() -> dict[str, Protection]:
    """Return every protection, by name; `none` comes first."""
    return {
        "none": lambda changes: changes,
        "clipped to half its norm": _halved,
        "int8": partial(_coded, code="int8", rank=0),
        "rank 4": partial(_coded, code="full", rank=4),
        "rank 1": partial(_coded, code="full", rank=1),
        "noise of its norm": partial(_noised, ratio=1.0),
        "noise of 5 x its norm": partial(_noised, ratio=5.0),
    }


def _halved(changes: Changes) -> Changes:
    return {name: value / 2 for name, value in changes.items()}


def _coded(changes: Changes, code: DeltaCode, rank: int) -> Changes:
    stored = StoredChanges.read(encode_changes(changes, code, rank), code, rank, "a change")
    return {name: stored.decode(name).float() for name in changes}


def _noised(changes: Changes, ratio: float) -> Changes:
    """Add noise whose norm is `ratio` times that of the change, spread over all values."""
    norm = torch.stack([value.norm() for value in changes.values()]).norm()
    deviation = ratio * norm / sum(value.numel() for value in changes.values()) ** 0.5
    generator = torch.Generator().manual_seed(0)
    return {
        name: value + deviation * torch.randn(value.shape, generator=generator)
        for name, value in changes.items()
    }
