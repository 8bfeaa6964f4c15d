"""Owners by registered keys, on nodes that join, leave and claim wrong names."""

import threading

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import Message

from disinherit.common.errors import CampaignError
from disinherit.common.wire.flower import pack
from disinherit.server.flower.exchange import exchange
from disinherit.server.flower.owner_keys import canonical_key
from disinherit.server.flower.owners import RegisteredOwners
from disinherit.server.flower.transport import FlowerTransport
from disinherit.server.transport.base import Ask
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.fake_grid import FakeGrid, Node


def make_key() -> bytes:
    """A public key as Flower keeps it."""
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


ANNA, BEN, STRANGER = make_key(), make_key(), make_key()
KEYS = {"anna": canonical_key(ANNA), "ben": canonical_key(BEN)}


def says(name: str) -> Node:
    return lambda message: Message(pack(pb.Identity(owner=name)), reply_to=message)


def make_grid(**nodes: Node) -> FakeGrid:
    """Nodes 7 and 8 with the keys of anna and ben."""
    grid = FakeGrid({7: nodes.get("anna", says("anna")), 8: nodes.get("ben", says("ben"))})
    grid.keys = {7: ANNA, 8: BEN}
    return grid


def make_owners(grid: FakeGrid) -> RegisteredOwners:
    return RegisteredOwners(grid, KEYS, fresh_seconds=0.0)


def test_a_nodes_key_identifies_its_owner() -> None:
    grid = FakeGrid({7: says("ben"), 8: says("anna"), 9: says("anna")})
    grid.keys = {7: ANNA, 8: BEN, 9: STRANGER}
    owners = make_owners(grid)
    assert owners.connected() == ["anna", "ben"]
    assert (owners.node("anna"), owners.node("ben"), owners.node("cleo")) == (7, 8, None)
    assert grid.pushed == []


def test_nodes_without_keys_are_an_error() -> None:
    with pytest.raises(CampaignError, match="none of 1 has one. Start the SuperLink with"):
        make_owners(FakeGrid({7: says("anna")})).connected()


def test_a_seen_node_stays_known_while_offline() -> None:
    grid = make_grid()
    owners = make_owners(grid)
    first = owners.presence(7)
    grid.leave(7)
    assert (owners.connected(), owners.node("anna"), owners.presence(7)) == (["ben"], 7, None)
    grid.come_back(7)
    assert owners.presence(7) not in (None, first)


def test_wait_ends_with_the_expected_owners() -> None:
    grid = make_grid()
    grid.leave(8)
    owners = make_owners(grid)
    assert owners.wait(2, 0.1) == ["anna"]
    back = threading.Timer(0.1, grid.come_back, [8])
    back.start()
    assert owners.wait(2, 20.0) == ["anna", "ben"]
    grid.leave(7)
    grid.leave(8)
    with pytest.raises(CampaignError, match="no connected node has one of the 2 known keys"):
        owners.wait(1, 0.1)


def identify(*owners: str) -> list[Ask]:
    return [Ask(owner, "query.identify", pb.Identity()) for owner in owners]


def test_a_message_waits_for_an_offline_node() -> None:
    # Looking for its reply meanwhile would lose it.
    grid = make_grid()
    transport = FlowerTransport(grid, make_owners(grid))
    assert len(list(transport.ask(identify("anna", "ben"), 5.0))) == 2
    grid.leave(7)
    answers = transport.ask(identify("anna", "ben"), 30.0)
    assert next(answers).ask.owner == "ben"
    grid.come_back(7)
    assert [answer.reply for answer in answers] == [pb.Identity(owner="anna")]


def test_a_node_that_stays_away_may_answer_later() -> None:
    grid = make_grid()
    owners = make_owners(grid)
    assert owners.connected()
    grid.leave(7)
    (answer,) = FlowerTransport(grid, owners).ask(identify("anna"), 0.2)
    assert (answer.unreachable, answer.sent) == (True, True)
    grid = make_grid()
    grid.leave(7)
    (answer,) = FlowerTransport(grid, make_owners(grid)).ask(identify("anna"), 0.2)
    assert (answer.unreachable, answer.sent) == (True, False)


@pytest.mark.parametrize("answered", [False, True])
def test_a_message_is_given_up_when_its_node_comes_back_without_an_answer(answered: bool) -> None:
    grid = make_grid(anna=says("anna") if answered else lambda _: None)
    owners = make_owners(grid)
    message = Message(pack(pb.Identity()), 7, "query.identify", ttl=60.0)
    left: list[str] = []

    def presence(node: int) -> str | None:
        # It goes down right after it got the message, and is back at the third look.
        if not grid.pushed:
            return owners.presence(node)
        if not left:
            grid.leave(7)
        left.append("looked")
        if len(left) == 3:
            grid.come_back(7)
        return owners.presence(node)

    ((key, reply),) = exchange(grid, {"m": message}, 30.0, presence)
    assert key == "m"
    assert (reply is not None) == answered
