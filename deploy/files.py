"""Files of a fleet: keys, certificates, and the configuration of every process.

Existing files are not changed: an operator may edit them, and keys stay the same.
"""

import hashlib
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from disinherit.common.errors import StoreError
from disinherit.common.files import write_atomic, write_private
from disinherit.server.agents.authority import CertificateAuthority
from disinherit.server.service.settings import as_place

HOST = "127.0.0.1"


def listens(port: int) -> bool:
    """Return whether a program listens at a port on loopback."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0):
            return True
    except OSError:
        return False


CONNECTION = "fleet"
"""Name of the connection to the SuperLink in Flower's configuration."""

PACKETS = "packets"
"""Name of the folder of Fisher packets for a database that is not a file."""

_SIGNING_KEY = "signing.pem"
"""File name of the signing key, beside the authority's key."""

ROLES = ("operator", "approver")
"""Roles with an initial token."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of the coordinator's machine.

    Attributes:
        service: for operators.
        agents: for agents.
        enrol: for agents without a certificate.
        nodes: for SuperNodes, at the proxy.
        superlink: on loopback only, as its Control API has no authentication.
    """

    service: int
    agents: int
    enrol: int
    nodes: int
    superlink: int


@dataclass(frozen=True, slots=True)
class FleetFiles:
    """Paths of a fleet's files.

    Attributes:
        root: the folder of all files.
        ports: ports of the coordinator's processes.
        address: their address; the SuperLink always listens on loopback.
        hosts: host names and addresses of the coordinator's machine.
    """

    root: Path
    ports: Ports
    address: str = HOST
    hosts: Sequence[str] = (HOST, "localhost")

    @property
    def authority(self) -> Path:
        """Folder of the certificate authority."""
        return self.root / "authority"

    @property
    def ca(self) -> Path:
        """Certificate of the authority."""
        return self.authority / "ca.pem"

    @property
    def public_ca(self) -> Path:
        """Copy of the authority's certificate, for programs without access to its folder."""
        return self.root / "ca.pem"

    @property
    def certificate(self) -> Path:
        """Certificate of the coordinator's machine."""
        return self.root / "server.pem"

    @property
    def key(self) -> Path:
        """Key of the coordinator's machine."""
        return self.root / "server.key"

    @property
    def service(self) -> Path:
        """Configuration of the service."""
        return self.root / "serve.toml"

    @property
    def owners(self) -> Path:
        """File of the public keys of owners' Flower nodes."""
        return self.root / "owners.toml"

    @property
    def proxy(self) -> Path:
        """Folder of the proxy: its configuration, and copies of the certificates and the key."""
        return self.root / "proxy"

    @property
    def flower_home(self) -> Path:
        """Flower's own folder."""
        return self.root / "flwr"

    @property
    def token(self) -> str:
        """The operator's token."""
        return self.token_file("operator").read_text().strip()

    def token_file(self, role: str) -> Path:
        """File with the token of a role."""
        return self.root / f"{role}.token"

    @property
    def nodes(self) -> Path:
        """Folder of the SuperNodes' keys."""
        return self.root / "nodes"

    def node_key(self, owner: str) -> Path:
        """Private key of an owner's SuperNode."""
        return self.nodes / owner

    def node_public_key(self, owner: str) -> Path:
        """Public key of an owner's SuperNode, in OpenSSH's format."""
        return self.nodes / f"{owner}.pub"

    def agent(self, owner: str) -> Path:
        """Configuration of an owner's agent."""
        return self.root / f"{owner}.toml"

    def agent_state(self, owner: str) -> Path:
        """Folder of an owner's agent: its key, certificate and downloads."""
        return self.root / f"state-{owner}"


def write_coordinator(files: FleetFiles, database: str, *, approval: bool) -> None:
    """Create the keys, certificates, tokens and configuration of the coordinator's machine.

    Args:
        files: paths of the files.
        database: as in the service's configuration.
        approval: whether campaigns wait for an approver.

    Raises:
        StoreError: if a file cannot be written.
    """
    try:
        files.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority = CertificateAuthority.open(files.authority)
        write_atomic(files.public_ca, authority.certificate)
        if not files.key.exists() or authority.is_due(files.certificate.read_bytes()):
            pair = authority.issue_server(files.hosts)
            write_atomic(files.certificate, pair.certificate)
            write_private(files.key, pair.key)
        _write_tokens(files)
        if not files.service.exists():
            write_atomic(files.service, _service(files, database, approval).encode())
        files.flower_home.mkdir(exist_ok=True)
        write_atomic(files.flower_home / "config.toml", _connection(files).encode())
    except OSError as error:
        raise StoreError(f"Expected to write a fleet's files to {files.root}: {error}.") from error


def write_agent(files: FleetFiles, owner: str, factory: str) -> None:
    """Write the configuration of an owner's agent on this machine.

    Args:
        files: paths of the files.
        owner: the owner.
        factory: `module:function` that opens its models.
    """
    configuration = {
        "owner": owner,
        "server": f"{HOST}:{files.ports.agents}",
        "enrol_server": f"{HOST}:{files.ports.enrol}",
        "ca": str(files.ca),
        "state": files.agent_state(owner).name,
        "factory": factory,
    }
    write_atomic(files.agent(owner), tomli_w.dumps(configuration).encode())


def write_nodes(files: FleetFiles, owners: Sequence[str]) -> None:
    """Create the keys of owners' SuperNodes, and list all public keys by owner.

    Args:
        files: paths of the files.
        owners: owners whose nodes run on this machine.
    """
    folder = files.nodes
    folder.mkdir(exist_ok=True)
    for owner in owners:
        path = files.node_key(owner)
        if not path.exists():
            key = ec.generate_private_key(ec.SECP384R1())
            public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
            write_atomic(files.node_public_key(owner), public)
            secret = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
            write_private(path, secret)
    known = {path.stem: f"nodes/{path.name}" for path in sorted(folder.glob("*.pub"))}
    write_atomic(files.owners, tomli_w.dumps({"owners": known}).encode())


def _write_tokens(files: FleetFiles) -> None:
    """Create tokens once; later the operator maintains the file of their digests."""
    tokens = files.root / "tokens.toml"
    if tokens.exists():
        return
    entries = []
    for role in ROLES:
        token = secrets.token_urlsafe(32)
        write_private(files.token_file(role), f"{token}\n".encode())
        digest = hashlib.sha256(token.encode()).hexdigest()
        entries.append({"name": role, "role": role, "sha256": digest})
    write_atomic(tokens, tomli_w.dumps({"token": entries}).encode())


def service_addresses(files: FleetFiles) -> dict[str, Any]:
    """Return the part of the service's configuration that has ports and host names.

    Args:
        files: files of the fleet.
    """
    ports, address = files.ports, files.address
    return {
        "listen": f"{address}:{ports.service}",
        "agents": {
            "listen": f"{address}:{ports.agents}",
            "enrol_listen": f"{address}:{ports.enrol}",
            "hosts": list(files.hosts),
        },
    }


def _service(files: FleetFiles, database: str, approval: bool) -> str:
    addresses = service_addresses(files)
    # With a database file, packets have a default folder beside it.
    on_server = isinstance(as_place(database), str)
    packets = {"packets": PACKETS} if on_server else {}
    settings: dict[str, Any] = {
        "database": database,
        **packets,
        "listen": addresses["listen"],
        "tokens": "tokens.toml",
        "approval": approval,
        "tls": {"certificate": files.certificate.name, "key": files.key.name},
        "agents": {"authority": files.authority.name, **addresses["agents"]},
    }
    settings["signing"] = {"key": f"{files.authority.name}/{_SIGNING_KEY}"}
    return tomli_w.dumps(settings)


def _connection(files: FleetFiles) -> str:
    values = {
        "address": f"{HOST}:{files.ports.superlink}",
        "root-certificates": os.fspath(files.public_ca),
    }
    return tomli_w.dumps({"superlink": {CONNECTION: values}})
