"""Changes that owners hold back or refuse, and requests that repeat what was carried out."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from disinherit.client.deltas import changing
from disinherit.client.privacy.acceptance import AcceptancePolicy
from disinherit.client.privacy.policy import ReleasePolicy
from disinherit.common.audit.gaps import GapKind
from disinherit.common.deltas.packets import PackedDelta
from disinherit.server.reports.report import report_of
from disinherit.server.states import CampaignEvent, TaskState
from disinherit.v1 import unlearning_pb2 as pb
from tests.server.campaign.test_delta_campaigns import (
    VERIFIED,
    attested,
    check_added,
    remedies,
)
from tests.support.campaign import AFFECTED, OWNERS, World, broken, lying
from tests.support.delta_world import (
    C,
    copy_delta,
    delta_request,
    near,
    plus,
    retrained,
    same,
)
from tests.support.retraining_owner import ODD, OddOwner

BELOW = AFFECTED[1:]
STRICT = ReleasePolicy(delta_min_samples=1000)


@pytest.fixture
def world(built_delta: Path, tmp_path: Path) -> Iterator[World]:
    with copy_delta(built_delta, tmp_path / "world") as world:
        world.coordinator.submit(delta_request(world))
        yield world


def digests(world: World, request_id: str) -> dict[str, tuple[str, str]]:
    """Model -> digest of its weights before and after a request."""
    graph = world.store.graph()
    return {
        model: (graph.model(model).digest, task.successor.digest)
        for model, task in world.store.tasks(request_id).items()
        if task.successor is not None
    }


def withhold(monkeypatch: pytest.MonkeyPatch, policy: ReleasePolicy = STRICT) -> None:
    monkeypatch.setattr(OddOwner, "release_policy", policy, raising=False)


# --- withheld


def test_a_root_forgets_though_its_change_is_withheld(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    withhold(monkeypatch)
    sent: list[pb.FisherPacket] = []
    world.transport.twists["anna", "query.delta"] = lying(
        lambda reply: sent.extend(packet for one in reply.roots for packet in one.packets)
    )
    assert world.coordinator.run("q").outcome == "partial"
    others = [model for model in BELOW if OWNERS[model] != "anna"]
    forgot = dict.fromkeys(("r1", "r4"), TaskState.VERIFIED)
    assert world.states() == {**dict.fromkeys(others, TaskState.FAILED), **forgot}
    assert same(world.weights("r1~q"), retrained(world, "r1", ODD))
    assert remedies(world)["r1"] == "REPLAYED"
    change = retrained(world, "r1", ODD), world.weights("r1")
    assert near(world.weights("r4~q"), plus(world.weights("r4"), [(C["r4"], *change)]))
    for model in others:
        assert "no change from upstream root r1: withheld by owner anna" in world.reason(model)
    (packet,) = sent
    assert PackedDelta.from_packet(packet).values == {}
    attested(world)
    world.coordinator.run("q")  # asked again, and still withheld
    assert world.states()["r2"] is TaskState.FAILED
    assert len(sent) == 1
    monkeypatch.undo()
    assert world.coordinator.run("q").outcome == "complete"
    check_added(world)


def test_values_in_the_place_of_a_withheld_change_are_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    change: list[pb.FisherPacket] = []
    world.transport.twists["anna", "query.delta"] = lying(
        lambda reply: change.extend(reply.roots[0].packets)
    )
    world.coordinator.run("q")
    world.store.roll_back("q", actor="tests")
    world.coordinator.run("q")
    world.coordinator.submit(delta_request(world, "again"))

    def with_values(reply: pb.FisherReply) -> None:
        reply.roots[0].packets[0].tensors = change[0].tensors
        reply.roots[0].packets[0].digest = change[0].digest

    withhold(monkeypatch)
    world.transport.twists["anna", "query.delta"] = lying(with_values)
    world.coordinator.run("again")
    assert world.states("again")["r1"] is TaskState.FAILED
    assert "What it sent in its place was refused: Expected no values" in world.reason(
        "r1", "again"
    )


# --- refused by owners of descendants


@pytest.mark.parametrize(
    "policy", [AcceptancePolicy(False), AcceptancePolicy(refuse_deltas_of=("anna",))]
)
def test_an_owner_refuses_the_changes_of_others_and_takes_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch, policy: AcceptancePolicy
) -> None:
    monkeypatch.setattr(OddOwner, "acceptance_policy", policy, raising=False)
    world.coordinator.run("q")
    states = world.states()
    assert states == {
        model: TaskState.VERIFIED if model in ("r1", "r4") else TaskState.INEFFECTIVE
        for model in AFFECTED
    }
    assert world.reason("r3").startswith(
        "model 'r3' was left unchanged: its owner takes no changes"
    )
    assert "anna" in world.reason("r3")
    assert {remedies(world)[model] for model in ("r2", "r3", "r6")} == {"REFUSED"}


def test_others_may_be_refused_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = AcceptancePolicy(refuse_deltas_of=("mallory",))
    monkeypatch.setattr(OddOwner, "acceptance_policy", policy, raising=False)
    world.coordinator.run("q")
    assert world.states() == VERIFIED


# --- measured or not


def test_where_nothing_tells_what_is_left_of_an_update_the_result_says_why(world: World) -> None:
    world.coordinator.run("q")
    notes = {}
    for model, task in world.store.tasks("q").items():
        assert task.result is not None
        (applied,) = task.result.deltas
        assert applied.HasField("measured") == (model == "r4")
        notes[model] = applied.note
    assert notes["r4"] == ""
    assert notes["r3"] == (
        "what is left of its update was not measured: its owner does not hold 'r1'"
    )
    assert notes["r1"] == "trained again exactly"


# --- asked again


def test_what_was_carried_out_before_is_left_as_it_is(world: World) -> None:
    world.coordinator.run("q")
    for request_id in ("again", "and-again"):
        world.coordinator.submit(delta_request(world, request_id))
        assert world.coordinator.run(request_id).outcome == "complete", request_id
        found = digests(world, request_id)
        assert len(found) == len(AFFECTED)
        assert all(before == after for before, after in found.values())
        done = {m: r for m, r in remedies(world, request_id).items() if m in found}
        assert set(done.values()) == {"UNTOUCHED"}
        gaps = {gap.kind: gap.models for gap in report_of(world.store, request_id).gaps}
        assert set(gaps[GapKind.CLEARED_UNRECORDED]) == found.keys()
    check_added(world)


def test_who_did_not_get_a_change_gets_it_when_it_is_asked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    withhold(monkeypatch)
    world.coordinator.run("q")
    monkeypatch.undo()
    change = world.weights("r1~q"), world.weights("r1")
    for request_id in ("again", "and-again"):
        world.coordinator.submit(delta_request(world, request_id))
        world.coordinator.run(request_id)
        states = {m: s for m, s in world.states(request_id).items() if s is not TaskState.EXEMPT}
        assert set(states.values()) == {TaskState.VERIFIED}, request_id
        world.coordinator.run("q")  # what it still had to do is done: nothing is added twice
    for model in BELOW:
        expected = plus(world.weights(model), [(C[model], *change)])
        for version in [v.id for v in world.store.graph().models() if v.id.startswith(f"{model}~")]:
            assert near(world.weights(version), expected), version
    assert same(world.weights("r1~q~again"), world.weights("r1~q"))


def test_a_change_that_had_no_effect_is_neither_added_twice_nor_believed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.coordinator.run("q")
    monkeypatch.setattr(changing, "changes_before", lambda *_: {("r1", "q"): False})
    world.coordinator.submit(delta_request(world, "again"))
    world.coordinator.run("again")
    assert world.states("again")["r3~q"] is TaskState.INEFFECTIVE
    assert "the same changes for q, without effect: roll" in world.reason("r3~q", "again")


def test_what_repeats_several_requests_of_which_a_model_got_some_is_refused(
    world: World,
) -> None:
    world.store.transition("q", CampaignEvent.ABORT)
    for request_id, ids in (("one", ODD[:4]), ("two", ODD[4:])):
        if request_id == "two":
            world.transport.twists["cleo", "train.unlearn"] = broken
        world.coordinator.submit(delta_request(world, request_id, {"r1": ids}))
        world.coordinator.run(request_id)
    world.transport.twists.clear()
    world.coordinator.submit(delta_request(world, "both"))
    world.coordinator.run("both")
    assert world.states("both")["r2~one~two"] is TaskState.VERIFIED
    assert same(world.weights("r2~one~two~both"), world.weights("r2~one~two"))
    assert "it has what was made for one and not all of" in world.reason("r3~one", "both")
