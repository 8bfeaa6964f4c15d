"""Requests by changes of roots, where an owner cannot give a change or does not know of any.

An owner with an older release gives one clear line at the models concerned, and the campaign ends.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from disinherit.common.method import Method
from disinherit.common.wire.requests import Request
from disinherit.server.states import TaskState
from disinherit.server.transport.answers import is_older
from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.campaign import AFFECTED, World, copy
from tests.support.owner import named

OLD_AGENT = "owner anna: Expected an action among query.fisher, but got 'query.delta'."
OLD_NODE = (
    "owner anna could not handle query.delta: Flower error 4: <class 'ValueError'>:<'No query "
    "function registered with name 'delta''>"
)
ADVICE = "train such roots again (`retrain`), or ask with --mechanism fisher."


@pytest.fixture
def world(built: Path, tmp_path: Path) -> Iterator[World]:
    with copy(built, tmp_path / "world") as world:
        yield world


def submit(world: World, **request: object) -> None:
    asked = Request(id="q", **request)  # type: ignore[arg-type]
    assert asked.method.inherits_delta
    world.coordinator.submit(asked.to_proto())


def samples(world: World) -> dict[str, object]:
    return {"samples": {"r1": named(world.root / "anna", ["cat-0", "dog-3"])}}


@pytest.mark.parametrize("error", [OLD_AGENT, OLD_NODE])
def test_an_older_owner_of_a_root_gives_one_line_at_all_descendants(
    world: World, error: str
) -> None:
    world.transport.twists["anna", "query.delta"] = lambda ask, _: Answer(ask, error=error)
    submit(world, **samples(world))
    assert world.coordinator.run("q").outcome == "failed"
    assert set(world.states().values()) == {TaskState.FAILED}
    for model in world.states():
        reason = world.reason(model)
        assert "\n" not in reason
        assert reason.endswith(ADVICE)
        if world.store.graph().model(model).owner == "anna":
            assert "owner anna has an older release of Disinherit, which does not" in reason
            assert "know query.delta: update it" in reason
        else:
            assert "owner anna cannot give it; the coverage of r1 says why" in reason


def test_other_errors_are_not_those_of_an_older_owner() -> None:
    ask = Ask("anna", "query.delta", pb.FisherTask())
    assert is_older(Answer(ask, error=OLD_AGENT))
    assert not is_older(Answer(ask, error="owner anna: disk on fire"))
    assert not is_older(Answer(ask, reply=pb.FisherReply()))


def without_shares(ask: Ask) -> Ask:
    """What an older release makes of a message: it does not know of shares."""
    task = pb.UnlearnTask()
    task.CopyFrom(cast("pb.UnlearnTask", ask.task))
    for model in task.models:
        model.ClearField("shares")
    return replace(ask, task=task)


def test_an_older_owner_of_a_descendant_changes_nothing_and_it_says_why(world: World) -> None:
    def older(ask: Ask, _: Callable[[], Answer]) -> Answer:
        (answer,) = world.transport.inner.ask([without_shares(ask)], 1)
        return replace(answer, ask=ask)

    world.transport.twists["cleo", "train.unlearn"] = older
    submit(world, **samples(world))
    before = world.weights("r3")
    world.coordinator.run("q")
    assert world.states()["r3"] is TaskState.FAILED
    assert world.reason("r3") == (
        "its owner has an older release of Disinherit, which does not know changes of roots: "
        "update it, or ask with --mechanism fisher"
    )
    assert world.weights("r3").keys() == before.keys()
    assert all((value == before[name]).all() for name, value in world.weights("r3").items())
    assert TaskState.FAILED not in {s for m, s in world.states().items() if m != "r3"}


def test_a_client_that_cannot_train_again_is_told_what_else_can_be_done(world: World) -> None:
    submit(world, client="anna")
    world.coordinator.run("q")
    roots = {root.model_id for root in world.store.request("q").roots}
    others = world.states().keys() - roots
    assert others
    for model in others:
        reason = world.reason(model)
        assert world.states()[model] is TaskState.FAILED
        assert "\n" not in reason
        assert reason.endswith(ADVICE)
        assert "owner anna cannot give it; the coordinator's log says why" in reason


def test_a_client_can_be_forgotten_by_fisher_information_instead(world: World) -> None:
    world.coordinator.register(["anna", "ben", "cleo"], "all")
    method = Method(mechanism="fisher", scope="all", alpha=1.0, lam=0.5, gauge=0.0)
    world.coordinator.submit(Request(client="anna", id="q", method=method).to_proto())
    world.coordinator.run("q")
    assert TaskState.FAILED not in world.states().values()
    assert set(AFFECTED) <= world.states().keys()
