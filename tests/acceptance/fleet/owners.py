"""The owners of a simulated run as owners of a real fleet: behind agents and Flower's nodes.

They are in the run's folder, which its `run.json` marks as such.
"""

from pathlib import Path

from flwr.app import Context

from disinherit.client.agent import AgentConfig
from disinherit.simulations.run.folder import load_settings
from disinherit.simulations.run.owners import SimulatedOwner


def open_for_agent(config: AgentConfig) -> SimulatedOwner:
    """Open the owner of an agent; its state is in a folder of the run's."""
    return _open(config.state.parent, config.owner)


def open_for_node(context: Context) -> SimulatedOwner:
    """Open the owner of a Flower node; its configuration names the run's folder."""
    return _open(Path(str(context.node_config["folder"])), str(context.node_config["owner"]))


def _open(folder: Path, owner: str) -> SimulatedOwner:
    return SimulatedOwner(load_settings(folder), int(owner.rpartition("-")[2]), folder)
