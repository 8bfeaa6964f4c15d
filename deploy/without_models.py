"""Owner without models: the default of nodes and agents until they are configured.

It reports no models, so a fleet can be set up and inspected before there are any.
"""

from pathlib import Path

import torch
from flwr.app import Context
from torch import nn

from disinherit.client.agent import AgentConfig
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import DataError
from disinherit.common.graph.records import ModelRecord


class WithoutModels:
    """An owner (`disinherit.client.owner.owner.Owner`) without networks and data.

    Args:
        folder: folder of its store.
        owner: its name.
    """

    def __init__(self, folder: Path, owner: str) -> None:
        self.store = ModelStore(folder, owner)
        self.device = torch.device("cpu")

    def __enter__(self) -> "WithoutModels":
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def network(self, record: ModelRecord) -> nn.Module:
        """Refuse, since no factory is configured.

        Raises:
            DataError: always.
        """
        raise DataError(
            f"Expected a function that opens the models of {self.store.owner!r}, but none is "
            f"configured, so {record.id!r} cannot be opened: make up FACTORY=module:function."
        )

    def training_data(self, record: ModelRecord) -> None:
        """Return `None`: there is no data."""

    def tuning_data(self, record: ModelRecord) -> None:
        """Return `None`: there is no data."""

    def evaluation_data(self, record: ModelRecord) -> None:
        """Return `None`: there is no data."""


def open_for_agent(config: AgentConfig) -> WithoutModels:
    """Open the owner of an agent; its store is in the agent's folder."""
    return WithoutModels(config.state / "models", config.owner)


def open_for_node(context: Context) -> WithoutModels:
    """Open the owner of a Flower node, whose configuration names its folder."""
    config = context.node_config
    return WithoutModels(Path(str(config["folder"])), str(config["owner"]))
