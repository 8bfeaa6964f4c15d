"""A merge and its quantised copy, made again bit for bit after a root was unlearned."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from disinherit.client.store.store import ModelStore
from disinherit.common.graph.recipes import Recipe, as_recipe
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.common.method import Method
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.recipes.computing import Parent, compute
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.wire.requests import Request
from disinherit.direct import DirectTransport
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.store.store import CoordinatorStore
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.owner import LABELS, make_network, named
from tests.support.retraining_owner import RetrainingOwner

TIES = as_recipe("ties density=0.5 weights=1,0.5")
EDGES = {"merged": {"base": 0.4, "r": 0.4, "u": 0.2}, "small": {"merged": 1.0}}
Weights = dict[str, Tensor]


class Rounded(nn.Module):
    """A layer with 8-bit integers, multiplied by the largest value of each row."""

    weight: Tensor
    SCB: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros_like(layer.weight, dtype=torch.int8))
        self.register_buffer("SCB", torch.ones(layer.out_features))
        self.register_buffer("bias", torch.zeros_like(layer.bias))

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.weight.double() * self.SCB[:, None] / 127
        return nn.functional.linear(x, matrix, self.bias)


def rounded_network() -> nn.Module:
    network = make_network()
    network[0], network[2] = Rounded(network[0]), Rounded(network[2])  # type: ignore[arg-type]
    return network


class Family(RetrainingOwner):
    """An owner whose quantised copies have layers of their own."""

    def network(self, record: ModelRecord) -> nn.Module:
        copied = record.id.startswith("small")
        return rounded_network() if copied else super().network(record)


def made(model: str, weights: Mapping[str, Weights]) -> Weights:
    recipe, like = TIES, weights["base"]
    if model == "small":
        recipe, like = Recipe("int8"), rounded_network().state_dict()
    parents = [Parent(lambda name=name: weights[name], w) for name, w in EDGES[model].items()]  # type: ignore[misc]
    return compute(recipe, parents, like)


def stored(root: Path, models: Sequence[str]) -> dict[str, Weights]:
    with ModelStore(root / "anna", "anna") as store:
        return {model: store.weights(store.present(model).id) for model in models}


def test_merges_and_their_quantised_copies_are_made_again(tmp_path: Path) -> None:
    coordinator = Coordinator(
        CoordinatorStore(tmp_path / "coordinator.db"),
        DirectTransport({"anna": lambda: Family(tmp_path / "anna", "anna")}),
    )
    add = coordinator.store.add_model
    with Family(tmp_path / "anna", "anna") as anna:
        add(anna.train("base", LABELS, 1), [])
        before: dict[str, Weights] = {"base": anna.store.weights("base")}
        for age, (model, classes) in enumerate({"r": LABELS[:2], "u": LABELS[1:]}.items(), 2):
            record = anna.train(model, classes, age, [before["base"]])
            add(record, [Inheritance("base", model, InheritanceKind.INCREMENTAL)])
            before[model] = anna.store.weights(model)
        for age, (model, parents) in enumerate(EDGES.items(), 4):
            before[model] = made(model, before)
            shape = architecture_fingerprint(before[model])
            record = ModelRecord(model, "anna", shape, LABELS, weights_digest(before[model]), age)
            recipe = TIES if model == "merged" else Recipe("int8")
            edges = [
                Inheritance(parent, model, InheritanceKind.TRANSFER, weight, {}, recipe, place)
                for place, (parent, weight) in enumerate(parents.items(), 1)
            ]
            add(anna.store.add(record, before[model]), edges)
    method = Method(mechanism="delta", root_method="replay", scope="all", repair_steps=0)
    samples = {"r": named(tmp_path / "anna", ["cat-0", "cat-1", "dog-2"])}
    coordinator.submit(Request(samples=samples, method=method, id="q"))
    tasks = coordinator.run("q").tasks
    after = stored(tmp_path, [*before])
    for model in EDGES:
        result = tasks[model].result
        assert result is not None
        assert result.remedy == pb.REMEDY_REBUILT, result.error
        expected = made(model, after)
        assert any(not torch.equal(after[model][name], before[model][name]) for name in expected)
        assert all(torch.equal(after[model][name], value) for name, value in expected.items())
