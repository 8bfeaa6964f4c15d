"""Merges and their quantised copies, made again of dampened parents where a class is forgotten."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from disinherit.client.owner.owner import Batches, Owner
from disinherit.client.store.store import ModelStore
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.recipes import Recipe, as_recipe
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord, Provenance
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.recipes.computing import Parent, compute
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.wire.requests import Request
from disinherit.direct import DirectTransport
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.campaign.remedies import has_exact_parents, is_exact, remedy_of
from disinherit.server.states import Task, TaskState
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb
from tests.acceptance.test_derived_files import rounded_network
from tests.support.owner import LABELS, PointsOwner

LINEAR, TIES, INT8 = as_recipe("linear weights=1,1"), as_recipe("ties weights=1,1"), Recipe("int8")
MADE: Mapping[str, tuple[Recipe, Mapping[str, float]]] = {
    "merge": (LINEAR, {"r": 0.5, "u": 0.5}),
    "ties": (TIES, {"base": 1e-9, "r": 0.5, "u": 0.5}),
    "small-merge": (INT8, {"merge": 1.0}),
    "small-base": (INT8, {"base": 1.0}),
    "mean": (Recipe.AVERAGE, {"r": 0.5, "u": 0.5}),
}
"""Computed model -> how, and its parents with their shares, in the order of places."""
COMPUTED = ("merge", "ties", "small-merge", "small-base")
DONE = TaskState.VERIFIED


class Lab(PointsOwner):
    """An owner whose quantised copies have layers of their own, and who may lack data on some.

    Args:
        unmeasured: models without evaluation data.
    """

    def __init__(self, root: Path, name: str, unmeasured: Sequence[str] = ()) -> None:
        super().__init__(root, name)
        self.unmeasured = unmeasured

    def network(self, record: ModelRecord) -> nn.Module:
        return rounded_network() if record.id.startswith("small") else super().network(record)

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        if record.id.split("~")[0] in self.unmeasured:
            return None
        return super().evaluation_data(record)


def computed(model: str, weights: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    recipe, parents = MADE[model]
    like = rounded_network().state_dict() if recipe == INT8 else weights["base"]
    given = [Parent(partial(weights.__getitem__, name), share) for name, share in parents.items()]
    return compute(recipe, given, like)


@dataclass
class World:
    """A base, two fine-tunes and what was computed of them, of one owner, and a copy of another's.

    Attributes:
        root: folder.
        unmeasured: models without evaluation data.
        forged: how the recipe of `merge` is recorded, where that is wrong; it has data then.
        others: whether there are an average, and a copy of `merge` of another owner.
        messages: what owners were asked to unlearn.
    """

    root: Path
    unmeasured: Sequence[str] = ()
    forged: Recipe | None = None
    others: bool = True
    messages: list[pb.UnlearnTask] = field(default_factory=list)
    before: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.owners: dict[str, Callable[[], AbstractContextManager[Owner]]] = {
            name: partial(Lab, self.root / name, name, self.unmeasured) for name in ("anna", "ben")
        }
        store = CoordinatorStore(self.root / "coordinator.db")
        self.coordinator = Coordinator(store, self)
        self.direct = DirectTransport(self.owners)
        with Lab(self.root / "anna", "anna") as anna:
            store.add_model(anna.train("base", LABELS, 1), [])
            self.before["base"] = anna.store.weights("base")
            for age, model in enumerate("ru", 2):
                record = anna.train(model, LABELS, age, [self.before["base"]], steps=20 * age)
                store.add_model(record, [Inheritance("base", model, InheritanceKind.INCREMENTAL)])
                self.before[model] = anna.store.weights(model)
            for age, model in enumerate(MADE if self.others else COMPUTED, 4):
                self.before[model] = computed(model, self.before)
                self._add(anna, model, model, age)
        if self.others:
            with Lab(self.root / "ben", "ben") as ben:
                self._add(ben, "elsewhere", "merge", 20)

    def _add(self, owner: PointsOwner, id: str, model: str, age: int) -> None:
        recipe, parents = MADE[model]
        data = None
        if self.forged is not None and id == "merge":
            recipe, data = self.forged, Provenance("points", dict.fromkeys(LABELS, 24))
        weights = self.before[model]
        shape, digest = architecture_fingerprint(weights), weights_digest(weights)
        record = ModelRecord(id, owner.name, shape, LABELS, digest, age, data)
        edges = [
            Inheritance(parent, id, InheritanceKind.TRANSFER, share, {}, recipe, place)
            for place, (parent, share) in enumerate(parents.items(), 1)
        ]
        self.coordinator.store.add_model(owner.store.add(record, weights), edges)

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        """Pass messages on, and keep those to unlearn."""
        self.messages += [one.task for one in asks if isinstance(one.task, pb.UnlearnTask)]
        return self.direct.ask(asks, timeout)

    def forget(self, id: str = "q", name: str = "cat") -> Mapping[str, Task]:
        """Forget a class at the base, and return the tasks."""
        self.coordinator.submit(Request(forget={"base": [name]}, id=id))
        return self.coordinator.run(id).tasks

    def present(self) -> dict[str, dict[str, Tensor]]:
        """The weights of all of anna's models, as they are now."""
        with ModelStore(self.root / "anna", "anna") as store:
            return {model: store.weights(store.present(model).id) for model in self.before}


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Mapping[str, Task]]:
    world = World(tmp_path_factory.mktemp("classes"))
    return world, world.forget()


def test_merges_and_copies_are_computed_again_and_measured(
    built: tuple[World, Mapping[str, Task]],
) -> None:
    world, tasks = built
    after = world.present()
    for model in COMPUTED:
        task = tasks[model]
        assert task.state is DONE, task.reason
        assert task.result is not None
        assert task.result.remedy == pb.REMEDY_SUPPRESSED  # as its parents are: nothing is exact
        assert task.result.forget.before > 0.9
        assert task.result.forget.after <= task.result.forget.margin
        assert equal(after[model], computed(model, after)), model
        assert not equal(after[model], world.before[model])


def test_parents_come_before_what_is_computed_of_them(
    built: tuple[World, Mapping[str, Task]],
) -> None:
    world, _ = built
    (message,) = [one for one in world.messages if len(one.models) > 1]
    listed = [model.model_id for model in message.models]
    assert listed[-4:] == ["merge", "ties", "small-merge", "small-base"]
    assert {m.model_id for m in message.models if m.HasField("rebuilding")} == {*COMPUTED}
    assert not any(m.rebuilding.exact for m in message.models)


def test_averages_and_copies_elsewhere_are_dampened_as_before(
    built: tuple[World, Mapping[str, Task]],
) -> None:
    for model in ("mean", "elsewhere"):  # nobody has data or a summary for that
        assert built[1][model].state is TaskState.FAILED
        assert "Fisher summary" in built[1][model].reason


def test_a_repeated_message_a_second_request_and_back(tmp_path: Path) -> None:
    world = World(tmp_path, others=False)
    world.forget()
    first = world.present()
    world.coordinator.run("q", resend=True)
    assert all(equal(value, first[model]) for model, value in world.present().items())
    tasks, after = world.forget("p", "dog"), world.present()
    for model in COMPUTED:
        assert tasks[f"{model}~q"].state is DONE
        assert equal(after[model], computed(model, after))
        assert not equal(after[model], first[model])
    for request in ("p", "q"):
        world.coordinator.store.roll_back(request, reason="", actor="eve")
        world.coordinator.run(request)
    assert all(equal(value, world.before[model]) for model, value in world.present().items())


def test_a_wrong_recipe_is_not_followed(tmp_path: Path) -> None:
    world = World(tmp_path, forged=as_recipe("linear weights=0.9,0.1"))
    tasks, after = world.forget(), world.present()
    assert {tasks[model].state for model in COMPUTED} == {DONE}
    assert not equal(after["merge"], computed("merge", after))  # dampened with its own data
    assert equal(after["small-merge"], computed("small-merge", after))


def test_without_its_parent_a_copy_stays_as_it_is(tmp_path: Path) -> None:
    world = World(tmp_path, unmeasured=["merge"])
    tasks = world.forget()
    assert "no data of its owner shows whether it forgets" in tasks["merge"].reason
    assert tasks["small-merge"].state is TaskState.FAILED
    assert "no linear layer has 4 rows" in tasks["small-merge"].reason
    assert equal(world.present()["small-merge"], world.before["small-merge"])


def test_what_nobody_can_measure_is_not_kept_until_somebody_can(tmp_path: Path) -> None:
    unmeasured = ["merge", "small-merge", "small-base"]
    world = World(tmp_path, unmeasured=unmeasured)
    tasks = world.forget()
    for model in ("merge", "small-base"):
        assert tasks[model].state is TaskState.FAILED
        assert "no data of its owner shows whether it forgets" in tasks[model].reason
        assert equal(world.present()[model], world.before[model])
    unmeasured.clear()
    tasks = world.coordinator.run("q").tasks
    assert {tasks[model].state for model in COMPUTED} == {DONE}


@pytest.mark.parametrize("claim", [pb.REMEDY_REBUILT, pb.REMEDY_REPLAYED])
def test_a_claim_to_be_exact_is_not_believed(claim: pb.Remedy.ValueType) -> None:
    result = pb.ModelResult(remedy=claim)
    result.successor.id = "m~q"
    model = pb.ModelTask(rebuilding=pb.Rebuilding(parents=[pb.RebuildingParent(affected=True)]))
    packets = [pb.FisherPacket()]
    assert not has_exact_parents(model, InheritanceGraph(), {})
    assert not is_exact(result, packets, model, exact_parents=False)
    found = remedy_of(result, TaskState.APPLIED, packets, model, exact_parents=False)
    assert found == pb.REMEDY_SUPPRESSED
