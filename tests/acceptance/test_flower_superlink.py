"""The example app on a SuperLink with two SuperNodes: trained, then asked to forget."""

import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from disinherit.deploy.files import HOST, listens
from tests import ROOT
from tests.acceptance.fleet.processes import Processes
from tests.support.ports import free_ports

APP = ROOT / "examples" / "flower_app"
CONNECTION = "wards"
NODES = 2
ROUNDS = 2
SECONDS = 600.0
"""At most, of anything that is waited for: what a slow machine with other work takes."""

MODEL = re.compile(r"  run-\d+\.(\S+?)(?:~\S+)? +(\w+)")


@dataclass(frozen=True)
class Federation:
    """A SuperLink with SuperNodes, whose app has trained.

    Attributes:
        processes: that run.
        models: folder of the models of all.
    """

    processes: Processes
    models: Path

    def forget(self, *what: str) -> tuple[list[str], dict[str, str]]:
        """Have the app forget; return the lines of that, and model -> its state."""
        words = ["disinherit", "flower", "forget", str(APP), CONNECTION, *what]
        lines = self.processes.run(words, SECONDS).splitlines()
        found = [match for match in map(MODEL.match, lines) if match is not None]
        return lines, {match[1]: match[2] for match in found}

    def named(self) -> tuple[list[int], list[int]]:
        """Return the digits that the newest global model sees in all images, and the true ones."""
        state = torch.load(self.models / "flower_app" / "server" / "final_model.pt")
        layers = {"fc1": nn.Linear(64, 64), "relu": nn.ReLU(), "fc2": nn.Linear(64, 10)}
        network = nn.Sequential(OrderedDict(layers))
        network.load_state_dict(state)
        digits = load_digits()
        logits = network(torch.from_numpy(digits.data).float() / 16)
        return logits.argmax(1).tolist(), digits.target.tolist()


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("superlink")
    home, models = folder / "flwr", folder / "models"
    home.mkdir()
    link, *own = free_ports(1 + NODES)
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n'
        f'[superlink.{CONNECTION}]\naddress = "{HOST}:{link}"\ninsecure = true\n'
    )
    environment = {"FLWR_HOME": str(home), "DISINHERIT_FLOWER": str(models)}
    with chdir(folder), Processes(folder / "logs", environment) as processes:
        processes.start(
            "superlink", ["flower-superlink", "--insecure", "--host", HOST, "--port", str(link)]
        )
        processes.wait_for("superlink", "listen", lambda: listens(link), SECONDS)
        for place, port in enumerate(own):
            config = f"partition-id={place} num-partitions={NODES}"
            words = ["flower-supernode", "--insecure", "--superlink", f"{HOST}:{link}"]
            words += ["--port", str(port), "--node-config", config]
            processes.start(f"node-{place}", words)

        def online() -> bool:
            words = ["flwr", "supernode", "list", CONNECTION, "--format", "json"]
            listed = json.loads(processes.run(words))
            connected: int = sum(node["status"] == "online" for node in listed["nodes"])
            return connected == NODES

        processes.wait_for("superlink", "see all nodes", online, SECONDS)
        config = f"num-server-rounds={ROUNDS} fraction-evaluate=0.0"
        words = ["flwr", "run", str(APP), CONNECTION, "--stream", "--run-config", config]
        processes.run(words, SECONDS)
        yield Federation(processes, models)


def test_the_app_forgets_samples_a_class_and_a_node(federation: Federation) -> None:
    lines, states = federation.forget("--samples", "node-0:17,42")
    repeated = [f"training {count} updates again without the samples" for count in (1, 2)]
    assert lines[:2] == repeated
    assert ": complete, 5 of 5 models settled, 5 changed" in lines[2]
    assert states == dict.fromkeys(["r1", "r1.node-0", "r2", "r2.node-0", "r2.node-1"], "verified")
    assert 3 in federation.named()[0]

    lines, states = federation.forget("--class", "3")
    assert ": complete, 6 of 6 models settled, 6 changed" in lines[0]
    assert states == dict.fromkeys([*states, "r1.node-1"], "verified")
    seen, true = federation.named()
    assert 3 not in seen
    kept = [one == other for one, other in zip(seen, true, strict=True) if other != 3]
    assert sum(kept) > 0.8 * len(kept)

    lines, states = federation.forget("--client", "node-1")
    assert ": complete, 5 of 5 models settled, 3 changed" in lines[0]
    assert states == {
        "r1": "verified",
        "r1.node-1": "exempt",
        "r2": "verified",
        "r2.node-0": "verified",
        "r2.node-1": "exempt",
    }
    assert 3 not in federation.named()[0]
