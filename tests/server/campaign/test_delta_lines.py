"""Roots below other roots: whose change an owner means when a request comes again."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from torch import Tensor

from disinherit.client.dampening.summaries import register
from disinherit.client.deltas.repeating import forgotten_before
from disinherit.client.privacy.remaining import as_trained
from disinherit.common.graph.records import Inheritance, InheritanceKind
from disinherit.server.reports.report import coverage_of
from disinherit.server.states import TaskState
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.campaign import AFFECTED, World, broken, make_request
from tests.support.delta_world import (
    C2,
    C,
    copy_delta,
    delta_request,
    near,
    owner_of,
    plus,
    retrained,
    same,
)
from tests.support.owner import LABELS, named, trained_on
from tests.support.retraining_owner import ODD, OddOwner

OWLS = [f"owl-{i}" for i in range(6)]


@pytest.fixture
def world(built_delta: Path, tmp_path: Path) -> Iterator[World]:
    with copy_delta(built_delta, tmp_path / "world") as world:
        yield world


def run(world: World, request: pb.UnlearningRequest) -> dict[str, str]:
    """Run a request, and return model -> remedy."""
    world.coordinator.submit(request)
    world.coordinator.run(request.id)
    covered = coverage_of(world.store, request.id).models
    return {one.model_id: pb.Remedy.Name(one.remedy).removeprefix("REMEDY_") for one in covered}


def present(world: World, model: str) -> Mapping[str, Tensor]:
    """The weights that a model has after all requests."""
    with owner_of(world, model) as owner:
        return dict(owner.store.weights(owner.store.present(model).id))


def test_a_root_that_inherited_a_change_has_not_forgotten_its_own_samples(world: World) -> None:
    run(world, delta_request(world))
    before = {model: world.weights(f"{model}~q") for model in C2}
    run(world, delta_request(world, "p", {"r2": OWLS}))
    change = retrained(world, "r2", OWLS), world.weights("r2")
    for model, share in C2.items():
        expected = plus(before[model], [(share, *change)])
        assert near(world.weights(f"{model}~q~p"), expected), model


def test_a_change_whose_root_did_not_take_it_is_not_added_again_by_another_request(
    world: World,
) -> None:
    world.transport.twists["anna", "train.unlearn"] = broken
    run(world, delta_request(world))
    assert world.states()["r1"] is not TaskState.VERIFIED
    got = [model for model, task in world.store.tasks("q").items() if task.successor is not None]
    assert "r2" in got
    world.transport.twists.clear()
    run(world, delta_request(world, "p"))
    world.coordinator.run("q")
    change = retrained(world, "r1", ODD), world.weights("r1")
    assert same(present(world, "r1"), change[0])
    for model, share in C.items():
        assert near(present(world, model), plus(world.weights(model), [(share, *change)])), model


def test_a_root_that_goes_back_to_its_start_keeps_what_it_inherited(world: World) -> None:
    run(world, delta_request(world))
    before = {model: world.weights(f"{model}~q") for model in C2}
    trained = trained_on(world.store.graph().model("r2"))
    request = make_request({"r2": trained}, "p", scope="all", mechanism="delta", repair_steps=0)
    request.roll_out.max_retain_drop = 100
    run(world, request)
    with owner_of(world, "r2") as owner:
        start = dict(owner.retrain(owner.store.record("r2"), None))
    for model, share in C2.items():
        expected = plus(before[model], [(share, start, world.weights("r2"))])
        assert near(world.weights(f"{model}~q~p"), expected), model


def test_a_root_whose_samples_are_all_named_forgets_and_has_no_summary_any_more(
    world: World,
) -> None:
    with owner_of(world, "r1") as owner:
        register(owner, pb.RegisterTask(scope="head"))
        everything = list(owner.sample_ids(owner.store.record("r1")))
    request = delta_request(world, "q", {"r1": everything})
    request.roll_out.max_retain_drop = 100
    run(world, request)
    with owner_of(world, "r1") as owner:
        successor = owner.store.present("r1")
        assert successor.id == "r1~q"
        assert owner.store.fishers("r1") is not None
        assert owner.store.fishers(successor.id) is None


def test_the_root_method_of_a_root_below_another_is_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OddOwner, "can_retrain", lambda owner, record: record.id.startswith("r1"))
    two = delta_request(world, "two", {"r1": ODD, "r2": OWLS})
    two.roll_out.max_retain_drop = 90
    run(world, two)
    deltas = {
        one.root: one.root_method
        for task in world.store.tasks("two").values()
        if task.result is not None
        for one in task.result.deltas
    }
    assert deltas["r1"] == "replay" != deltas["r2"]
    before = world.weights("r2~two")
    again = delta_request(world, "again", {"r2": OWLS}, root_method=deltas["r2"], scope="all")
    assert run(world, again)["r2~two"] == "UNTOUCHED"
    assert same(world.weights("r2~two~again"), before)
    with owner_of(world, "r2") as owner:
        present = as_trained(owner, owner.store.record("r2~two"))
        assert forgotten_before(owner, present, OWLS, deltas["r2"])
        assert forgotten_before(owner, present, OWLS, "replay") == ()


def test_a_request_again_may_name_the_present_version_of_a_root(world: World) -> None:
    run(world, delta_request(world))
    before = {model: world.weights(f"{model}~q") for model in AFFECTED}
    request = delta_request(world, "p")
    request.roots[0].model_id = "r1~q"
    assert set(run(world, request).values()) <= {"UNTOUCHED", "UNSPECIFIED"}
    for model in AFFECTED:
        assert same(world.weights(f"{model}~q~p"), before[model])
    assert world.states("p")["r1~q"] is TaskState.VERIFIED


def test_a_change_of_the_same_request_at_another_root_is_not_this_one(world: World) -> None:
    """A version gets its parent after a request that was for both, each for itself."""
    with OddOwner(world.root / "ben", "ben") as ben:
        start = ben.train("x", LABELS, 90)
        lone = ben.train("y", ("owl", "yak"), 91, start=[ben.store.weights("x")])
    for record in (start, lone):
        world.store.add_model(record)
    names = {"x": ["cat-0", "dog-1"], "y": OWLS}
    request = delta_request(world, "q", {"r1": ODD})
    del request.roots[:]
    for model, ids in names.items():
        found = named(world.root / "ben", ids)
        request.roots.add(model_id=model, samples=found.digests, sample_salt=found.salt)
    run(world, request)
    before = world.weights("y~q")
    world.store.add_model(lone, [Inheritance("x", "y", InheritanceKind.TRANSFER)])
    again = pb.UnlearningRequest()
    again.CopyFrom(request)
    again.id = "p"
    del again.roots[1:]
    run(world, again)
    with OddOwner(world.root / "ben", "ben") as ben:
        after, old = ben.store.weights("x~q"), ben.store.weights("x")
        found_y = ben.store.weights("y~q~p")
    assert near(found_y, plus(before, [(1.0, after, old)]))
