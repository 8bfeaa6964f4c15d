"""The programs of a fleet: what each is called with, and how it is to be ended."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from disinherit.deploy.files import CONNECTION, FleetFiles
from disinherit.deploy.ports import HOST

BINARIES = Path(sys.executable).parent
"""Where the programs of this environment are."""

APP = Path(__file__).resolve().parent / "flower"
"""The Flower app that is nothing but Disinherit's two ends."""

COORDINATOR, SUPERLINK, PROXY, RUN = "coordinator", "superlink", "proxy", "run"

OFFLINE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
"""Keeps Flower from calling home, and from installing an app's dependencies at every run."""

ANSWER_SECONDS = 600.0

Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """One program.

    Attributes:
        name: for its log.
        words: the program, which is one of this environment unless it is a path, and arguments.
        stop_seconds: how long it may take to end when it is told to.
        environment: beside that of whatever starts it.
    """

    name: str
    words: Words
    stop_seconds: int = 20
    environment: Mapping[str, str] = field(default_factory=dict)


def coordinator(files: FleetFiles) -> Program:
    """Return the coordinator's service."""
    return Program(COORDINATOR, ("disinherit", "serve", "--config", str(files.service)))


def superlink(files: FleetFiles) -> Program:
    """Return the SuperLink: TLS, on loopback, and only nodes with registered keys are let in."""
    words = (
        "flower-superlink",
        *("--host", HOST, "--port", str(files.ports.superlink)),
        *("--ssl-ca-certfile", str(files.ca)),
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
        files: of the fleet.
        owner: whose models it serves.
        factory: `module:function` that opens them.
        folder: told to the factory, as `folder` in the node's configuration.
        own_port: where its programs reach it.
        superlink_port: of what it connects to on this machine.
    """
    known = {"owner": owner, "folder": str(folder), "factory": factory}
    configuration = " ".join(f"{key}={json.dumps(text)}" for key, text in known.items())
    words = (
        "flower-supernode",
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
    return Program(owner, words, stop_seconds=75)  # a task under way may take a minute


def run_configuration(database: str, owners: Path, timeout: float = ANSWER_SECONDS) -> str:
    """Return the configuration of a run of the ServerApp that stays.

    Args:
        database: the coordinator's, as a path or URL.
        owners: file of whose node has which key.
        timeout: seconds to wait for a node's answer; one that was killed over a message is asked
            again after them.
    """
    return (
        f"database={json.dumps(database)} owners={json.dumps(str(owners))} "
        f"stay-seconds=86400.0 timeout={timeout}"
    )


def resident_run(files: FleetFiles, database: str, timeout: float = ANSWER_SECONDS) -> Program:
    """Return what keeps a run of the ServerApp going.

    Args:
        files: of the fleet.
        database: the coordinator's, as a path or URL.
        timeout: seconds to wait for a node's answer.
    """
    words = (
        *("python", "-m", "disinherit.deploy.residence"),
        *("--app", str(APP), "--connection", CONNECTION),
        *("--run-config", run_configuration(database, files.owners, timeout)),
    )
    return Program(RUN, words)


def flower_environment(files: FleetFiles) -> dict[str, str]:
    """Return the environment in which Flower's programs find their own folder and each other."""
    path = os.pathsep.join([str(BINARIES), os.environ.get("PATH", os.defpath)])
    return {**OFFLINE, "FLWR_HOME": str(files.flower_home), "PATH": path}
