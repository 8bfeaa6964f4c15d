"""Owners of Flower nodes: by registered key, or by the name that a node gives.

In a deployment a node's name and configuration are its own claims, and only its key is proven: the
SuperLink lets in nodes with registered keys (`--enable-supernode-auth`), and keeps their ids.  The
simulation engine knows no keys; there, nodes are asked for their names.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from flwr.app import DEFAULT_TTL, Message
from flwr.serverapp import Grid

from disinherit.common.errors import CampaignError, InputError
from disinherit.common.graph.records import check_owner
from disinherit.common.text import one_line
from disinherit.common.wire.flower import pack, unpack
from disinherit.server.flower.exchange import ALWAYS, POLL_SECONDS, error_line, exchange
from disinherit.server.flower.owner_keys import canonical_key
from disinherit.v1 import unlearning_pb2 as pb


class Directory(Protocol):
    """Knows the nodes of owners, and which of them are there."""

    def node(self, owner: str) -> int | None:
        """Return the Flower id of an owner's node, also when it is away; `None` if unknown."""
        ...

    def presence(self, node: int) -> str | None:
        """Return what changes whenever a node has been away; `None` while it is away."""
        ...


class RegisteredOwners:
    """Owners by the registered public keys of their nodes.

    The SuperLink lists only nodes that are online, so one that was never seen is not known; those
    that were seen keep their ids.

    Args:
        grid: Flower's grid of the run.
        keys: owner -> public key, as `read_owner_keys` returns them.
        fresh_seconds: how long a list of nodes is taken to be true.

    Raises:
        CampaignError: by all methods, if nodes are connected and none of them has a key.
    """

    def __init__(self, grid: Grid, keys: Mapping[str, bytes], fresh_seconds: float = 0.5) -> None:
        self._grid = grid
        self._owners = {key: owner for owner, key in keys.items()}
        self._fresh_seconds = fresh_seconds
        self._lock = threading.Lock()
        self._looked = -float("inf")
        self._nodes: dict[str, int] = {}
        self._present: dict[int, str] = {}

    def node(self, owner: str) -> int | None:
        """Return the Flower id of an owner's node, also when it is away; `None` if unknown."""
        with self._looking():
            return self._nodes.get(owner)

    def presence(self, node: int) -> str | None:
        """Return when a node came up; `None` while it is away."""
        with self._looking():
            return self._present.get(node)

    def connected(self) -> list[str]:
        """Return the owners whose nodes are there."""
        with self._looking():
            return sorted(o for o, node in self._nodes.items() if node in self._present)

    def wait(self, expected: int, timeout: float) -> list[str]:
        """Wait for the nodes of some owners, and return the owners whose nodes are there.

        Args:
            expected: for how many.
            timeout: seconds after which those that are there are enough.

        Raises:
            CampaignError: if there is none.
        """
        deadline = time.monotonic() + timeout
        while len(found := self.connected()) < expected and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if not found:
            raise CampaignError(
                f"Expected owners' nodes to be connected, but none of {len(self._owners)} known "
                "keys is a connected node's. Check the file of the owners' keys."
            )
        return found

    @contextmanager
    def _looking(self) -> Iterator[None]:
        with self._lock:
            if time.monotonic() - self._looked > self._fresh_seconds:
                self._look()
                self._looked = time.monotonic()
            yield

    def _look(self) -> None:
        nodes = list(self._grid.get_nodes())
        if nodes and not any(node.public_key for node in nodes):
            raise CampaignError(
                f"Expected nodes with registered keys, but none of {len(nodes)} has one. Start the "
                "SuperLink with --enable-supernode-auth and register the nodes' keys."
            )
        self._present = {}
        for node in nodes:
            owner = self._owners.get(canonical_key(node.public_key))
            if owner is not None:
                self._nodes[owner] = node.node_id
                self._present[node.node_id] = node.last_activated_at or ALWAYS


def _wait_for_nodes(grid: Grid, expected: int, timeout: float) -> list[int]:
    """Return the nodes once there are enough, or for `timeout` seconds no more than before."""
    found: list[int] = []
    deadline = time.monotonic() + timeout
    while len(found) < expected and time.monotonic() < deadline:
        seen = list(grid.get_node_ids())
        if len(seen) > len(found):
            deadline = time.monotonic() + timeout
        found = seen
        if len(found) < expected:
            time.sleep(POLL_SECONDS)
    return found


def _said_owner(reply: Message | None, timeout: float) -> str:
    """Return the owner that a node says; raise `InputError` with the reason where it does not."""
    if reply is None:
        raise InputError(f"it did not answer, and no other node did for {timeout:g} s")
    if reply.has_error():
        raise InputError(error_line(reply))
    try:
        return check_owner(unpack(reply.content, pb.Identity).owner)
    except InputError as error:
        raise InputError(
            f"it does not run Disinherit's ClientApp: {one_line(str(error))}"
        ) from error


class SaidOwners:
    """Owners by the names that their nodes say, for the simulation engine; looked up once.

    Args:
        grid: Flower's grid of the run.
        expected: number of nodes to wait for before owners are looked up.
        timeout: seconds without a new node or a new answer after which those that are there are
            enough.

    Attributes:
        nodes: owner name -> Flower node id; nodes that do not say whose models they hold are left
            out.
        errors: Flower node id -> why it is left out.

    Raises:
        CampaignError: if no node answers, or two nodes claim the same owner.
    """

    def __init__(self, grid: Grid, expected: int = 1, timeout: float = 600.0) -> None:
        found = _wait_for_nodes(grid, expected, timeout)
        messages = {
            node: Message(pack(pb.Identity()), node, "query.identify", ttl=DEFAULT_TTL)
            for node in found
        }
        self.nodes: dict[str, int] = {}
        self.errors: dict[int, str] = {}
        for node, reply in exchange(grid, messages, timeout):
            try:
                owner = _said_owner(reply, timeout)
            except InputError as error:
                self.errors[node] = str(error)
                continue
            if owner in self.nodes:
                raise CampaignError(
                    f"Expected one node for owner {owner!r}, but two nodes claim it: "
                    f"{self.nodes[owner]} and {node}. Stop one of them."
                )
            self.nodes[owner] = node
        if not self.nodes:
            said = "".join(f"; node {node}: {why}" for node, why in sorted(self.errors.items()))
            raise CampaignError(
                f"Expected owners' nodes to be connected, but of {len(found)} none said whose "
                f"models it holds{said}."
            )

    def node(self, owner: str) -> int | None:
        """Return the Flower id of an owner's node; `None` if no node said that it is there."""
        return self.nodes.get(owner)

    def presence(self, node: int) -> str | None:
        """Return that a node is there: the engine's nodes never leave."""
        return ALWAYS
