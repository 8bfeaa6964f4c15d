"""Owners of Flower nodes: identified by registered keys, or by names that nodes report.

In a deployment, a node's name and configuration are unverified claims; only its key is proven.  The
SuperLink admits nodes with registered keys (`--enable-supernode-auth`), and their ids are stable.
The simulation engine has no keys; there, nodes report their owners' names.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from flwr.app import DEFAULT_TTL, Message
from flwr.serverapp import Grid

from disinherit.common.errors import CampaignError, InputError
from disinherit.common.graph.identifiers import check_owner
from disinherit.common.text import one_line
from disinherit.common.wire.flower import pack, unpack
from disinherit.server.flower.exchange import ALWAYS, POLL_SECONDS, error_line, exchange
from disinherit.server.flower.owner_keys import canonical_key
from disinherit.v1 import unlearning_pb2 as pb


class Directory(Protocol):
    """Nodes of owners, and their presence."""

    def node(self, owner: str) -> int | None:
        """Return the Flower id of an owner's node, even while offline; `None` if unknown."""
        ...

    def presence(self, node: int) -> str | None:
        """Return a value that changes after each absence of a node; `None` while offline."""
        ...


class RegisteredOwners:
    """Owners by the registered public keys of their nodes.

    The SuperLink lists only online nodes: a node that was never online is unknown; a node that was
    keeps its id.

    Args:
        grid: Flower's grid of the run.
        keys: owner -> public key, from `read_owner_keys`.
        fresh_seconds: how long a list of nodes is cached.

    Raises:
        CampaignError: from every method, if nodes are connected and none of them has a key.
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
        """Return the Flower id of an owner's node, even while offline; `None` if unknown."""
        with self._looking():
            return self._nodes.get(owner)

    def presence(self, node: int) -> str | None:
        """Return when a node was last activated; `None` while offline."""
        with self._looking():
            return self._present.get(node)

    def connected(self) -> list[str]:
        """Return the owners of online nodes."""
        with self._looking():
            return sorted(o for o, node in self._nodes.items() if node in self._present)

    def wait(self, expected: int, timeout: float) -> list[str]:
        """Wait for the nodes of some owners, and return the owners of online nodes.

        Args:
            expected: number of owners.
            timeout: seconds after which fewer owners are enough.

        Raises:
            CampaignError: if no known node is online.
        """
        deadline = time.monotonic() + timeout
        while len(found := self.connected()) < expected and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if not found:
            raise CampaignError(
                f"Expected owners' nodes to be connected, but no connected node has one of the "
                f"{len(self._owners)} known keys. Check the file of the owners' keys."
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
    """Return the nodes once there are enough, or none has been added for `timeout` seconds."""
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


def _reported_owner(reply: Message | None, timeout: float) -> str:
    """Return the owner that a node reports; raise `InputError` with the reason if it fails."""
    if reply is None:
        raise InputError(
            f"it did not answer, and no other node did for {timeout:g} s; if this machine was "
            "busy, run the same again"
        )
    if reply.has_error():
        raise InputError(error_line(reply))
    try:
        return check_owner(unpack(reply.content, pb.Identity).owner)
    except InputError as error:
        raise InputError(
            f"it does not run Disinherit's ClientApp: {one_line(str(error))}"
        ) from error


class NamedOwners:
    """Owners by the names that their nodes report, for the simulation engine; looked up once.

    Args:
        grid: Flower's grid of the run.
        expected: number of nodes to wait for.
        timeout: seconds without a new node or answer after which fewer nodes are enough.

    Attributes:
        nodes: owner -> Flower node id, of the nodes that reported an owner.
        errors: Flower node id -> reason, of the other nodes.

    Raises:
        CampaignError: if no node reports an owner, or two nodes claim the same owner.
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
                owner = _reported_owner(reply, timeout)
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
            reasons = "".join(f"; node {node}: {why}" for node, why in sorted(self.errors.items()))
            raise CampaignError(
                f"Expected owners' nodes to be connected, but of {len(found)} none reported its "
                f"owner{reasons}."
            )

    def node(self, owner: str) -> int | None:
        """Return the Flower id of an owner's node; `None` if no node reported the owner."""
        return self.nodes.get(owner)

    def presence(self, node: int) -> str | None:
        """Return `ALWAYS`: the engine's nodes never leave."""
        return ALWAYS
