"""The example Flower app, trained and asked to forget by commands, on a SuperLink of its own."""

import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

from disinherit.deploy.files import HOST, listens
from tests import ROOT
from tests.acceptance.fleet.processes import Processes
from tests.support.flower_app import NAME
from tests.support.ports import free_ports

SECONDS = 600.0
"""At most, of anything that is waited for: what a slow machine with other work takes."""

SUPERLINK = "superlink"
_APP = str(ROOT / "examples" / "flower_app")
_CONNECTION = "wards"
_MODEL = re.compile(r"  run-\d+\.(\S+?)(?:~\S+)? +(\w+)")


@dataclass(frozen=True)
class FlowerRuns:
    """Runs of the example app.

    Attributes:
        processes: those of its SuperLink, and of what a test starts beside it.
        port: of the SuperLink.
        models: folder of the models of all.
    """

    processes: Processes
    port: int
    models: Path

    def train(self, rounds: int) -> None:
        """Train for some rounds."""
        config = f"num-server-rounds={rounds} fraction-evaluate=0.0"
        words = ["flwr", "run", _APP, _CONNECTION, "--stream", "--run-config", config]
        self.processes.run(words, SECONDS)

    def forget(self, *what: str) -> tuple[list[str], dict[str, str]]:
        """Have the app forget; return what is printed, and model -> its state."""
        words = ["disinherit", "flower", "forget", _APP, _CONNECTION, *what]
        lines = self.processes.run(words, SECONDS).splitlines()
        found = [match for match in map(_MODEL.match, lines) if match is not None]
        return lines, {match[1]: match[2] for match in found}

    def named(self) -> tuple[list[int], list[int]]:
        """Return the digits that the newest global model sees in all images, and the true ones."""
        layers = {"fc1": nn.Linear(64, 64), "relu": nn.ReLU(), "fc2": nn.Linear(64, 10)}
        network = nn.Sequential(OrderedDict(layers))
        network.load_state_dict(torch.load(self.models / NAME / "server/final_model.pt"))
        digits = load_digits()
        logits = network(torch.from_numpy(digits.data).float() / 16)
        return logits.argmax(1).tolist(), digits.target.tolist()


@contextmanager
def flower_runs(folder: Path, *options: str) -> Iterator[FlowerRuns]:
    """Start a SuperLink in a folder, where the app's ServerApps run, too.

    Args:
        folder: an empty one, for everything.
        options: of the SuperLink.
    """
    home, models = folder / "flwr", folder / "models"
    home.mkdir()
    (port,) = free_ports(1)
    connection = f'[superlink.{_CONNECTION}]\naddress = "{HOST}:{port}"\ninsecure = true\n'
    (home / "config.toml").write_text(f'[superlink]\ndefault = "{_CONNECTION}"\n{connection}')
    environment = {
        "FLWR_HOME": str(home),
        "DISINHERIT_FLOWER": str(models),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with chdir(folder), Processes(folder / "logs", environment) as processes:
        words = ["flower-superlink", "--insecure", "--host", HOST, "--port", str(port), *options]
        processes.start(SUPERLINK, words)
        processes.wait_for(SUPERLINK, "listen", lambda: listens(port), SECONDS)
        yield FlowerRuns(processes, port, models)
