"""Programs of a fleet: command lines, environments and stop timeouts."""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from disinherit.deploy.files import CONNECTION, HOST, FleetFiles
from disinherit.server.service.settings import read_settings

BINARIES = Path(sys.executable).parent
"""Folder of this environment's programs."""

COORDINATOR, SUPERLINK, PROXY, RUN = "coordinator", "superlink", "proxy", "run"

OFFLINE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
"""Disables Flower's telemetry, update checks, and installation of dependencies at every run."""

ANSWER_SECONDS = 600.0
"""Timeout for the answer of a node, which may have crashed over its message."""

Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """One program.

    Attributes:
        name: its name, also of its log.
        words: the program, by path or by name in this environment, and its arguments.
        stop_seconds: time to end after SIGTERM.
        environment: added to the environment of its parent.
    """

    name: str
    words: Words
    stop_seconds: int = 20
    environment: Mapping[str, str] = field(default_factory=dict)


def coordinator(files: FleetFiles) -> Program:
    """Return the coordinator's service."""
    return Program(COORDINATOR, ("disinherit", "serve", "--config", str(files.service)))


def superlink(files: FleetFiles) -> Program:
    """Return the SuperLink: TLS, on loopback, and only for nodes with registered keys."""
    words = (
        "flower-superlink",
        *("--host", HOST, "--port", str(files.ports.superlink)),
        *("--ssl-ca-certfile", str(files.public_ca)),
        *("--ssl-certfile", str(files.certificate), "--ssl-keyfile", str(files.key)),
        *("--database", str(files.root / "superlink.db")),
        "--enable-supernode-auth",
    )
    return Program(SUPERLINK, words)


def node(
    files: FleetFiles, owner: str, factory: str, folder: Path, own_port: int, superlink_port: int
) -> Program:
    """Return a SuperNode.

    Args:
        files: files of the fleet.
        owner: the node's owner.
        factory: `module:function` that opens the owner's models.
        folder: passed to the factory, as `folder` in the node's configuration.
        own_port: port for its own programs.
        superlink_port: port on this machine that it connects to.
    """
    known = {"owner": owner, "folder": str(folder), "factory": factory}
    configuration = " ".join(f"{key}={json.dumps(text)}" for key, text in known.items())
    words = (
        *("python", "-m", "disinherit.deploy.supernode"),
        *("--superlink", f"{HOST}:{superlink_port}"),
        *("--root-certificates", str(files.ca)),
        *("--auth-supernode-private-key", str(files.node_key(owner))),
        *("--port", str(own_port)),
        *("--node-config", configuration),
    )
    return Program(owner, words)


def agent(files: FleetFiles, owner: str) -> Program:
    """Return an agent that has enrolled."""
    words = ("disinherit", "agent", "--config", str(files.agent(owner)))
    return Program(owner, words, stop_seconds=75)  # the current task may take a minute


def run_configuration(service: Path, owners: Path, timeout: float = ANSWER_SECONDS) -> str:
    """Return the configuration of a run of the ServerApp that stays, beside a service.

    Args:
        service: configuration of the service; the run shares its database and packets.
        owners: file of the public keys of owners' nodes.
        timeout: seconds to wait for a node's answer; then it is asked again.

    Raises:
        InputError: if the service's configuration cannot be used.
    """
    settings = read_settings(service, {}, {})
    values = {"database": str(settings.database), "owners": str(owners)}
    if settings.packets is not None:
        values["packets"] = str(settings.packets)
    texts = " ".join(f"{key}={json.dumps(text)}" for key, text in values.items())
    return f"{texts} stay-seconds=86400.0 timeout={timeout}"


def resident_run(files: FleetFiles, timeout: float = ANSWER_SECONDS) -> Program:
    """Return the keeper of a run of the ServerApp.

    Args:
        files: files of the fleet, with a configured service.
        timeout: seconds to wait for a node's answer; then it is asked again.
    """
    words = (
        *("python", "-m", "disinherit.deploy.run_keeper"),
        *("--connection", CONNECTION),
        *("--service", str(files.service), "--owners", str(files.owners)),
        *("--timeout", f"{timeout:g}"),
    )
    # A change restarts the run, which reads the owners' keys only at its start.
    owners = hashlib.sha256(files.owners.read_bytes()).hexdigest()
    return Program(RUN, words, environment={"DISINHERIT_OWNERS": owners})


def flower_environment(files: FleetFiles) -> dict[str, str]:
    """Return the environment of Flower's programs, with their home and search path."""
    path = os.pathsep.join([str(BINARIES), os.environ.get("PATH", os.defpath)])
    return {**OFFLINE, "FLWR_HOME": str(files.flower_home), "PATH": path}
