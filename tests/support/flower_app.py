"""The example Flower app in this process: it trains, and requests are served on it.

Import it before anything of Flower: what Flower itself imports may warn.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from tests import ROOT
from tests.support.direct_grid import DirectGrid  # first of all that imports Flower

from flwr.app import Context, Message, RecordDict  # isort: skip
from flwr.clientapp import ClientApp  # isort: skip
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto  # isort: skip

APP = ROOT / "examples" / "flower_app"
STOCK = ROOT / "examples" / "flower_app_stock"
NAME = "disinherit.flower-app"
"""Name of its project, and of the folder with its models."""

Config = Mapping[str, bool | float | int | str]
CONFIG: Config = {
    "num-server-rounds": 2,
    "fraction-evaluate": 0.0,
    "local-epochs": 3,
    "learning-rate": 0.1,
    "batch-size": 32,
}


class AppGrid(DirectGrid):
    """A grid of nodes of an app, each with a run configuration.

    Args:
        app: what every node runs.
        nodes: number of nodes.
        run: number of the run.
        config: of the run.
    """

    def __init__(self, app: ClientApp, nodes: int, run: int = 5, config: Config = CONFIG) -> None:
        super().__init__(app, nodes)
        self._run = run
        self.away: set[int] = set()
        for context in self._contexts.values():
            context.run_config = dict(config)

    @property
    def run(self) -> Any:
        return SimpleNamespace(run_id=self._run, fab_id="")

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = list(super().push_messages(_sent(message) for message in messages))
        self._replies = {id: _sent(reply) for id, reply in self._replies.items()}
        return ids

    def get_node_ids(self) -> list[int]:
        return [node for node in super().get_node_ids() if node not in self.away]


def _sent(message: Message) -> Message:
    """A message whose content is what arrives of it at the other end."""
    if message.has_content():
        message.content = recorddict_from_proto(recorddict_to_proto(message.content))
    return message


def context_of(config: Config = CONFIG) -> Context:
    """The context of a ServerApp."""
    return Context(5, 0, {}, RecordDict(), dict(config))


@contextmanager
def example_app(models: Path, app: Path = APP) -> Iterator[Callable[[str], Any]]:
    """Import modules of an app during the block, with models in a folder; the app runs in it."""
    before, place = os.environ.get("DISINHERIT_FLOWER"), Path.cwd()
    os.environ["DISINHERIT_FLOWER"] = str(models)
    sys.path.insert(0, str(app))
    models.mkdir(exist_ok=True)
    os.chdir(models)
    packages = {path.name for path in app.iterdir() if path.is_dir()}
    try:
        torch.manual_seed(0)
        yield importlib.import_module
    finally:
        os.chdir(place)
        sys.path.remove(str(app))
        for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
            del sys.modules[name]
        if before is None:
            del os.environ["DISINHERIT_FLOWER"]
        else:
            os.environ["DISINHERIT_FLOWER"] = before
