"""Admission of owners: SuperNodes by public keys, agents by certificates."""

import time
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from disinherit.client.agent import enrol, read_config
from disinherit.common.errors import CampaignError, InputError
from disinherit.common.files import write_atomic
from disinherit.common.graph.identifiers import check_owner
from disinherit.deploy.files import CONNECTION, FleetFiles, write_nodes
from disinherit.deploy.flower_cli import flwr
from disinherit.deploy.programs import flower_environment
from disinherit.server.flower.owner_keys import canonical_key
from disinherit.server.service.inviting import open_enrolment

_ONLINE_SECONDS = 150.0
"""Longer than a killed node counts as online, a minute during which it is refused."""

_POLL_SECONDS = 3.0


def register_nodes(files: FleetFiles, owners: Sequence[str]) -> None:
    """Register keys of SuperNodes with the SuperLink, once each.

    Args:
        files: files of the fleet, whose SuperLink must run.
        owners: owners of the nodes.

    Raises:
        CampaignError: if the SuperLink refuses.
    """
    for owner in owners:
        note = _note(files, owner)
        if note.exists():
            continue
        key = str(files.node_public_key(owner))
        words = ("supernode", "register", key, CONNECTION, "--name", owner)
        answer = flwr(*words, environment=flower_environment(files))
        write_atomic(note, str(answer["node-id"]).encode())


def admit_node(files: FleetFiles, owner: str, key: Path) -> None:
    """Admit the SuperNode of an owner that keeps its private key elsewhere.

    Args:
        files: files of the fleet, whose SuperLink must run.
        owner: the node's owner.
        key: file with the public key, in the format of `ssh-keygen -t ecdsa -b 384`.

    Raises:
        InputError: if the key cannot be used, or the owner's node has another one.
        CampaignError: if the SuperLink refuses.
    """
    public = _read_public_key(key)
    kept = files.node_public_key(check_owner(owner))
    if kept.exists() and canonical_key(kept.read_bytes()) != canonical_key(public):
        raise InputError(
            f"Expected the key that the node of {owner!r} was admitted with, in {kept}, but got "
            "another one. To put a new key in its place: `flwr supernode unregister`, remove that "
            "file and the one beside it that ends in .id, and admit the node again."
        )
    if not kept.exists():
        write_atomic(kept, public)
    try:
        register_nodes(files, [owner])
    except CampaignError:
        kept.unlink()
        raise
    write_nodes(files, ())


def _read_public_key(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        known = load_ssh_public_key(data)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise InputError(
            f"Expected the public key of a node in {str(path)!r}, as OpenSSH writes it, but: "
            f"{error}."
        ) from error
    if not isinstance(known, ec.EllipticCurvePublicKey):
        raise InputError(
            f"Expected a key that Flower can use in {str(path)!r}, such as `ssh-keygen -t ecdsa "
            f"-b 384` makes, but got {data.split()[0].decode()}."
        )
    return data


def wait_for_nodes(files: FleetFiles, owners: Sequence[str], logs: Path) -> None:
    """Wait until SuperNodes are online.

    Args:
        files: files of the fleet.
        owners: owners of the nodes.
        logs: folder of their logs, for error messages.

    Raises:
        CampaignError: if a node is not online in time.
    """
    ids = {_note(files, owner).read_text(): owner for owner in owners}
    deadline = time.monotonic() + _ONLINE_SECONDS
    while ids:
        environment = flower_environment(files)
        listed = flwr("supernode", "list", CONNECTION, environment=environment)
        for node in listed["nodes"]:
            if node["status"] == "online":
                ids.pop(node["node-id"], None)
        if ids and time.monotonic() > deadline:
            raise CampaignError(
                f"Expected all SuperNodes to be online within {_ONLINE_SECONDS:g} s, but "
                f"{', '.join(sorted(ids.values()))} are not; see their logs in {logs}."
            )
        if ids:
            time.sleep(_POLL_SECONDS)


def enrol_agent(files: FleetFiles, owner: str) -> None:
    """Create an agent's key and get its certificate, unless it has one.

    Args:
        files: files of the fleet, with the agent's configuration; the coordinator must run.
        owner: the agent's owner.

    Raises:
        CampaignError: if the coordinator cannot be reached.
        StoreError: if its database cannot be used.
    """
    config = read_config(files.agent(owner))
    if (config.state / "agent.pem").exists():
        return
    with open_enrolment(files.service) as (enrolment, _):
        token = enrolment.invite(owner)
    enrol(config, token)


def _note(files: FleetFiles, owner: str) -> Path:
    """Return the file with the SuperLink's id of an owner's node."""
    return files.nodes / f"{owner}.id"
