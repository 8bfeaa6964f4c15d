"""Start and end of a whole fleet on one machine: `disinherit deploy up` and `down`.

One folder has everything: keys, certificates, tokens, configuration, databases, models of the
owners, logs.  Starting is idempotent: existing files stay, and unchanged programs keep running.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from pathlib import Path

from disinherit.common.errors import CampaignError, InputError
from disinherit.common.extras import how_to_install
from disinherit.deploy import programs
from disinherit.deploy.enrolment import enrol_agent, register_nodes, wait_for_nodes
from disinherit.deploy.files import FleetFiles, Ports, listens, write_agent, write_nodes
from disinherit.deploy.health_check import is_healthy
from disinherit.deploy.orphans import end_orphans
from disinherit.deploy.preparation import prepare, remember_programs, remembered_programs
from disinherit.deploy.programs import COORDINATOR, PROXY, SUPERLINK, Program
from disinherit.deploy.proxy import proxy
from disinherit.deploy.supervision import Supervisor

_NODES_WITHOUT_MODELS = "disinherit.deploy.without_models:open_for_node"
_AGENTS_WITHOUT_MODELS = "disinherit.deploy.without_models:open_for_agent"

_START_SECONDS = 120.0
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Wanted:
    """Requested settings of a deployment.

    Attributes:
        node_factory: `module:function` that opens the models of a node's owner.  `None`, here and
            for the next three, keeps the deployment's last setting.
        agent_factory: `module:function` that opens the models of an agent's owner.
        nodes: number of SuperNodes; their owners are called node-0, node-1, ...  A new deployment
            has 3.
        agents: number of agents; their owners are called agent-0, agent-1, ...  A new deployment
            has none.
        first_port: first of consecutive ports: service, agents, enrolment, nodes, SuperLink, and
            one for each node; `None` for the deployment's, 50051 for a new one.
        hosts: host names and addresses of this machine; empty for the deployment's.  A new one
            without hosts listens on loopback only.
    """

    node_factory: str | None = None
    agent_factory: str | None = None
    nodes: int | None = None
    agents: int | None = None
    first_port: int | None = None
    hosts: Sequence[str] = ()


def supervisor_of(folder: Path) -> Supervisor:
    """Return the supervisor of a deployment."""
    return Supervisor(folder / "logs")


def up(folder: Path, wanted: Wanted, say: Callable[[str], None] = lambda _: None) -> FleetFiles:
    """Start a deployment, and wait until it is reachable.

    Args:
        folder: folder of the deployment, created if missing.
        wanted: its settings.
        say: receives progress messages.

    Returns:
        The files of the deployment.

    Raises:
        InputError: if a program is not installed, or a port is in use.
        CampaignError: if a program does not start.
        StoreError: if the folder cannot be used.
    """
    folder = folder.absolute()
    _require_supervisor()
    supervisor = supervisor_of(folder)
    running = supervisor.running()
    fleet = _with_remembered(folder, wanted)
    files = prepare(folder, wanted.first_port, wanted.hosts, more_ports=fleet.nodes)
    remember_programs(folder, asdict(fleet))
    nodes = [f"node-{number}" for number in range(fleet.nodes)]
    agents = [f"agent-{number}" for number in range(fleet.agents)]
    own_ports = {owner: files.ports.superlink + 1 + n for n, owner in enumerate(nodes)}
    write_nodes(files, nodes)
    for owner in agents:
        write_agent(files, owner, fleet.agent_factory)
    core = [programs.coordinator(files), programs.superlink(files), proxy(files)]
    if not running:
        _require_free(files.ports, own_ports.values())
        supervisor.keep(_surrounded(files, fleet, core))
    for name, port in (
        (COORDINATOR, files.ports.service),
        (COORDINATOR, files.ports.enrol),
        (SUPERLINK, files.ports.superlink),
        (PROXY, files.ports.nodes),
    ):
        _wait_for_port(supervisor, name, port)
    # A port that is open may belong to a program that does not serve yet.
    if not is_healthy(files.ca, files.ports.service, _START_SECONDS):
        raise CampaignError(
            f"Expected the coordinator to serve within {_START_SECONDS:g} s, but it does not. Its "
            f"log is {supervisor.log(COORDINATOR)}."
        )
    say("coordinator, SuperLink and proxy are serving")
    register_nodes(files, nodes)
    for owner in agents:
        enrol_agent(files, owner)
    others = [
        programs.node(
            files,
            owner,
            fleet.node_factory,
            folder / "owners" / owner,
            own_ports[owner],
            files.ports.nodes,
        )
        for owner in nodes
    ] + [programs.agent(files, owner) for owner in agents]
    if any(files.nodes.glob("*.pub")):
        others.append(programs.resident_run(files))
    supervisor.keep(_surrounded(files, fleet, core + others))
    wait_for_nodes(files, nodes, supervisor.folder)
    say(f"{len(nodes)} nodes are online")
    return files


def folders_without_models(files: FleetFiles) -> dict[str, Path]:
    """Return the owners on this machine without a factory of models, with their folders.

    Args:
        files: files of the deployment.

    Raises:
        StoreError: if the folder cannot be used.
    """
    fleet = _with_remembered(files.root, Wanted())
    without: dict[str, Path] = {}
    if fleet.node_factory == _NODES_WITHOUT_MODELS:
        owners = (f"node-{number}" for number in range(fleet.nodes))
        without |= {owner: files.root / "owners" / owner for owner in owners}
    if fleet.agent_factory == _AGENTS_WITHOUT_MODELS:
        owners = (f"agent-{number}" for number in range(fleet.agents))
        without |= {owner: files.agent_state(owner) for owner in owners}
    return without


def down(folder: Path) -> bool:
    """End all programs that `up` started; return whether any was running.

    Args:
        folder: folder of the deployment.

    Raises:
        CampaignError: if a program does not end.
    """
    ended = supervisor_of(folder.absolute()).end()
    end_orphans(folder.absolute())
    return ended


@dataclass(frozen=True, slots=True)
class _Fleet:
    """Settings of a deployment's nodes and agents, kept from one start to the next."""

    node_factory: str = _NODES_WITHOUT_MODELS
    agent_factory: str = _AGENTS_WITHOUT_MODELS
    nodes: int = 3
    agents: int = 0
    python_path: str = ""
    """Extra search path for the factories' modules."""


def _with_remembered(folder: Path, wanted: Wanted) -> _Fleet:
    """Return the requested settings, and the last ones where none are requested."""
    names = {one.name for one in fields(_Fleet)}
    asked = {key: value for key, value in asdict(wanted).items() if key in names}
    asked["python_path"] = os.environ.get("PYTHONPATH")
    known = {key: value for key, value in remembered_programs(folder).items() if key in names}
    return _Fleet(**(known | {key: value for key, value in asked.items() if value is not None}))


def _require_supervisor() -> None:
    """Check that supervisord is installed, before anything is written.

    Raises:
        InputError: if it is not.
    """
    program = programs.BINARIES / "supervisord"
    if not program.exists():
        raise InputError(
            f"Expected supervisord at {program}, which keeps a deployment's programs running, but "
            f"it is not installed. Run {how_to_install('deploy')}."
        )


def _surrounded(files: FleetFiles, fleet: _Fleet, wanted: Sequence[Program]) -> list[Program]:
    environment = programs.flower_environment(files)
    if fleet.python_path:
        environment["PYTHONPATH"] = fleet.python_path
    return [replace(one, environment={**environment, **one.environment}) for one in wanted]


def _require_free(ports: Ports, own: Iterable[int]) -> None:
    taken = [port for port in (*astuple(ports), *own) if listens(port)]
    if taken:
        raise InputError(
            f"Expected free ports for the deployment, but other programs listen at {taken}. End "
            "them, or choose other ports: make up PORT=51051."
        )


def _wait_for_port(supervisor: Supervisor, name: str, port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not listens(port):
        if time.monotonic() > deadline:
            raise CampaignError(
                f"Expected {name} to listen at port {port} within {_START_SECONDS:g} s, but it "
                f"does not. Its log is {supervisor.log(name)}."
            )
        time.sleep(_POLL_SECONDS)
