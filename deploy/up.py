"""Start and end of a whole fleet on one machine: `disinherit deploy up` and `down`.

Everything is in one folder: keys, certificates, tokens, configuration, databases, models of the
owners, logs.  Starting is idempotent: what is there stays, what runs as told is left alone.
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
from disinherit.deploy.orphans import end_stragglers
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
    """What a deployment is to be.

    Attributes:
        node_factory: `module:function` that opens the models of a node's owner.  `None`, here and
            for the three that follow, for what the deployment ran last.
        agent_factory: `module:function` that opens the models of an agent's owner.
        nodes: number of SuperNodes; their owners are called node-0, node-1, ...  A new deployment
            has 3.
        agents: number of agents; their owners are called agent-0, agent-1, ...  A new deployment
            has none.
        first_port: of those that follow each other: service, agents, enrolment, nodes, SuperLink,
            and one for each node; `None` for what the deployment has, 50051 for a new one.
        hosts: names and addresses under which other machines reach this one; empty for what the
            deployment has, a new one listens on loopback only.
    """

    node_factory: str | None = None
    agent_factory: str | None = None
    nodes: int | None = None
    agents: int | None = None
    first_port: int | None = None
    hosts: Sequence[str] = ()


def supervisor_of(folder: Path) -> Supervisor:
    """Return what keeps a deployment's programs running."""
    return Supervisor(folder / "logs")


def up(folder: Path, wanted: Wanted, say: Callable[[str], None] = lambda _: None) -> FleetFiles:
    """Start what is wanted, and wait until it can be reached.

    Args:
        folder: of the deployment; made at first.
        wanted: what is to run.
        say: told what is happening.

    Returns:
        Where everything is.

    Raises:
        InputError: if something is missing on this machine, or a port is taken.
        CampaignError: if something does not come up.
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
        (SUPERLINK, files.ports.superlink),
        (PROXY, files.ports.nodes),
    ):
        _wait_for_port(supervisor, name, port)
    say("coordinator, SuperLink and proxy are there")
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
    """Return the owners on this machine that no factory opens models for, with their folders.

    Args:
        files: of the deployment.

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
    """End everything that `up` started; return whether something ran.

    Args:
        folder: of the deployment.

    Raises:
        CampaignError: if it does not end.
    """
    ended = supervisor_of(folder.absolute()).end()
    end_stragglers(folder.absolute())
    return ended


@dataclass(frozen=True, slots=True)
class _Fleet:
    """Nodes and agents of a deployment, as they are remembered from one start to the next."""

    node_factory: str = _NODES_WITHOUT_MODELS
    agent_factory: str = _AGENTS_WITHOUT_MODELS
    nodes: int = 3
    agents: int = 0
    python_path: str = ""
    """Where the factories' modules may be, beside the installed ones."""


def _with_remembered(folder: Path, wanted: Wanted) -> _Fleet:
    """Return what is to run: what is wanted now, and what ran last where nothing is said."""
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
            f"Expected free ports for the deployment, but somebody listens at {taken}. End that, "
            "or choose others: make up PORT=51051."
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
