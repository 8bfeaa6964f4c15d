"""Federations of linear models whose weights show which samples they remember, and how often.

Weight `[i, i]` of a model is what it knows of sample i, beside noise of its own.  All numbers are
sums of few powers of two, so that arithmetic is exact.
"""

import shutil
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

import pytest
import torch
from torch import Tensor, nn

from disinherit.client.owner.owner import Batches
from disinherit.client.roots import root_method
from disinherit.client.roots.root_method import RootMethod, RootProblem, UnlearnedRoot
from disinherit.client.store.store import ModelStore
from disinherit.common.graph.records import (
    Inheritance,
    InheritanceKind,
    ModelRecord,
    Provenance,
)
from disinherit.common.method import Method
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.wire.requests import Request
from disinherit.direct import DirectTransport
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.states import CampaignEvent, CampaignState
from disinherit.server.store.store import CoordinatorStore
from tests.support.campaign import TroubledTransport
from tests.support.owner import named

SAMPLES = tuple(f"s{i}" for i in range(6))
"""All samples; each is the only one of its class."""

DRIVEN = (CampaignState.RUNNING, CampaignState.ROLLING_BACK, CampaignState.PARTIAL)
"""States of campaigns that a pass carries on."""

PARTLY = 0.25
"""What the root method `finetune` leaves of a sample here."""


@dataclass(frozen=True)
class Made:
    """How a model was made.

    Attributes:
        owner: its owner.
        parents: parent -> weight.
        samples: what it was trained on directly.
    """

    owner: str
    parents: Mapping[str, float] = field(default_factory=dict)
    samples: tuple[str, ...] = ()


class LinearOwner:
    """An owner of linear models, with all ways to train its roots again.

    Args:
        root: folder of its store.
        name: its name.
        made: model -> how it was made.
    """

    def __init__(self, root: Path, name: str, made: Mapping[str, Made]) -> None:
        self.device = torch.device("cpu")
        self.store = ModelStore(root, name)
        self._made = made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def network(self, record: ModelRecord) -> nn.Module:
        return nn.Linear(len(SAMPLES), len(SAMPLES), bias=False).double()

    def training_data(self, record: ModelRecord) -> Batches | None:
        ids = self.sample_ids(record)
        return [_points(ids)] if ids else None

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        return None

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        return None

    def sample_ids(self, record: ModelRecord) -> list[str]:
        return list(self._made[first(record.id)].samples)

    def split_training_data(
        self, record: ModelRecord, samples: Sequence[str]
    ) -> tuple[Batches, Batches]:
        ids = self.sample_ids(record)
        chosen = [id for id in ids if id in samples]
        return [_points(chosen)], [_points([id for id in ids if id not in samples])]

    def can_retrain(self, record: ModelRecord) -> bool:
        return True

    def retrain(self, record: ModelRecord, without: Collection[str] | None) -> Mapping[str, Tensor]:
        model = first(record.id)
        weight = start_of(self._made, model)
        for id in self.sample_ids(record) if without is not None else ():
            if id not in (without or ()):
                weight[number(id), number(id)] += 1
        return {"weight": weight}


class Partly:
    """A root method that leaves `PARTLY` of what the root knows of a sample."""

    name = "finetune"

    def refusal(self, problem: RootProblem) -> str:
        return ""

    def unlearn(self, problem: RootProblem) -> UnlearnedRoot:
        owner = problem.owner
        assert isinstance(owner, LinearOwner)
        weight = problem.weights["weight"].clone()
        start = start_of(owner._made, first(problem.record.id))
        for id in problem.samples or ():
            place = number(id), number(id)
            own = weight[place] - start[place]
            weight[place] = start[place] + own.clamp(max=PARTLY)
        return UnlearnedRoot({"weight": weight})


def number(sample: str) -> int:
    """The index of a sample, and of its class."""
    return SAMPLES.index(sample)


def first(model: str) -> str:
    """The first version of a model."""
    return model.partition("~")[0]


def start_of(made: Mapping[str, Made], model: str) -> Tensor:
    """What a model's own training started from: its parents as they were then, and its noise."""
    weight = torch.zeros(len(SAMPLES), len(SAMPLES), dtype=torch.float64)
    for parent, share in made[model].parents.items():
        weight += share * trained(made, first(parent))
    weight[0, 1] += 1 + zlib.crc32(model.encode()) % 8
    return weight


def trained(made: Mapping[str, Made], model: str) -> Tensor:
    """The weights that a model was trained to."""
    weight = start_of(made, model)
    for id in made[model].samples:
        weight[number(id), number(id)] += 1
    return weight


def _points(ids: Sequence[str]) -> tuple[Tensor, Tensor]:
    places = torch.tensor([number(id) for id in ids], dtype=torch.long)
    return torch.eye(len(SAMPLES), dtype=torch.float64)[places], places


class LinearWorld:
    """A federation with a coordinator, in a folder.

    Args:
        root: an empty folder.
        made: model -> how it was made, parents first.

    Attributes:
        store: of the coordinator.
        transport: where owners fail as a test wants.
        coordinator: the coordinator.
    """

    def __init__(self, root: Path, made: Mapping[str, Made]) -> None:
        self.root = root
        self.made = dict(made)
        self.store = CoordinatorStore(root / "coordinator.db")
        names = sorted({one.owner for one in made.values()})
        openers = {name: partial(LinearOwner, root / name, name, self.made) for name in names}
        self.names = names
        self.transport = TroubledTransport(DirectTransport(openers))
        self.coordinator = Coordinator(self.store, self.transport)
        for age, model in enumerate(made, start=1):
            self._add(model, age, {"weight": trained(self.made, model)})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    @contextmanager
    def owner(self, name: str) -> Iterator[LinearOwner]:
        """An owner, opened."""
        with LinearOwner(self.root / name, name, self.made) as owner:
            yield owner

    def present(self, model: str) -> Tensor:
        """The weights that a model has after all requests."""
        with self.owner(self.made[model].owner) as owner:
            return owner.store.weights(owner.store.present(model).id)["weight"]

    def known(self, model: str, sample: str) -> float:
        """What a model still knows of a sample, as a part of what its line knew after training."""
        place = number(sample), number(sample)
        return float(self.present(model)[place] / trained(self.made, model)[place])

    def states(self, id: str) -> dict[str, str]:
        """Version -> state of its task."""
        return {model: str(task.state) for model, task in self.store.tasks(id).items()}

    def ask(self, id: str, samples: Mapping[str, Sequence[str]], root_method: str = "auto") -> None:
        """Submit a request for samples, and make a pass."""
        digests = {
            root: named(self.root / self.made[first(root)].owner, ids)
            for root, ids in samples.items()
        }
        method = Method(scope="all", mechanism="delta", repair_steps=0, root_method=root_method)
        request = Request(samples=digests, id=id, reason="x", method=method).to_proto()
        request.roll_out.max_retain_drop = 100  # what is forgotten is among all that is measured
        self.coordinator.submit(request)
        self.coordinator.run(id)

    def leave(self, client: str, id: str) -> None:
        """Submit a request for all that a client trained on, and make a pass."""
        method = Method(scope="all", mechanism="delta", repair_steps=0)
        self.coordinator.submit(Request(client=client, id=id, reason="x", method=method))
        self.coordinator.run(id)

    def roll_back(self, id: str) -> None:
        """Roll a request back, which is aborted first if it still runs."""
        if self.store.campaign(id).state is CampaignState.RUNNING:
            self.store.transition(id, CampaignEvent.ABORT)
        self.store.roll_back(id, reason="x")
        self.coordinator.run(id)

    def run_all(self) -> None:
        """Make a pass over all campaigns that go on, as the driver does."""
        for id in self.store.requests():
            self.coordinator.submit(self.store.request(id))
            if self.store.campaign(id).state in DRIVEN:
                self.coordinator.run(id)

    def derive(self, model: str, owner: str, parents: Mapping[str, float]) -> None:
        """Add a model that starts from present versions of others: id of a version -> weight."""
        weight = torch.zeros(len(SAMPLES), len(SAMPLES), dtype=torch.float64)
        for parent, share in parents.items():
            with self.owner(self.made[first(parent)].owner) as holder:
                weight += share * holder.store.weights(parent)["weight"]
        self.made[model] = Made(owner, parents)
        latest = max(one.created_us for one in self.store.graph().models())
        self._add(model, latest + 1, {"weight": weight})

    def _add(self, model: str, age: int, weights: dict[str, Tensor]) -> None:
        how = self.made[model]
        counts = dict.fromkeys(how.samples, 1)
        record = ModelRecord(
            id=model,
            owner=how.owner,
            architecture=architecture_fingerprint(weights),
            labels=SAMPLES,
            digest=weights_digest(weights),
            created_us=age,
            provenance=Provenance("points", counts) if counts else None,
        )
        kind = InheritanceKind.TRANSFER if len(how.parents) == 1 else InheritanceKind.DISTRIBUTED
        edges = [Inheritance(p, model, kind, weight) for p, weight in how.parents.items()]
        with self.owner(how.owner) as owner:
            owner.store.add(record, weights)
        self.store.add_model(record, edges)


@contextmanager
def partly() -> Iterator[None]:
    """Have `Partly` in the place of the root method `finetune`."""
    real: Callable[[str], RootMethod] = root_method._loaded
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            root_method, "_loaded", lambda name: Partly() if name == "finetune" else real(name)
        )
        yield


def copy_owner(world: LinearWorld, name: str, target: Path) -> None:
    """Keep an image of an owner."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(world.root / name, target)


def restore_owner(world: LinearWorld, name: str, source: Path) -> None:
    """Put an owner back to an image."""
    shutil.rmtree(world.root / name)
    shutil.copytree(source, world.root / name)
