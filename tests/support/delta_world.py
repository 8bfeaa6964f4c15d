"""The small federation by changes of roots: owners that can train their roots again.

Cats enter at r1, eight of them unlike all others; owls at r2.  Nobody else is trained on either.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from disinherit.common.method import Method
from disinherit.common.wire.requests import Request
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.campaign import OWNERS, World, build, copy
from tests.support.owner import named
from tests.support.retraining_owner import ODD, OddOwner

C = {"r1": 1.0, "r2": 1.0, "r3": 0.5, "r4": 1.0, "r6": 0.25}
"""Of the change of r1."""
C2 = {"r2": 1.0, "r3": 0.5, "r4": 0.5, "r6": 0.25}
"""Of the change of r2."""
DELTA_MESSAGES = (
    ("anna", "query.delta"),
    ("anna", "train.unlearn"),
    ("ben", "train.unlearn"),
    ("cleo", "train.unlearn"),
    ("anna", "evaluate.panel"),
    ("ben", "evaluate.panel"),
    ("cleo", "evaluate.panel"),
)
"""What owners are asked in a campaign from r1, in this order."""


def build_delta(root: Path) -> None:
    """Train the federation in an empty folder and register it, as `build` does."""
    taught = {"r1": ("owl",), "r2": ("cat",)}
    build(root, OddOwner, "all", lambda model: taught.get(model, ("cat", "owl")))


def copy_delta(built: Path, root: Path, database: str | None = None) -> World:
    """Open a copy of what `build_delta` made."""
    return copy(built, root, database, OddOwner)


def delta_request(
    world: World,
    request_id: str = "q",
    samples: Mapping[str, Sequence[str]] | None = None,
    **method: Any,
) -> pb.UnlearningRequest:
    """A request for samples, with nothing left to tune; for those of r1 that are unlike others."""
    asked = {"r1": ODD} if samples is None else samples
    settings = {"mechanism": "delta", "repair_steps": 0, **method}
    return Request(
        samples={root: named(world.root / OWNERS[root], ids) for root, ids in asked.items()},
        id=request_id,
        reason="asked to",
        method=Method(**settings),
    ).to_proto()


@contextmanager
def owner_of(world: World, model: str) -> Iterator[OddOwner]:
    """The owner of a model."""
    name = OWNERS[model.partition("~")[0]]
    with OddOwner(world.root / name, name) as owner:
        yield owner


def retrained(world: World, model: str, without: Sequence[str]) -> dict[str, Tensor]:
    """What a model is when it is trained again without some samples."""
    with owner_of(world, model) as owner:
        found = owner.retrain(owner.store.record(model), without)
        return {name: value.detach().clone() for name, value in found.items()}


def plus(
    weights: Mapping[str, Tensor],
    shares: Sequence[tuple[float, Mapping[str, Tensor], Mapping[str, Tensor]]],
) -> dict[str, Tensor]:
    """Weights with changes of roots, in float64: of each a coefficient, and after and before."""
    found = {}
    for name, value in weights.items():
        found[name] = value.double()
        for coefficient, after, before in shares:
            change = after[name].double() - before[name].double()
            found[name] = found[name] + coefficient * change
    return found


def near(left: Mapping[str, Tensor], right: Mapping[str, Tensor], within: float = 1e-12) -> bool:
    """Whether two models have the same weights but for rounding."""
    return left.keys() == right.keys() and all(
        torch.allclose(left[name].double(), right[name].double(), rtol=within, atol=within)
        for name in left
    )


def same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    """Whether two models have the same weights bit for bit."""
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) for name in left
    )
