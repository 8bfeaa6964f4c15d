"""The files of a fleet: keys, certificates, and the configuration of every process."""

import hashlib
import json
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from disinherit.server.agents.authority import CertificateAuthority
from disinherit.simulations.fleet_processes import free_ports

HOST = "127.0.0.1"
CONNECTION = "fleet"
"""Name of the connection to the SuperLink in Flower's configuration."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports on loopback: of the service, for agents, to enrol them, and of the SuperLink."""

    service: int
    agents: int
    enrol: int
    superlink: int


@dataclass(frozen=True, slots=True)
class FleetFiles:
    """Where a fleet's files are.

    Attributes:
        root: folder of the run, with the owners' models and the coordinator's database.
        ports: where the coordinator's processes listen.
        token: of the operator.
    """

    root: Path
    ports: Ports
    token: str

    @property
    def authority(self) -> Path:
        """Folder of the certificate authority."""
        return self.root / "authority"

    @property
    def ca(self) -> Path:
        """Certificate of the authority."""
        return self.authority / "ca.pem"

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
        """Whose Flower node has which key."""
        return self.root / "owners.toml"

    @property
    def flower_home(self) -> Path:
        """Flower's own folder."""
        return self.root / "flwr"

    def node_key(self, owner: str) -> Path:
        """Private key of an owner's SuperNode."""
        return self.root / "nodes" / owner

    def agent(self, owner: str) -> Path:
        """Configuration of an owner's agent."""
        return self.root / f"{owner}.toml"


def write_files(
    start: Path, root: Path, database: str, agents: Sequence[str], nodes: Sequence[str]
) -> FleetFiles:
    """Copy a run's models and write the configuration of a fleet for them.

    Args:
        start: folder of the run.
        root: folder of the fleet; made.
        database: file name of the coordinator's database in it.
        agents: owners that are reached through agents.
        nodes: owners that are reached through SuperNodes.

    Returns:
        Where everything is.
    """
    shutil.copytree(start, root)
    files = FleetFiles(root, Ports(*free_ports(4)), secrets.token_urlsafe(32))
    pair = CertificateAuthority.open(files.authority).issue_server([HOST, "localhost"])
    files.certificate.write_bytes(pair.certificate)
    files.key.touch(mode=0o600)
    files.key.write_bytes(pair.key)
    _write_service(files, database)
    for owner in agents:
        _write_agent(files, owner)
    _write_nodes(files, nodes)
    return files


def _write_service(files: FleetFiles, database: str) -> None:
    ports = files.ports
    tokens = files.root / "tokens.toml"
    digest = hashlib.sha256(files.token.encode()).hexdigest()
    tokens.write_text(f'[[token]]\nname = "demo"\nrole = "operator"\nsha256 = "{digest}"\n')
    files.service.write_text(
        f'database = "{database}"\n'
        f'listen = "{HOST}:{ports.service}"\n'
        f'tokens = "{tokens.name}"\n'
        "approval = false\n"
        "[tls]\n"
        f'certificate = "{files.certificate.name}"\n'
        f'key = "{files.key.name}"\n'
        "[agents]\n"
        f'authority = "{files.authority.name}"\n'
        f'hosts = ["{HOST}"]\n'
        f'listen = "{HOST}:{ports.agents}"\n'
        f'enrol_listen = "{HOST}:{ports.enrol}"\n'
    )


def _write_agent(files: FleetFiles, owner: str) -> None:
    files.agent(owner).write_text(
        f'owner = "{owner}"\n'
        f'server = "{HOST}:{files.ports.agents}"\n'
        f'enrol_server = "{HOST}:{files.ports.enrol}"\n'
        f"ca = {json.dumps(str(files.ca))}\n"
        f'state = "state-{owner}"\n'
        'factory = "disinherit.simulations.fleet_owners:open_for_agent"\n'
    )


def _write_nodes(files: FleetFiles, nodes: Sequence[str]) -> None:
    lines = ["[owners]"]
    for owner in nodes:
        path = files.node_key(owner)
        path.parent.mkdir(exist_ok=True)
        key = ec.generate_private_key(ec.SECP384R1())
        path.touch(mode=0o600)
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        path.with_suffix(".pub").write_bytes(public)
        lines.append(f'{owner} = "nodes/{owner}.pub"')
    files.owners.write_text("\n".join(lines) + "\n")
    files.flower_home.mkdir()
    (files.flower_home / "config.toml").write_text(
        f"[superlink.{CONNECTION}]\n"
        f'address = "{HOST}:{files.ports.superlink}"\n'
        f"root-certificates = {json.dumps(str(files.ca))}\n"
    )
