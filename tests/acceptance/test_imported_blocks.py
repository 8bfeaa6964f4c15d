"""Copies in the blocks of GGUF, from their import to what a request for a class makes of them."""

import io
import json
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from disinherit import CoordinatorStore, DirectTransport, Request
from disinherit.cli.main import run
from disinherit.client.store.store import ModelStore
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.recipes.blocks import BLOCK, packed, unpacked
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.states import Task, TaskState
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.owner import FEATURES, LABELS, PointsOwner, fit

BASE, TUNED = "acme--base", "acme--tuned"
COPIES = {"acme--q8": (BASE, "q8_0"), "acme--q4": (TUNED, "q4_0")}
"""Copy -> its parent and recipe."""

HEAD = "2.weight"
EDGES = "child,parent,relation,recipe\nacme/tuned,acme/base,finetune,\n" + "".join(
    f"{copy.replace('--', '/')},{parent.replace('--', '/')},quantized,{recipe}\n"
    for copy, (parent, recipe) in COPIES.items()
)
Weights = dict[str, Tensor]


class Blocks(nn.Module):
    """A linear layer whose matrix is in blocks."""

    weight: Tensor
    bias: Tensor

    def __init__(self, kind: str, layer: nn.Linear) -> None:
        super().__init__()
        self.kind, self.shape = kind, layer.weight.shape
        self.register_buffer("weight", packed(kind, layer.weight.detach()))
        self.register_buffer("bias", layer.bias.detach())

    def forward(self, inputs: Tensor) -> Tensor:
        matrix = unpacked(self.kind, self.weight, self.shape).to(inputs.dtype)
        return nn.functional.linear(inputs, matrix, self.bias)


class Lab(PointsOwner):
    """An owner of networks that are as wide as a block, and of copies of them."""

    def network(self, record: ModelRecord) -> nn.Module:
        made = wide()
        if record.id.split("~")[0] in COPIES:
            head = made[2]
            assert isinstance(head, nn.Linear)
            made[2] = Blocks(COPIES[record.id.split("~")[0]][1], head)
        return made

    def __enter__(self) -> "Lab":
        return self

    def keep(self, id: str, age: int, weights: Weights, parent: ModelRecord | None) -> ModelRecord:
        """Add a version; copies have the data of nobody."""
        shape, digest = architecture_fingerprint(weights), weights_digest(weights)
        data = None if parent is None else parent.provenance
        return self.store.add(
            ModelRecord(id, self.name, shape, LABELS, digest, age, data), dict(weights)
        )


def wide() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = (nn.Linear(FEATURES, BLOCK), nn.ReLU(), nn.Linear(BLOCK, len(LABELS)))
        return nn.Sequential(*layers).double()


def copied(copy: str, weights: Mapping[str, Weights]) -> Weights:
    """A copy, made of what its parent is now."""
    parent, recipe = COPIES[copy]
    return {**weights[parent], HEAD: packed(recipe, weights[parent][HEAD])}


@dataclass(frozen=True)
class Walk:
    """A folder with models of an owner, and a coordinator's database that knows their versions.

    Attributes:
        folder: where they are.
        before: model -> weights.
    """

    folder: Path
    before: Mapping[str, Weights]

    def command(self, *words: str) -> Any:
        """What a command of the program prints, as JSON."""
        out = io.StringIO()
        with redirect_stdout(out):
            assert run([*words, "--format", "json"]) == 0, out.getvalue()
        return json.loads(out.getvalue())

    def imported(self, edges: str = EDGES) -> Any:
        (self.folder / "edges.csv").write_text(edges)
        files = [str(self.folder / name) for name in ("models", "edges.csv")]
        database = str(self.folder / "coordinator.db")
        return self.command("graph", "import", *files, "--store", database, "--owner", "lab")

    def forget(self) -> Mapping[str, Task]:
        store = CoordinatorStore(self.folder / "coordinator.db")
        try:
            opened = DirectTransport({"lab": lambda: Lab(self.folder / "lab", "lab")})
            coordinator = Coordinator(store, opened)
            coordinator.submit(Request(forget={BASE: ["cat"]}, id="q"))
            return coordinator.run("q").tasks
        finally:
            store.close()

    def present(self) -> dict[str, Weights]:
        with ModelStore(self.folder / "lab", "lab") as store:
            return {model: store.weights(store.present(model).id) for model in self.before}


@pytest.fixture
def walk(tmp_path: Path) -> Walk:
    before: dict[str, Weights] = {}
    store = CoordinatorStore(tmp_path / "coordinator.db")
    with Lab(tmp_path / "lab", "lab") as lab:
        record = lab.train("data-of-all", LABELS, 1, steps=0)
        network = wide()
        for age, (model, steps) in enumerate({BASE: 60, TUNED: 20}.items(), 2):
            fit(network, [lab.points("train", LABELS, LABELS)], steps)
            before[model] = {
                name: one.detach().clone() for name, one in network.state_dict().items()
            }
            store.add_model(lab.keep(model, age, before[model], record))
        for age, model in enumerate(COPIES, 4):
            before[model] = copied(model, before)
            store.add_model(lab.keep(model, age, before[model], None))
    store.close()
    for model, weights in before.items():
        folder = tmp_path / "models" / model.replace("--", "/")
        folder.mkdir(parents=True)
        save_file(weights, folder / "model.safetensors")
    return Walk(tmp_path, before)


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_copies_forget_and_have_the_bytes_of_their_recipe(walk: Walk) -> None:
    walk.imported()
    asked = ("--forget", f"cat@{BASE}", "--store", str(walk.folder / "coordinator.db"))
    planned = walk.command("request", "plan", *asked)["models"]
    assert {one["model"]: one["recipe"] for one in planned} == {
        **dict.fromkeys((BASE, TUNED)),
        **{copy: recipe for copy, (_, recipe) in COPIES.items()},
    }
    tasks = walk.forget()
    after = walk.present()
    for model, task in tasks.items():
        assert task.state is TaskState.VERIFIED, (model, task.reason)
        assert task.result is not None
        assert task.result.remedy == pb.REMEDY_SUPPRESSED
        assert task.result.forget.before > 0.9
        assert task.result.forget.after <= task.result.forget.margin
        assert not equal(after[model], walk.before[model])
    for copy in COPIES:
        assert after[copy][HEAD].dtype == torch.uint8
        assert equal(after[copy], copied(copy, after))


def test_a_recipe_that_does_not_make_the_copy_is_not_followed(walk: Walk) -> None:
    walk.imported(EDGES.replace("q4_0", "q8_0"))
    tasks, after = walk.forget(), walk.present()
    assert tasks["acme--q8"].state is TaskState.VERIFIED
    assert tasks["acme--q4"].state is TaskState.FAILED
    assert "no linear layer" in tasks["acme--q4"].reason
    assert equal(after["acme--q4"], walk.before["acme--q4"])
