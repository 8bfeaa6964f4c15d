"""Owners that send changes of something else, or apply something else than they announced."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from disinherit.client.actions.delta import root_deltas
from disinherit.client.actions.fisher import forget_fishers
from disinherit.common.audit.gaps import GapKind
from disinherit.common.graph.records import ModelRecord
from disinherit.common.tensors.checkpoints import tensor_bytes, tensors_from_bytes
from disinherit.server.reports.report import report_of
from disinherit.server.states import CampaignEvent, TaskState
from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.campaign import AFFECTED, World, lying
from tests.support.delta_world import copy_delta, delta_request, owner_of
from tests.support.retraining_owner import ODD, OddOwner

FAILED = dict.fromkeys(AFFECTED, TaskState.FAILED)
RETRAIN = OddOwner.retrain


@pytest.fixture
def world(built_delta: Path, tmp_path: Path) -> Iterator[World]:
    with copy_delta(built_delta, tmp_path / "world") as world:
        world.coordinator.submit(delta_request(world))
        yield world


def flip(packet: pb.FisherPacket) -> None:
    packet.tensors = packet.tensors[:-1] + bytes([packet.tensors[-1] ^ 1])


def cut(packet: pb.FisherPacket) -> None:
    packet.tensors = packet.tensors[:-8]


def other_root(packet: pb.FisherPacket) -> None:
    packet.sources[:] = ["r4"]


def other_weights(packet: pb.FisherPacket) -> None:
    packet.delta.before = "ab" * 32


def other_method(packet: pb.FisherPacket) -> None:
    packet.delta.root_method = "finetune"


def fewer_samples(packet: pb.FisherPacket) -> None:
    packet.samples = 3


def same_weights(packet: pb.FisherPacket) -> None:
    packet.delta.after = packet.delta.before


def low_rank(packet: pb.FisherPacket) -> None:
    packet.delta.rank = 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (flip, "but its bytes have"),
        (cut, "but its bytes have"),
        (other_root, r"that of \['r4'\]"),
        (other_weights, "with the weights that were registered, but its owner sent that of digest"),
        (other_method, "Expected root method 'replay' at root r1, but its owner used 'finetune'"),
        (fewer_samples, "without 8 samples that the request names, .* without 3"),
        (same_weights, "with another digest than before"),
        (low_rank, "whole, or as a left and a right factor"),
    ],
)
def test_a_change_that_is_not_what_was_asked_for_is_refused(
    built_delta: Path, tmp_path: Path, change: Callable[[pb.FisherPacket], None], said: str
) -> None:
    with copy_delta(built_delta, tmp_path / "world") as world:
        world.coordinator.submit(delta_request(world, root_method="replay"))

        def lie(reply: pb.FisherReply) -> None:
            change(reply.roots[0].packets[0])

        world.transport.twists["anna", "query.delta"] = lying(lie)
        files = {n: c for n, c in world.files().items() if not n.startswith("anna/")}
        world.coordinator.run("q")
        assert world.states() == FAILED
        assert re.search(said, world.reason("r1")), world.reason("r1")
        assert "\n" not in world.reason("r1")
        assert {n: c for n, c in world.files().items() if not n.startswith("anna/")} == files
        # Asked again, once its owner is honest.
        world.transport.twists.clear()
        assert world.coordinator.run("q").outcome == "complete"


def test_an_answer_to_another_request_is_refused(world: World) -> None:
    kept: list[Answer] = []

    def keep(ask: Ask, honest: Callable[[], Answer]) -> Answer:
        kept.append(honest())
        return Answer(ask, error="lost", unreachable=True)

    world.transport.twists["anna", "query.delta"] = keep
    world.coordinator.run("q")
    world.store.transition("q", CampaignEvent.ABORT)
    world.coordinator.submit(delta_request(world, "p", {"r1": ["cat-9"]}))

    def replay(ask: Ask, honest: Callable[[], Answer]) -> Answer:
        return Answer(ask, kept[0].reply)

    world.transport.twists["anna", "query.delta"] = replay
    world.coordinator.run("p")
    assert world.states("p") == FAILED
    assert "for a request with digest" in world.reason("r1", "p")


def test_fisher_information_in_its_place_is_refused(world: World) -> None:
    def fishers(ask: Ask, honest: Callable[[], Answer]) -> Answer:
        with owner_of(world, "r1") as owner:
            assert isinstance(ask.task, pb.FisherTask)
            return Answer(ask, forget_fishers(owner, ask.task))

    world.transport.twists["anna", "query.delta"] = fishers
    world.coordinator.run("q")
    assert world.states() == FAILED
    assert "sent Fisher information" in world.reason("r1")


def test_a_root_with_other_weights_than_announced_is_refused(world: World) -> None:
    def other(reply: Any) -> None:
        for model in reply.models:
            if model.model_id == "r1":
                model.successor.digest = "cd" * 32

    world.transport.twists["anna", "train.unlearn"] = lying(other)
    world.coordinator.run("q")
    assert world.states()["r1"] is TaskState.FAILED
    assert "which its owner announced" in world.reason("r1")


def test_a_claimed_remedy_is_not_believed(world: World) -> None:
    def boast(reply: pb.UnlearnReply) -> None:
        for model in reply.models:
            model.remedy = pb.REMEDY_REBUILT

    world.transport.twists["cleo", "train.unlearn"] = lying(boast)
    world.coordinator.run("q")
    task = world.store.tasks("q")["r3"]
    assert task.result is not None
    assert task.result.remedy == pb.REMEDY_APPROXIMATED


def test_a_change_that_leaves_nothing_of_a_model_is_refused_by_its_owner(world: World) -> None:
    def poison(reply: pb.FisherReply) -> None:
        (packet,) = reply.roots[0].packets
        values = tensors_from_bytes(packet.tensors, "the change")
        packet.tensors = tensor_bytes({n: torch.full_like(v, 1e6) for n, v in values.items()})
        packet.digest = hashlib.sha256(packet.tensors).hexdigest()

    before = {n: c for n, c in world.files().items() if n.startswith("cleo/objects")}
    world.transport.twists["anna", "query.delta"] = lying(poison)
    world.coordinator.run("q")
    assert world.states()["r3"] is TaskState.FAILED
    assert "at most 10 times the norm of the model's own weights" in world.reason("r3")
    assert "\n" not in world.reason("r3")
    assert {n: c for n, c in world.files().items() if n.startswith("cleo/objects")} == before


@pytest.mark.parametrize("coefficient", [1000.0, -3.0])
def test_a_share_beyond_a_whole_change_is_refused_by_its_owner(
    world: World, coefficient: float
) -> None:
    def more(ask: Ask, honest: Callable[[], Answer]) -> Answer:
        assert isinstance(ask.task, pb.UnlearnTask)
        for model in ask.task.models:
            for share in model.shares:
                share.coefficient = coefficient
        return honest()

    world.transport.twists["cleo", "train.unlearn"] = more
    world.coordinator.run("q")
    assert world.states()["r3"] is TaskState.FAILED
    assert "above 0 and up to 1" in world.reason("r3")


def test_a_change_that_was_damaged_on_its_way_is_refused_by_its_receiver(world: World) -> None:
    def damage(ask: Ask, honest: Callable[[], Answer]) -> Answer:
        wrong = {digest: value[:-1] + b"\0" for digest, value in ask.tensors.items()}
        (answer,) = world.transport.inner.ask([replace(ask, tensors=wrong)], 9.0)
        return answer

    before = {n: c for n, c in world.files().items() if n.startswith("cleo/objects")}
    world.transport.twists["cleo", "train.unlearn"] = damage
    world.coordinator.run("q")
    assert world.states()["r3"] is TaskState.FAILED
    assert "but its bytes have" in world.reason("r3")
    assert {n: c for n, c in world.files().items() if n.startswith("cleo/objects")} == before


def test_the_answer_of_a_root_is_the_same_each_time(world: World) -> None:
    task = pb.FisherTask(
        request_id="q",
        roots=delta_request(world).roots,
        method=delta_request(world).method,
        request_digest="ab" * 32,
    )
    with owner_of(world, "r1") as owner:
        first = root_deltas(owner, task)
        assert first.roots[0].packets[0].delta.exact
        asked = list(owner.asked)
        assert asked == [sorted(ODD), []]
        assert root_deltas(owner, task).roots[0].packets == first.roots[0].packets
        assert owner.asked == asked  # kept, not made again


# --- exact replays that figures deny


def of_neighbours(self: OddOwner, record: ModelRecord, without: Any) -> Mapping[str, Tensor]:
    """A replay that leaves out other samples: those ten places on."""
    if without:
        parts = (one.split("-") for one in without)
        without = [f"{name}-{int(place) + 10}" for name, place in parts]
    return RETRAIN(self, record, without)


def of_nothing(self: OddOwner, record: ModelRecord, without: Any) -> Mapping[str, Tensor]:
    """A replay that leaves out nothing, with other rounding."""
    found = RETRAIN(self, record, () if without else without)
    return {name: value + 1e-7 for name, value in found.items()} if without else found


@pytest.mark.parametrize("retrain", [of_neighbours, of_nothing])
def test_a_replay_after_which_the_samples_are_known_as_before_is_not_verified(
    world: World, monkeypatch: pytest.MonkeyPatch, retrain: Any
) -> None:
    monkeypatch.setattr(OddOwner, "retrain", retrain)
    world.coordinator.run("q")
    assert set(world.states().values()) == {TaskState.INEFFECTIVE}
    assert "trained again without the samples to forget, and" in world.reason("r1")
    for model in ("r2", "r3", "r6"):
        assert "r1 is ineffective" in world.reason(model)


def test_an_owner_that_reports_success_is_judged_by_its_own_figures(world: World) -> None:
    def claim(reply: pb.UnlearnReply) -> None:
        (result,) = (one for one in reply.models if one.model_id == "r1")
        result.forget.before, result.forget.after = 0.9, 0.9

    world.transport.twists["anna", "train.unlearn"] = lying(claim)
    world.coordinator.run("q")
    assert world.states()["r1"] is TaskState.INEFFECTIVE
    assert "by its owner's own figures the attack on losses still finds them" in world.reason("r1")


def test_a_replay_that_no_figure_shows_is_believed_and_a_gap(world: World) -> None:
    def unmeasured(reply: pb.UnlearnReply) -> None:
        for result in reply.models:
            result.ClearField("forget")
            result.believed = False

    world.transport.twists["anna", "train.unlearn"] = lying(unmeasured)
    world.coordinator.run("q")
    assert world.states()["r1"] is TaskState.VERIFIED
    gaps = {gap.kind: gap.models for gap in report_of(world.store, "q").gaps}
    assert gaps[GapKind.BELIEVED] == ("r1",)


def test_a_replay_that_figures_show_is_no_gap(world: World) -> None:
    world.coordinator.run("q")
    assert world.states()["r1"] is TaskState.VERIFIED
    assert GapKind.BELIEVED not in {gap.kind for gap in report_of(world.store, "q").gaps}


def test_a_model_below_that_was_trained_on_the_samples_itself_is_no_descendant_only(
    built_delta: Path, tmp_path: Path
) -> None:
    """r4 was trained on dogs of the owner of r1 itself."""
    dogs = ["dog-1", "dog-5"]
    with copy_delta(built_delta, tmp_path / "dogs") as world:
        world.coordinator.submit(delta_request(world, "p", {"r1": dogs}))
        world.coordinator.run("p")
        assert world.states("p")["r4"] is TaskState.INEFFECTIVE
        assert "'r4' was itself trained on 2 of the samples to forget" in world.reason("r4", "p")
    with copy_delta(built_delta, tmp_path / "both") as world:
        world.coordinator.submit(delta_request(world, "p", {"r1": dogs, "r4": dogs}))
        world.coordinator.run("p")
        assert "was itself trained on" not in world.reason("r4", "p")
