"""Nodes of a running Flower app, and the owners that they are.

Each node says which owner it is.  Where an operator registered nodes under names (`flwr supernode
register --name`), an owner belongs to the key that it came with first (`owners.toml` of the
server), so that no other node can take its name.
"""

import logging
from collections.abc import Collection
from pathlib import Path

import tomli_w
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from flwr.app import Message
from flwr.serverapp import Grid

from disinherit.common.errors import CampaignError, InputError
from disinherit.common.files import write_atomic
from disinherit.common.graph.identifiers import check_owner
from disinherit.common.text import one_line
from disinherit.common.wire.flower import pack, unpack
from disinherit.server.flower.exchange import ALWAYS, error_line, exchange
from disinherit.server.flower.owner_keys import canonical_key, read_owner_keys
from disinherit.v1 import unlearning_pb2 as pb

_log = logging.getLogger("flwr")  # where Flower's own messages of a run go

_SECONDS = 120.0
"""Time without an answer after which a node counts as one that does not say who it is."""


class KnownNodes:
    """The owners of nodes, asked once for each node.

    Args:
        grid: Flower's grid of the run.
        keys: file with the key of each owner, which this keeps.

    Attributes:
        errors: node -> why its owner is not known.
    """

    def __init__(self, grid: Grid, keys: Path) -> None:
        self._grid = grid
        self._file = keys
        self._owners: dict[int, str] = {}
        self.errors: dict[int, str] = {}

    def meet(self, nodes: Collection[int]) -> None:
        """Ask nodes that were not asked before who they are."""
        new = [node for node in nodes if node not in self._owners]
        asks = {n: Message(pack(pb.Identity()), n, "query.identify", ttl=_SECONDS) for n in new}
        listed = self._listed() if asks else {}
        for node, reply in exchange(self._grid, asks, _SECONDS):
            try:
                owner = _said(reply)
                self._check(owner, node, *listed.get(node, (b"", False)))
            except InputError as error:
                self.errors[node] = one_line(str(error))
                _log.warning("node %d is no known owner: %s", node, self.errors[node])
            else:
                self._owners[node] = owner
                self.errors.pop(node, None)

    def name(self, node: int) -> str:
        """Return the owner that a node is.

        Raises:
            InputError: if it is not known.
        """
        if node not in self._owners:
            reason = self.errors.get(node, "it was not asked")
            raise InputError(f"Expected node {node} to say which owner it is, but: {reason}.")
        return self._owners[node]

    @property
    def owners(self) -> list[str]:
        """The owners of the nodes that said so, in alphabetical order."""
        return sorted(self._owners.values())

    def node(self, owner: str) -> int | None:
        """Return the Flower id of an owner's node; `None` if none of the nodes is the owner."""
        return next((node for node, name in self._owners.items() if name == owner), None)

    def presence(self, node: int) -> str | None:
        """Return `ALWAYS`: who goes away meanwhile does not answer, and is asked by a later run."""
        return ALWAYS

    def _listed(self) -> dict[int, tuple[bytes, bool]]:
        """Return node -> its key, and whether an operator registered the node under a name."""
        nodes = self._grid.get_nodes()
        return {one.node_id: (_known_key(one.public_key), bool(one.name)) for one in nodes}

    def _check(self, owner: str, node: int, key: bytes, registered: bool) -> None:
        """Refuse an owner's name that is another node's, or belongs to another key."""
        other = self.node(owner)
        if other is not None and other != node and other in {*self._grid.get_node_ids()}:
            raise InputError(
                f"it says that it is {owner!r}, as node {other} does; give each node a name of its "
                "own, as owner or partition-id of --node-config"
            )
        known = read_owner_keys(self._file) if self._file.exists() else {}
        if known.get(owner, key) != key:
            raise InputError(
                f"it says that it is {owner!r}, which came with another key before; if the node "
                f"has a new key, remove {owner!r} from {self._file}"
            )
        if registered and owner not in known:  # keys that are not registered are new at each start
            known[owner] = key
            texts = {name: _openssh(one) for name, one in sorted(known.items())}
            write_atomic(self._file, tomli_w.dumps({"owners": texts}).encode())


def check_any(nodes: KnownNodes) -> None:
    """Refuse to go on without any known node.

    Raises:
        CampaignError: if no node said which owner it is.
    """
    if not nodes.owners:
        reasons = "".join(f"; node {node}: {why}" for node, why in sorted(nodes.errors.items()))
        raise CampaignError(
            f"Expected nodes of owners to be connected, but none said which owner it is{reasons}."
        )


def _said(reply: Message | None) -> str:
    """Return the owner that a node says it is; raise `InputError` with the reason if none."""
    if reply is None:
        raise InputError("it did not answer")
    if reply.has_error():
        raise InputError(error_line(reply))
    return check_owner(unpack(reply.content, pb.Identity).owner)


def _known_key(key: bytes) -> bytes:
    """Return a key as DER; `b""` for what is none, as nodes of the simulation engine have."""
    try:
        return canonical_key(key)
    except (ValueError, UnsupportedAlgorithm):
        return b""


def _openssh(key: bytes) -> str:
    return load_der_public_key(key).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
