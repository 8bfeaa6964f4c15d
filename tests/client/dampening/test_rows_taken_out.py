"""A class request at head scope never forgets less than resetting the rows, whatever the model.

Through an owner with a real store, on held-out data: perfect fits, classes from 1:1 to 1:3000,
features of either sign, renamed classes, clients of one class, every precision.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening.summaries import register
from disinherit.client.outcome.class_counts import chance_margin
from disinherit.client.owner.owner import Batches
from disinherit.client.store.store import ModelStore
from disinherit.common.graph.records import ModelRecord, Provenance
from disinherit.common.wire.packets import PackedFisher, merge
from disinherit.describing import describe_model
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import collect, make_method, make_task
from tests.support.head_census import shim_torchvision

INPUTS, WIDTH = 6, 12
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "norm": lambda: nn.LayerNorm(WIDTH),
    "none": nn.Identity,
}


def points(counts: list[int], seed: int, spread: float = 0.5) -> tuple[Tensor, Tensor]:
    """Points around one corner for each class."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    centres = 3 * torch.eye(INPUTS)[torch.arange(len(counts)) % INPUTS]
    noise = torch.randn(len(targets), INPUTS, generator=generator)
    return centres[targets] + spread * noise, targets


class Owner:
    """An owner of models of one architecture, each with a training split of its own."""

    device = torch.device("cpu")

    def __init__(
        self, root: Path, build: Callable[[], nn.Module], dtype: torch.dtype, *, tuning: bool
    ) -> None:
        self.store = ModelStore(root, "anna")
        self.build, self.dtype, self.tuning = build, dtype, tuning
        self.train: dict[str, tuple[Tensor, Tensor]] = {}
        self.silent: set[str] = set()
        """Models whose data is gone."""

    def add(self, name: str, counts: list[int], labels: list[str], start: Any = None) -> None:
        """Train a model in float32 and store it in the owner's precision."""
        network = self.build().float()
        if start is not None:
            network.load_state_dict(start)
        inputs, targets = points(counts, seed=1)
        inputs = inputs.to(self.dtype).float()
        optimizer = torch.optim.Adam(network.parameters(), 0.02)
        for _ in range(150 if start is None else 10):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs), targets).backward()
            optimizer.step()
        self.train[name] = inputs.to(self.dtype), targets
        network = network.to(self.dtype)
        record = describe_model(
            name,
            network,
            owner="anna",
            labels=labels,
            created_us=1 + len(self.train),
            provenance=Provenance("points", dict(zip(labels, counts, strict=True))),
        )
        self.store.add(record, network.state_dict())

    def network(self, record: ModelRecord) -> nn.Module:
        return self.build().to(self.dtype)

    def training_data(self, record: ModelRecord) -> Batches | None:
        model = record.id.split("~")[0]
        return None if model in self.silent else [self.train[model]]

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        inputs, targets = points([20] * len(record.labels), seed=2)
        silent = record.id.split("~")[0] in self.silent
        return [(inputs.to(self.dtype), targets)] if self.tuning and not silent else None

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        return None


def outputs(network: nn.Module, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
    network.load_state_dict(weights)
    with torch.no_grad():
        logits: Tensor = network.eval()(inputs)
    return logits.double()


def reset(weights: dict[str, Tensor], head: tuple[str, str | None], row: int) -> dict[str, Tensor]:
    """The weights with the row zero, and masked by its bias where there is one."""
    new = {name: value.clone() for name, value in weights.items()}
    new[head[0]][row] = 0
    if head[1] is not None:
        new[head[1]][row] = new[head[1]].min() - 30
    return new


def check(owner: Owner, name: str, head: tuple[str, str | None], row: int, inputs: Tensor) -> None:
    """Compare what a model was, what it became, and what a reset row would have made of it."""
    classes = len(owner.store.record(name).labels)
    network = owner.network(owner.store.record(name))
    before, after = (owner.store.weights(model) for model in (name, f"{name}~forget"))
    kept = [c for c in range(classes) if c != row]
    was, found = (outputs(network, weights, inputs) for weights in (before, after))
    assert torch.equal(was[:, kept].argmax(1), found[:, kept].argmax(1))
    beside = outputs(network, reset(before, head, row), inputs)
    assert (found.argmax(1) == row).sum() <= (beside.argmax(1) == row).sum()


@settings(max_examples=25, deadline=None)
@given(
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    counts=st.sampled_from(
        [[30, 30, 30], [300, 30, 30], [1000, 50, 50], [3000, 1, 30], [1, 300, 300], [30] * 5]
    ),
    row=st.integers(0, 2),
    child=st.sampled_from([None, "all", "one class", "renamed"]),
    spread=st.sampled_from([0.05, 0.8]),
    tuning=st.booleans(),
)
def test_request_never_forgets_less_than_resetting_the_row(
    tmp_path_factory: pytest.TempPathFactory,
    activation: str,
    dtype: torch.dtype,
    counts: list[int],
    row: int,
    child: str | None,
    spread: float,
    tuning: bool,
) -> None:
    labels = [f"c{i}" for i in range(len(counts))]

    def build() -> nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return nn.Sequential(
                nn.Linear(INPUTS, WIDTH),
                ACTIVATIONS[activation](),
                nn.Linear(WIDTH, len(counts)),
            )

    owner = Owner(tmp_path_factory.mktemp("rows"), build, dtype, tuning=tuning)
    owner.add("root", counts, labels)
    named = list(labels)
    if child == "renamed":
        named[row] = "otherwise"
    if child is not None:
        start = {n: v.float() for n, v in owner.store.weights("root").items()}
        own = [(20 if i == row else 0) if child == "one class" else 20 for i in range(len(counts))]
        owner.add("child", own, named, start)
    register(owner, pb.RegisterTask(scope="head"))
    method = make_method(alpha=None, lam=None, gauge=None, rescale=True)
    packet = collect(owner, "root", [labels[row]], method)
    models = [("root", packet)]
    if child is not None:
        renamed, tensors = merge(
            [PackedFisher.from_packet(packet).renamed({labels[row]: named[row]})], "max"
        )
        renamed.tensors = tensors
        models.append(("child", renamed))
    inputs = points([60] * len(counts), seed=3, spread=spread)[0].to(dtype)
    for model, sent in models:
        (result,) = unlearn(owner, make_task(owner, [model], sent, method)).models
        assert result.outcome == pb.OUTCOME_APPLIED, result.error
        check(owner, model, ("2.weight", "2.bias"), row, inputs)
    owner.store.close()


@settings(max_examples=25, deadline=None)
@given(
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    bias=st.booleans(),
    order=st.integers(2, 4).flatmap(lambda count: st.permutations(range(count))),
    seed=st.integers(0, 5),
    tuning=st.booleans(),
)
def test_no_class_comes_back_when_classes_are_forgotten_one_after_another(
    tmp_path_factory: pytest.TempPathFactory,
    activation: str,
    bias: bool,
    order: list[int],
    seed: int,
    tuning: bool,
) -> None:
    """Down to one class, in a root and in a child without data, with and without a bias."""
    count = len(order)
    labels = [f"c{i}" for i in range(count)]

    def build() -> nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Sequential(
                nn.Linear(INPUTS, WIDTH),
                ACTIVATIONS[activation](),
                nn.Linear(WIDTH, count, bias=bias),
            )

    owner = Owner(tmp_path_factory.mktemp("rows"), build, torch.float32, tuning=tuning)
    owner.add("root", [30] * count, labels)
    own = [0 if i == order[0] else 20 for i in range(count)]
    owner.add("child", own, labels, owner.store.weights("root"))
    register(owner, pb.RegisterTask(scope="head"))
    owner.silent.add("child")
    method = make_method(alpha=None, lam=None, gauge=None, rescale=True)
    versions = {"root": "root", "child": "child"}
    inputs, targets = points([60] * count, seed=3)
    for turn, row in enumerate(order):
        gone, kept = order[: turn + 1], order[turn + 1 :]
        packet = collect(owner, "root", [labels[row]], method)
        for model, version in list(versions.items()):
            task = make_task(owner, [version], packet, method, f"q{turn}")
            (result,) = unlearn(owner, task).models
            if result.outcome in (pb.OUTCOME_INEFFECTIVE, pb.OUTCOME_HARMFUL):
                assert not kept or (len(kept) == 1 and not bias), result.error
                assert kept or "retire the model instead" in result.error
                del versions[model]
                continue
            assert result.outcome == pb.OUTCOME_APPLIED, result.error
            versions[model] = result.successor.id
            network = owner.network(owner.store.record(model))
            shown, of = (inputs, targets) if model in owner.silent else owner.train[model]
            was, found = (
                outputs(network, owner.store.weights(name), shown)
                for name in (model, versions[model])
            )
            assert torch.equal(was[:, kept].argmax(1), found[:, kept].argmax(1))
            for c in gone:
                named = (found[of == c].argmax(1) == c).double().mean()
                assert named <= chance_margin(int((of == c).sum()))
    assert not versions, "at least one class is kept"
    owner.store.close()


@pytest.mark.parametrize("row", [0, 2])
def test_a_tiny_bert_forgets_at_its_pooler(tmp_path: Path, row: int) -> None:
    """Its head gets what comes out of a tanh."""
    shim_torchvision()  # which transformers imports, where it is installed
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.bert = transformers.BertForSequenceClassification(config)

        def forward(self, inputs: Tensor) -> Tensor:
            words = inputs.abs().mul(4).long().clamp(max=39)
            logits: Tensor = self.bert(input_ids=words).logits
            return logits

    owner = Owner(tmp_path, Logits, torch.float32, tuning=False)
    owner.add("root", [40, 40, 40], ["a", "b", "c"])
    register(owner, pb.RegisterTask(scope="head"))
    method = make_method(alpha=None, lam=None, gauge=None)
    packet = collect(owner, "root", ["abc"[row]], method)
    (result,) = unlearn(owner, make_task(owner, ["root"], packet, method)).models
    assert result.outcome == pb.OUTCOME_APPLIED, result.error
    head = ("bert.classifier.weight", "bert.classifier.bias")
    inputs, targets = points([40, 40, 40], seed=3)
    network = owner.network(owner.store.record("root"))
    was = outputs(network, owner.store.weights("root"), inputs).argmax(1)
    assert (was[targets == row] == row).double().mean() > 0.5, "it knew the class"
    check(owner, "root", head, row, inputs)
    owner.store.close()
