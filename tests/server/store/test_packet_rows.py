"""Fisher packets of roots: stored, checked, and not asked for twice."""

from contextlib import closing
from pathlib import Path

import pytest
import torch
from google.protobuf.message import Message

from disinherit.common.errors import RequestError, StoreError
from disinherit.common.wire.packets import encode_fisher
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.states import TaskState
from disinherit.server.store.store import CoordinatorStore
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.campaign import AFFECTED, NAMES, World, gone, lying, make_request
from tests.support.changes import kept_packets, save_packets


@pytest.fixture
def world(world: World) -> World:
    world.coordinator.submit(make_request())
    return world


# --- the store


def packet(value: float, name: str = "cat") -> pb.FisherPacket:
    return encode_fisher(
        {"w": torch.full((2, 3), value)},
        labels=["cat", "dog"],
        head_weight="w",
        head_bias="",
        sources=["r1"],
        classes=[name],
        samples=4,
    )


def test_packets_come_back_in_order_after_reopening(world: World) -> None:
    sent = [packet(2.0, "dog"), packet(1.0), packet(1.0, "owl")]
    save_packets(world.store, "q", "r1", sent)
    with world.again() as again:
        assert kept_packets(again.store, "q") == {"r1": sent}
        assert kept_packets(again.store, "other") == {}


def test_a_later_answer_takes_the_place_of_an_earlier_one(world: World) -> None:
    save_packets(world.store, "q", "r1", [packet(1.0), packet(2.0, "dog")])
    save_packets(world.store, "q", "r1", [packet(3.0)])
    assert kept_packets(world.store, "q") == {"r1": [packet(3.0)]}
    save_packets(world.store, "q", "r1", [])
    assert kept_packets(world.store, "q") == {}


def test_a_root_with_a_damaged_file_has_not_answered(world: World) -> None:
    good, bad = packet(1.0), packet(2.0)
    save_packets(world.store, "q", "r1", [good])
    save_packets(world.store, "q", "r2", [good, bad])
    (world.packets / f"{bad.digest}.safetensors").write_bytes(b"")
    assert list(kept_packets(world.store, "q")) == ["r1"]


def test_packets_are_kept_at_a_url_where_the_store_is_given_one(world: World) -> None:
    url = f"memory://{world.root.name}-of-packets"
    with closing(CoordinatorStore(world.place, url)) as store:
        assert kept_packets(store, "q") == {}
        save_packets(store, "q", "r1", [packet(1.0)])
    with closing(CoordinatorStore(world.place, url)) as store:
        assert kept_packets(store, "q") == {"r1": [packet(1.0)]}
    assert not world.packets.exists()


def test_packets_of_an_unknown_request_are_refused(world: World) -> None:
    with pytest.raises(RequestError, match="nothing"):
        save_packets(world.store, "nothing", "r1", [packet(1.0)])


def test_store_without_a_packet_folder_is_refused(tmp_path: Path) -> None:
    store = CoordinatorStore("sqlite://")
    with pytest.raises(StoreError, match="folder for Fisher packets"):
        kept_packets(store, "q")
    store.close()
    chosen = CoordinatorStore("sqlite://", tmp_path / "chosen")
    assert kept_packets(chosen, "q") == {}
    chosen.close()


# --- campaigns


def test_a_root_that_has_answered_is_not_asked_again_by_a_new_coordinator(world: World) -> None:
    for owner in NAMES:
        world.transport.twists[owner, "train.unlearn"] = gone
    world.transport.twists["ben", "query.fisher"] = gone
    world.coordinator.run("q")
    world.transport.twists.clear()
    world.transport.actions()

    with world.again() as again:
        assert again.coordinator.run("q").outcome == "complete"
        asked = [who for who, action in again.transport.actions() if action == "query.fisher"]
    assert asked == ["ben"]


def test_answers_kept_lead_to_the_same_message_as_fresh_ones(world: World) -> None:
    def collect(request_id: str) -> list[Message]:
        world.transport.asked.clear()
        world.coordinator.run(request_id, resend=True)
        sent = [ask.task for ask in world.transport.asked if ask.action == "train.unlearn"]
        for task in sent:
            assert isinstance(task, pb.UnlearnTask)
            task.created_us = 0
            for model in task.models:  # the second time there is a successor to be made again
                model.created_us = 0
        return sent

    assert collect("q") == collect("q") != []


def test_a_root_whose_answer_got_lost_on_disk_is_asked_again(world: World) -> None:
    world.coordinator.run("q")
    for file in world.packets.iterdir():
        file.unlink()
    world.transport.actions()
    world.coordinator.run("q", resend=True)
    assert ("anna", "query.fisher") in world.transport.actions()


@pytest.mark.parametrize("tensors", [b"", b"nonsense"])
def test_an_unsound_answer_is_not_kept(world: World, tensors: bytes) -> None:
    def spoil(reply: pb.FisherReply) -> None:
        reply.roots[0].packets[0].tensors = tensors

    world.transport.twists["ben", "query.fisher"] = lying(spoil)
    world.coordinator.run("q")
    assert world.states()["r3"] is TaskState.FAILED
    world.transport.twists.clear()
    assert Coordinator(world.store, world.transport).run("q").outcome == "complete"
    assert world.states() == dict.fromkeys(AFFECTED, TaskState.VERIFIED)


def test_answers_that_do_not_fit_together_are_asked_for_again(world: World) -> None:
    def other_head(reply: pb.FisherReply) -> None:
        reply.roots[0].packets[0].head_weight = "0.weight"

    world.transport.twists["ben", "query.fisher"] = lying(other_head)
    world.coordinator.run("q")
    assert "of the head of r2" in world.reason("r2")
    assert "owner ben cannot give it" in world.reason("r3")
    world.transport.twists.clear()
    assert world.coordinator.run("q").outcome == "complete"
