"""Campaigns with real owners: complete, repeated, failing, resumed."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from disinherit.common.encodings import Encoding
from disinherit.common.errors import InputError, RequestError
from disinherit.common.fiun.unlearning import unlearn_parameters
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelStatus
from disinherit.common.wire.packets import PackedFisher
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.now import now_us
from disinherit.server.states import CampaignEvent, TaskState
from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.campaign import (
    AFFECTED,
    FORGET,
    MESSAGES,
    NAMES,
    Twist,
    World,
    broken,
    copy,
    gone,
    lying,
    make_request,
    reply_lost,
)
from tests.support.changes import kept_packets
from tests.support.fisher_cases import all_sums
from tests.support.owner import LABELS, PointsOwner

HEAD = ("2.weight", "2.bias")
UPSTREAM = {"r1": ("r1",), **dict.fromkeys(("r2", "r3", "r4", "r6"), ("r1", "r2"))}
VERIFIED = dict.fromkeys(AFFECTED, TaskState.VERIFIED)


@pytest.fixture
def world(world: World) -> World:
    world.coordinator.submit(make_request())
    return world


def class_fisher(world: World, model: str, name: str) -> dict[str, Tensor]:
    """F of one class at a model, from the summary its owner registered."""
    with world.owned(model) as store:
        registered = store.fishers(model)
    assert registered is not None
    index = LABELS.index(name)
    sums, count = all_sums(registered[0]), registered[0].counts[index]
    return {parameter: sums[parameter][index] / count for parameter in HEAD}


def expected_weights(world: World, model: str) -> dict[str, Tensor]:
    """What one dampening with the merge over U(m) makes of a model, by hand."""
    merged: dict[str, Tensor] = {}
    forgotten = [name for root in UPSTREAM[model] for name in FORGET[root]]
    for root in UPSTREAM[model]:
        for name in FORGET[root]:
            for parameter, value in class_fisher(world, root, name).items():
                merged[parameter] = torch.maximum(merged.get(parameter, value), value)
    with world.owned(model) as store:
        weights, registered = store.weights(model), store.fishers(model)
    assert registered is not None
    reference = registered[0].excluding([LABELS.index(name) for name in forgotten])
    dampened = unlearn_parameters(
        {name: weights[name] for name in HEAD},
        merged,
        {name: reference.values[name] for name in HEAD},
        alpha=1.0,
        lam=0.5,
        exponent=1.0,
        bound=1.0,
        gauge=3.0,
        heads=[HEAD],
        forgotten_rows=[LABELS.index(name) for name in forgotten],
    )
    assert dampened.selected_count > 0
    return {**weights, **dampened.parameters}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


# --- a campaign


def test_every_affected_model_is_dampened_with_the_merge_over_its_own_roots(world: World) -> None:
    result = world.coordinator.run("q")

    assert result.outcome == "complete"
    assert sorted(result.changed) == sorted(AFFECTED)
    assert result.already_applied == ()
    assert list(result.tasks) == list(AFFECTED)
    assert world.states() == VERIFIED
    graph = world.store.graph()
    for model in AFFECTED:
        assert same(world.weights(f"{model}~q"), expected_weights(world, model))
        assert graph.model(model).status is ModelStatus.SUPERSEDED
        assert graph.parents(f"{model}~q") == (
            Inheritance(model, f"{model}~q", InheritanceKind.UNLEARNED),
        )


def test_models_outside_stay_as_they_are_bit_for_bit(world: World) -> None:
    before = {model: world.weights(model) for model in ("d", "s")}
    records = {model: world.store.graph().model(model) for model in ("d", "s")}
    world.coordinator.run("q")
    for model in ("d", "s"):
        assert same(world.weights(model), before[model])
        assert world.store.graph().model(model) == records[model]
        assert world.store.graph().children(model)[-1].kind is InheritanceKind.FEDERATED


def test_forgotten_is_forgotten_and_the_rest_is_kept(world: World) -> None:
    world.store.transition("q", CampaignEvent.ABORT)  # it would be carried out first
    # Not the plain rule of the other tests, but the default for classes, tuned by the owners.
    request = make_request(request_id="p", row_scoped=True)
    for name in ("alpha", "lam", "gauge"):
        request.method.ClearField(name)
    world.coordinator.submit(request)
    world.coordinator.run("p")
    found = world.coordinator.evaluate([f"{model}~p" for model in AFFECTED])
    for model in AFFECTED:
        counts = torch.tensor(found[f"{model}~p"].confusion).view(4, 4)
        right = counts.diagonal() / counts.sum(dim=1)
        forgotten = [LABELS.index(name) for root in UPSTREAM[model] for name in FORGET[root]]
        kept = [index for index in (1, 3) if index not in forgotten]
        assert right[forgotten].max() <= 0.1, model
        assert right[kept].min() >= 0.9, model


def test_owners_are_asked_as_few_times_as_can_be(world: World) -> None:
    world.coordinator.run("q")
    assert world.transport.actions() == list(MESSAGES)


def test_an_owner_is_sent_each_packet_it_needs_once(world: World) -> None:
    planned = world.coordinator.submit(make_request())
    prepared = world.coordinator.prepare(make_request(), planned.groups)
    assert {owner: len(m.fishers) for owner, m in prepared.messages.items()} == {
        "anna": 2,  # r1 inherits from r1 only, r4 from both roots
        "ben": 1,
        "cleo": 1,
    }
    assert list(prepared.messages["cleo"].fishers[0].sources) == ["r1", "r2"]
    assert list(prepared.messages["cleo"].fishers[0].classes) == ["cat", "owl"]


def test_a_merged_packet_is_encoded_once_for_all_owners(built: Path, tmp_path: Path) -> None:
    request = make_request(encoding="log8")
    with copy(built, tmp_path / "short") as world:
        planned = world.coordinator.submit(request)
        prepared = world.coordinator.prepare(request, planned.groups)
        asks = {ask.owner: ask for ask in prepared.asks("train.unlearn")}
        for ask in asks.values():
            assert isinstance(ask.task, pb.UnlearnTask)
            assert not any(packet.tensors for packet in ask.task.fishers)
        (digest,) = asks["cleo"].tensors
        assert hashlib.sha256(asks["cleo"].tensors[digest]).hexdigest() == digest
        assert asks["anna"].tensors[digest] is asks["cleo"].tensors[digest]
        assert world.coordinator.run("q").outcome == "complete"
        roots = kept_packets(world.store, "q")
    assert {packet.encoding for packets in roots.values() for packet in packets} == {
        Encoding.LOG8.to_proto()
    }


def test_factored_packets_are_merged_and_sent_as_factors(built: Path, tmp_path: Path) -> None:
    request = make_request(encoding="factored", scope="all")
    with copy(built, tmp_path / "factored") as world:
        planned = world.coordinator.submit(request)
        prepared = world.coordinator.prepare(request, planned.groups)
        for message in prepared.messages.values():
            for packet in message.fishers:
                packet.tensors = prepared.tensors[packet.digest]
                merged = PackedFisher.from_packet(packet)
                assert merged.factors.keys() == {"0.weight"}
                assert len(merged.factors["0.weight"].rows) == len(packet.sources)
        assert world.coordinator.run("q").outcome == "complete"


def test_preparing_changes_nothing(world: World) -> None:
    planned = world.coordinator.submit(make_request())
    knowledge, files = world.knowledge(), world.files()
    world.coordinator.prepare(make_request(request_id="unknown"), planned.groups)
    assert world.knowledge() == knowledge
    assert world.files() == files


# --- once


def test_a_repeated_run_asks_nobody_and_changes_nothing(world: World) -> None:
    world.coordinator.run("q")
    knowledge, files = world.knowledge(), world.files()
    world.transport.actions()

    again = world.coordinator.run("q")

    assert again.outcome == "unchanged"
    assert again.changed == ()
    assert sorted(again.already_applied) == sorted(AFFECTED)
    assert world.transport.actions() == []
    assert world.knowledge() == knowledge
    assert world.files() == files


def test_a_request_that_is_sent_again_is_answered_from_the_ledger(world: World) -> None:
    first = world.coordinator.run("q")
    knowledge, files = world.knowledge(), world.files()
    world.transport.actions()

    again = world.coordinator.run("q", resend=True)

    assert again.outcome == "unchanged"
    assert again.changed == ()
    assert sorted(again.already_applied) == sorted(AFFECTED)
    assert ("cleo", "train.unlearn") in world.transport.actions()
    assert again.tasks == first.tasks
    assert world.knowledge() == knowledge
    assert world.files() == files


@pytest.mark.parametrize("twist", [gone, broken])
@pytest.mark.parametrize("action", ["train.unlearn", "query.fisher"])
def test_what_was_applied_is_not_taken_back_when_sending_again_fails(
    world: World, twist: Twist, action: str
) -> None:
    world.coordinator.run("q")
    for owner in NAMES:
        world.transport.twists[owner, action] = twist
    again = world.coordinator.run("q", resend=True)
    assert again.outcome == "unchanged"
    assert world.states() == VERIFIED


def test_an_owner_that_is_gone_when_asked_again_is_no_longer_verified(world: World) -> None:
    world.coordinator.run("q")
    for action in ("train.unlearn", "evaluate.panel"):
        world.transport.twists["cleo", action] = gone
    assert world.coordinator.run("q", resend=True).outcome == "partial"
    assert world.states() == {**VERIFIED, "r3": TaskState.APPLIED}
    assert world.reason("r3") == "not verified: owner cleo is not connected"

    world.transport.twists.clear()
    world.transport.actions()
    assert world.coordinator.run("q").outcome == "unchanged"
    assert world.transport.actions() == [("cleo", "evaluate.panel")]
    assert world.states() == VERIFIED


# --- trouble with one owner


@pytest.mark.parametrize(
    ("twist", "state", "reason"),
    [
        (broken, TaskState.FAILED, "owner ben: disk on fire"),
        (gone, TaskState.PENDING, "owner ben is not connected"),
        (reply_lost, TaskState.PENDING, "owner ben did not answer"),
        (
            lying(lambda reply: reply.models.clear()),
            TaskState.FAILED,
            "its owner did not mention it",
        ),
    ],
)
def test_one_owner_in_trouble_leaves_the_others_complete_and_is_caught_up_with(
    world: World, twist: Twist, state: TaskState, reason: str
) -> None:
    world.transport.twists["ben", "train.unlearn"] = twist
    result = world.coordinator.run("q")

    assert result.outcome == "partial"
    assert sorted(result.changed) == ["r1", "r3", "r4"]
    assert world.states() == {**VERIFIED, "r2": state, "r6": state}
    assert world.reason("r2") == world.reason("r6") == reason

    world.transport.twists.clear()
    world.transport.actions()
    resumed = world.coordinator.run("q")

    assert resumed.outcome in ("complete", "unchanged")
    assert sorted(resumed.changed + resumed.already_applied) == sorted(AFFECTED)
    assert [owner for owner, a in world.transport.actions() if a == "train.unlearn"] == ["ben"]
    assert world.states() == VERIFIED
    assert all(task.reason == "" for task in resumed.tasks.values())
    for model in AFFECTED:
        assert same(world.weights(f"{model}~q"), expected_weights(world, model))


def test_an_answer_that_got_lost_is_not_acted_on_twice(world: World) -> None:
    world.transport.twists["ben", "train.unlearn"] = reply_lost
    world.coordinator.run("q")
    files = world.files()
    world.transport.twists.clear()
    resumed = world.coordinator.run("q")
    assert resumed.changed == ()
    assert {"r2", "r6"} <= set(resumed.already_applied)
    assert world.files() == files


def test_registering_after_an_answer_got_lost_does_not_confuse_the_graph(world: World) -> None:
    world.transport.twists["ben", "train.unlearn"] = reply_lost
    world.coordinator.run("q")
    world.transport.twists.clear()
    assert world.coordinator.register(["ben"], "head") == {}
    assert world.store.graph().parents("r2~q") == ()

    assert world.coordinator.run("q").outcome == "unchanged"
    assert world.states() == VERIFIED
    assert [edge.parent for edge in world.store.graph().parents("r2~q")] == ["r2"]


def test_an_owner_that_cannot_dampen_one_model_dampens_the_other(world: World) -> None:
    damaged = world.store.graph().model("r6").digest
    (world.root / "ben" / "objects" / f"{damaged}.safetensors").write_bytes(b"damaged")
    result = world.coordinator.run("q")
    assert result.outcome == "partial"
    assert world.states() == {**VERIFIED, "r6": TaskState.FAILED}
    assert "safetensors" in world.reason("r6")


def test_nobody_reachable_is_a_failed_campaign_that_can_be_resumed(world: World) -> None:
    for owner in NAMES:
        world.transport.twists[owner, "query.fisher"] = gone
    result = world.coordinator.run("q")
    assert result.outcome == "failed"
    assert set(world.states().values()) == {TaskState.PENDING}
    assert "r1: owner anna is not connected" in world.reason("r6")
    world.transport.twists.clear()
    assert world.coordinator.run("q").outcome == "complete"


@pytest.mark.parametrize(
    ("twist", "state"), [(broken, TaskState.FAILED), (gone, TaskState.PENDING)]
)
def test_models_that_need_a_root_whose_owner_is_in_trouble_wait_and_others_go_on(
    world: World, twist: Twist, state: TaskState
) -> None:
    world.transport.twists["ben", "query.fisher"] = twist
    result = world.coordinator.run("q")
    assert result.outcome == "partial"
    assert result.changed == ("r1",)
    assert world.states() == {**dict.fromkeys(AFFECTED, state), "r1": TaskState.VERIFIED}
    assert world.reason("r4").startswith("no Fisher information from upstream root r2: owner ben")

    world.transport.twists.clear()
    assert world.coordinator.run("q").outcome == "complete"
    assert world.states() == VERIFIED
    assert same(world.weights("r4~q"), expected_weights(world, "r4"))


def test_a_roots_reason_stands_at_its_owners_models_and_goes_to_no_other_owner(
    world: World,
) -> None:
    def fail(reply: pb.FisherReply) -> None:
        reply.roots[0].error = "jane-doe.png\nis gone"

    world.transport.twists["ben", "query.fisher"] = lying(fail)
    world.coordinator.run("q")
    own = "no Fisher information from upstream root r2: jane-doe.png is gone"
    assert world.reason("r2") == world.reason("r6") == own
    assert world.reason("r3") == (
        "no Fisher information from upstream root r2: owner ben cannot give it; the coverage of r2 "
        "says why"
    )
    told = {ask.owner: str(ask.task) for ask in world.transport.asked if "notice" in ask.action}
    assert "r3" in told["cleo"]
    assert not [owner for owner, said in told.items() if "jane-doe" in said and owner != "ben"]


def test_a_coordinator_that_dies_in_the_middle_is_followed_by_one_that_finishes(
    world: World,
) -> None:
    def die(ask: Ask, _: object) -> Answer:
        raise KeyboardInterrupt

    world.transport.twists["ben", "train.unlearn"] = die
    with pytest.raises(KeyboardInterrupt):
        world.coordinator.run("q")
    assert world.states() == {
        "r1": TaskState.APPLIED,
        "r2": TaskState.SENT,
        "r3": TaskState.SENT,
        "r4": TaskState.APPLIED,
        "r6": TaskState.SENT,
    }

    world.transport.twists.clear()
    result = Coordinator(world.store, world.transport).run("q")
    assert result.outcome == "complete"
    assert sorted(result.changed) == ["r2", "r3", "r6"]
    assert sorted(result.already_applied) == ["r1", "r4"]
    assert world.states() == VERIFIED


def test_what_cannot_be_verified_yet_is_verified_later_and_not_sent_again(world: World) -> None:
    world.transport.twists["cleo", "evaluate.panel"] = gone
    assert world.coordinator.run("q").outcome == "partial"
    assert world.states() == {**VERIFIED, "r3": TaskState.APPLIED}

    world.transport.twists.clear()
    world.transport.actions()
    assert world.coordinator.run("q").outcome == "unchanged"
    assert world.transport.actions() == [("cleo", "evaluate.panel")]
    assert world.states() == VERIFIED


def test_an_owner_without_evaluation_data_is_verified_by_what_is_on_its_disk(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PointsOwner, "evaluation_data", lambda self, record: None)
    assert world.coordinator.run("q").outcome == "complete"
    assert world.states() == VERIFIED


# --- submitting


def test_submitting_again_changes_nothing_and_plans_the_same(world: World) -> None:
    before = world.knowledge()
    planned = world.coordinator.submit(make_request())
    assert planned.affected == AFFECTED
    assert world.knowledge() == before
    world.coordinator.run("q")
    before = world.knowledge()
    assert world.coordinator.submit(make_request()) == planned
    assert world.knowledge() == before


def test_another_request_under_the_same_id_is_refused(world: World) -> None:
    before = world.knowledge()
    with pytest.raises(RequestError, match="'q' was already used"):
        world.coordinator.submit(make_request({"r1": ("dog",)}))
    assert world.knowledge() == before


def _negative_alpha() -> pb.UnlearningRequest:
    message = make_request(request_id="p")
    message.method.alpha = -1.0
    return message


@pytest.mark.parametrize("request_", [make_request({"nobody": ("cat",)}, "p"), _negative_alpha()])
def test_a_request_that_cannot_be_planned_is_not_stored(
    world: World, request_: pb.UnlearningRequest
) -> None:
    with pytest.raises(InputError):
        world.coordinator.submit(request_)
    assert world.store.requests() == ["q"]


def test_an_unknown_request_cannot_be_run(world: World) -> None:
    with pytest.raises(RequestError, match="'nothing'"):
        world.coordinator.run("nothing")


def test_a_descendant_that_comes_late_joins_the_campaign(world: World) -> None:
    world.coordinator.run("q")
    with PointsOwner(world.root / "cleo", "cleo") as cleo:
        for model, parent in (("late", "r4"), ("clean", "r4~q")):
            record = cleo.train(model, LABELS, now_us(), start=[world.weights(parent)])
            edge = Inheritance(parent, model, InheritanceKind.TRANSFER)
            world.store.add_model(record, [edge])
    assert world.coordinator.register(["cleo"], "head") == {}

    result = world.coordinator.run("q")
    assert result.outcome == "complete"
    assert result.changed == ("late",)
    assert world.states() == {**VERIFIED, "late": TaskState.VERIFIED}


def test_a_second_request_takes_up_where_the_first_one_left(world: World) -> None:
    world.coordinator.submit(make_request({"r3": ("dog",)}, "p"))  # before the first one runs
    world.coordinator.run("q")
    result = world.coordinator.run("p")

    assert result.outcome == "complete"
    assert sorted(result.changed) == ["r3~q", "r6~q"]
    assert world.states("p") == {
        "r3": TaskState.EXEMPT,
        "r6": TaskState.EXEMPT,
        "r3~q": TaskState.VERIFIED,
        "r6~q": TaskState.VERIFIED,
    }
    assert world.reason("r3", "p") == "superseded by r3~q, which is unlearned in its place"
    assert world.coordinator.run("q", resend=True).outcome == "unchanged"


def test_the_notes_name_what_owners_registered_without_a_parent(world: World) -> None:
    """Nobody knows whether such a version was trained from scratch."""
    before = world.coordinator.submit(make_request({"r1": ["cat"]}, "noted")).notes
    with PointsOwner(world.root / "anna", "anna") as owner:
        for name, classes in (("late", ["dog", "owl"]), ("own", ["cat", "dog"])):
            owner.train(name, classes=classes, created_us=100 + len(name))
    assert world.coordinator.register(["anna"], "head") == {}
    after = world.coordinator.submit(make_request({"r1": ["cat"]}, "noted")).notes
    new = [note for note in after if note not in before]
    assert [note.partition(":")[0] for note in new if "without a parent" in note] == ["late"]
    world.store.add_model(
        world.store.records(["late"])["late"],
        [Inheritance("r4", "late", InheritanceKind.TRANSFER)],
    )
    known = world.coordinator.submit(make_request({"r1": ["cat"]}, "noted")).notes
    assert "without a parent" not in str(known)
