"""The files of a fleet that starts from a simulated run: its models, and what processes need."""

from collections.abc import Sequence
from pathlib import Path

from disinherit.deploy.files import (
    FleetFiles,
    Ports,
    write_agent,
    write_coordinator,
    write_nodes,
)
from disinherit.simulations.run.folder import DATABASE
from tests.support.ports import free_ports
from tests.support.runs import copy_run

_AGENT_FACTORY = "tests.acceptance.fleet.owners:open_for_agent"


def write_files(
    start: Path, root: Path, database: str | None, agents: Sequence[str], nodes: Sequence[str]
) -> FleetFiles:
    """Copy a run's models and write the configuration of a fleet for them.

    Args:
        start: folder of the run.
        root: folder of the fleet; made.
        database: URL of an empty one for the coordinator; `None` for SQLite.
        agents: owners that are reached through agents.
        nodes: owners that are reached through SuperNodes.

    Returns:
        Where everything is.
    """
    copy_run(start, root, database)
    files = FleetFiles(root, Ports(*free_ports(5)))
    write_coordinator(files, database or DATABASE, approval=False)
    for owner in agents:
        write_agent(files, owner, _AGENT_FACTORY)
    write_nodes(files, nodes)
    return files
