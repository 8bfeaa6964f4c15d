"""Averages and copies of an unlearned root, computed again bit for bit from what became of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from disinherit.client.owner.owner import Batches, Owner
from disinherit.client.store.store import ModelStore
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.recipes import Recipe
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.common.method import Method
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.recipes.averages import average
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.wire.requests import Request
from disinherit.direct import DirectTransport
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.campaign.remedies import has_exact_parents, is_exact, remedy_of
from disinherit.server.states import Task, TaskState
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.owner import LABELS, named
from tests.support.retraining_owner import RetrainingOwner

FORGET = ["cat-0", "cat-1", "dog-2"]
PARENTS: Mapping[str, Mapping[str, float]] = {
    "merged": {"u": 0.7, "r": 0.3},
    "again": {"merged": 0.1, "u": 0.6, "v": 0.3},
    "copy": {"again": 1.0},
}
"""Computed model -> its parents and weights, in the order of addition, which is not by name."""


def by_hand(weights: Mapping[str, Mapping[str, Tensor]], model: str) -> dict[str, Tensor]:
    parents = PARENTS[model]
    names = weights[next(iter(parents))]
    made = {}
    for name in names:
        made[name] = torch.zeros_like(names[name])  # 0 + x is x
        for parent, weight in parents.items():
            made[name] = made[name] + weight * weights[parent][name]
    return made


class Line(RetrainingOwner):
    """An owner whose successors have the samples of what they were made of."""

    def _first(self, record: ModelRecord) -> ModelRecord:
        return self.store.record(record.id.split("~")[0])

    def training_data(self, record: ModelRecord) -> Batches | None:
        return super().training_data(self._first(record))

    def sample_ids(self, record: ModelRecord) -> list[str]:
        return super().sample_ids(self._first(record))

    def split_training_data(
        self, record: ModelRecord, samples: Sequence[str]
    ) -> tuple[Batches, Batches]:
        return super().split_training_data(self._first(record), samples)


class World:
    """A federation of one owner who trained r, u and v, and averaged them, and of another.

    Args:
        root: folder.
        claimed: what the recipe of `merged` is recorded as, where that is wrong.
    """

    def __init__(self, root: Path, claimed: Mapping[str, float] | None = None) -> None:
        self.root = root
        self.owners: dict[str, Callable[[], AbstractContextManager[Owner]]] = {
            name: partial(Line, root / name, name) for name in ("anna", "ben")
        }
        self.coordinator = Coordinator(
            CoordinatorStore(root / "coordinator.db"), DirectTransport(self.owners)
        )
        add = self.coordinator.store.add_model
        with RetrainingOwner(root / "anna", "anna") as anna:
            for age, model in enumerate("ruv", 1):
                add(anna.train(model, LABELS[: 1 + age], age), [])
            self.before = {model: anna.store.weights(model) for model in "ruv"}
            for age, model in enumerate(PARENTS, 4):
                weights = average((self.before[p], w) for p, w in PARENTS[model].items())
                self.before[model] = weights
                record = self._record(model, "anna", weights, age)
                edges = self._edges(
                    model, (claimed if model == "merged" else None) or PARENTS[model]
                )
                add(anna.store.add(record, weights), edges)
        with RetrainingOwner(root / "ben", "ben") as ben:
            record = self._record("elsewhere", "ben", self.before["merged"], 9)
            edges = self._edges("elsewhere", PARENTS["merged"])
            add(ben.store.add(record, self.before["merged"]), edges)

    @staticmethod
    def _record(model: str, owner: str, weights: Mapping[str, Tensor], age: int) -> ModelRecord:
        return ModelRecord(
            model, owner, architecture_fingerprint(weights), LABELS, weights_digest(weights), age
        )

    @staticmethod
    def _edges(model: str, parents: Mapping[str, float]) -> list[Inheritance]:
        kind = InheritanceKind.FEDERATED if len(parents) > 1 else InheritanceKind.INCREMENTAL
        return [
            Inheritance(parent, model, kind, weight, {}, Recipe.AVERAGE, place)
            for place, (parent, weight) in enumerate(parents.items(), 1)
        ]

    def run(self, id: str = "q", samples: list[str] = FORGET) -> Mapping[str, Task]:
        """Forget samples at r, and return the tasks."""
        method = Method(mechanism="delta", root_method="replay", scope="all", repair_steps=0)
        self.coordinator.submit(
            Request(samples={"r": named(self.root / "anna", samples)}, method=method, id=id)
        )
        return self.coordinator.run(id).tasks

    def forget(self, id: str = "q", samples: list[str] = FORGET) -> dict[str, pb.ModelResult]:
        """Forget samples at r, and return what was done to each model."""
        tasks = self.run(id, samples)
        ends = {TaskState.VERIFIED, TaskState.INEFFECTIVE, TaskState.EXEMPT}
        assert {task.state for task in tasks.values()} <= ends
        return {model: task.result for model, task in tasks.items() if task.result is not None}

    def weights(self, model: str, owner: str = "anna") -> dict[str, Tensor]:
        with ModelStore(self.root / owner, owner) as store:
            return store.weights(store.present(model).id)


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_averages_and_copies_are_rebuilt_bit_for_bit(tmp_path: Path) -> None:
    world = World(tmp_path)
    for model in PARENTS:
        assert equal(world.before[model], by_hand(world.before, model))
    results = world.forget()
    after = {model: world.weights(model) for model in (*"ruv", *PARENTS)}
    assert not equal(after["r"], world.before["r"])
    for model in PARENTS:
        assert results[model].remedy == pb.REMEDY_REBUILT
        assert equal(after[model], by_hand(after, model))
        assert not equal(after[model], world.before[model])
    assert results["r"].remedy == pb.REMEDY_REPLAYED


def test_an_owner_without_the_parents_adds_the_change(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.forget()["elsewhere"].remedy == pb.REMEDY_APPROXIMATED
    found, exact = world.weights("elsewhere", "ben"), world.weights("merged")
    for name, value in exact.items():
        assert torch.allclose(found[name], value, rtol=0, atol=1e-6)


def test_a_wrong_recipe_is_not_followed(tmp_path: Path) -> None:
    world = World(tmp_path, claimed={"u": 0.6, "r": 0.4})
    assert world.forget()["merged"].remedy == pb.REMEDY_APPROXIMATED


def test_a_second_request_rebuilds_what_the_first_rebuilt(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.forget()
    results = world.forget("p", ["cat-7"])
    after = {model: world.weights(model) for model in (*"ruv", *PARENTS)}
    for model in PARENTS:
        assert results[f"{model}~q"].remedy == pb.REMEDY_REBUILT
        assert equal(after[model], by_hand(after, model))


def test_what_was_rebuilt_has_the_change_where_the_request_comes_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.forget()
    before = {model: world.weights(model) for model in ("r", *PARENTS)}
    results = world.forget("p")
    for model in before:
        assert results[f"{model}~q"].remedy == pb.REMEDY_UNTOUCHED, model
        assert equal(world.weights(model), before[model])


@pytest.mark.parametrize("claim", [pb.REMEDY_REBUILT, pb.REMEDY_REPLAYED])
def test_a_claim_beyond_the_recipe_is_not_believed(claim: pb.Remedy.ValueType) -> None:
    result = pb.ModelResult(remedy=claim)
    result.successor.id = "m~q"
    packets = [pb.FisherPacket(delta=pb.Delta(exact=True))]
    model = pb.ModelTask(shares=[pb.Share(coefficient=0.5)], rebuilding=pb.Rebuilding())
    assert not has_exact_parents(model, InheritanceGraph(), {})
    for exact in (False, True) if claim == pb.REMEDY_REPLAYED else (False,):
        assert not is_exact(result, packets, model, exact_parents=exact)
        found = remedy_of(result, TaskState.APPLIED, packets, model, exact_parents=exact)
        assert found == pb.REMEDY_APPROXIMATED


def test_rebuilt_is_believed_only_of_parents_that_are_stored_as_exact(tmp_path: Path) -> None:
    world = World(tmp_path)
    honest = DirectTransport(world.owners)

    class Lying:
        def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
            for answer in honest.ask(asks, timeout):
                for result in getattr(answer.reply, "models", ()):
                    if isinstance(result, pb.ModelResult) and result.model_id == "merged":
                        result.remedy = pb.REMEDY_APPROXIMATED
                yield answer

    world.coordinator = Coordinator(world.coordinator.store, Lying())
    results = world.forget()
    assert results["r"].remedy == pb.REMEDY_REPLAYED
    for model in PARENTS:
        assert results[model].remedy == pb.REMEDY_APPROXIMATED, model


def test_a_refused_parent_is_not_an_exact_one(tmp_path: Path) -> None:
    world = World(tmp_path)
    honest = DirectTransport(world.owners)

    class Spoiling:
        def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
            for answer in honest.ask(asks, timeout):
                for result in getattr(answer.reply, "models", ()):
                    if isinstance(result, pb.ModelResult) and result.model_id == "merged":
                        result.successor.id = "merged~other"
                yield answer

    world.coordinator = Coordinator(world.coordinator.store, Spoiling())
    tasks = world.run()
    assert tasks["merged"].state is TaskState.FAILED
    assert tasks["again"].result is not None
    assert tasks["again"].result.remedy == pb.REMEDY_APPROXIMATED
