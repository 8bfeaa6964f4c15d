"""Nodes and the owners that they say they are: keys, names that are taken, nodes that fail."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.fake_grid import FakeGrid  # first of all that imports Flower

from flwr.app import Context, Error, Message, RecordDict  # isort: skip

from disinherit.common.errors import CampaignError, InputError  # isort: skip
from disinherit.common.wire.flower import pack  # isort: skip
from disinherit.flower.nodes import KnownNodes, check_any  # isort: skip
from disinherit.flower.places import owner_of  # isort: skip
from disinherit.v1 import unlearning_pb2 as pb  # isort: skip


def is_owner(name: str) -> Callable[[Message], Message]:
    return lambda message: Message(pack(pb.Identity(owner=name)), reply_to=message)


def fails(message: Message) -> Message:
    return Message(Error(2, "no such app"), reply_to=message)


class RegisteredGrid(FakeGrid):
    """A grid whose nodes were registered under names by an operator, or were not."""

    def __init__(self, nodes: Any) -> None:
        super().__init__(nodes)
        self.names: dict[int, str] = {}

    def get_nodes(self) -> Any:
        return [
            SimpleNamespace(
                node_id=node,
                public_key=self.keys.get(node, b"what the simulation engine makes up"),
                name=self.names.get(node, ""),
            )
            for node in self.get_node_ids()
        ]


def a_key() -> bytes:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


def test_nodes_say_who_they_are(tmp_path: Path) -> None:
    grid = RegisteredGrid({7: is_owner("north"), 8: fails, 9: is_owner("north")})
    nodes = KnownNodes(grid, tmp_path / "owners.toml")
    nodes.meet([7, 8, 9])
    assert nodes.owners == ["north"]
    first = nodes.node("north")
    assert first in (7, 9)  # whoever answered first
    assert nodes.node("south") is None
    assert "no such app" in nodes.errors[8]
    assert f"says that it is 'north', as node {first} does" in nodes.errors[16 - first]
    with pytest.raises(InputError, match="Expected node 8 to say which owner it is, but"):
        nodes.name(8)
    nodes.meet([first])
    assert len(grid.pushed) == 3
    assert not (tmp_path / "owners.toml").exists()
    nothing = KnownNodes(RegisteredGrid({8: fails}), tmp_path / "owners.toml")
    nothing.meet([8])
    with pytest.raises(CampaignError, match="none said which owner it is; node 8: "):
        check_any(nothing)


def test_an_owner_belongs_to_the_key_that_it_came_with(tmp_path: Path) -> None:
    place = tmp_path / "owners.toml"
    grid = RegisteredGrid({7: is_owner("north")})
    grid.keys, grid.names = {7: a_key()}, {7: "hospital north"}
    nodes = KnownNodes(grid, place)
    nodes.meet([7])
    assert nodes.owners == ["north"]
    assert 'north = "ecdsa-sha2-nistp384 ' in place.read_text()
    for key, name in ((a_key(), "another"), (a_key(), ""), (b"made up", "")):
        grid.keys, grid.names = {7: key}, {7: name}
        other = KnownNodes(grid, place)
        other.meet([7])
        assert other.owners == []
        assert "came with another key before; if the node has a new key" in other.errors[7]


def test_names_of_owners_come_from_the_configuration_of_nodes() -> None:
    def named(**config: Any) -> str:
        given = {name.replace("_", "-"): value for name, value in config.items()}
        return owner_of(Context(1, 42, given, RecordDict(), {}))

    assert named(partition_id=3, num_partitions=5) == "node-3"
    assert named(partition_id=3, owner="north") == "north"
    assert named() == "node-42"
    with pytest.raises(InputError, match="which is the server"):
        named(owner="server")
    with pytest.raises(InputError, match="Expected a well-formed owner"):
        named(owner="north pole")
