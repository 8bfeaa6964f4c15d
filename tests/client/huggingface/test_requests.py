"""Requests to models of transformers: classes in a family with an adapter, sequences by dampening,
an adapter as a root, and the data sets and collators that people have.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from disinherit import Method, Network
from disinherit.client.roots import training
from disinherit.client.roots.fine_tuning import RootFineTuning
from disinherit.client.roots.problems import root_problem
from disinherit.client.store.store import ModelStore
from disinherit.common.graph.recipes import as_recipe
from disinherit.common.recipes.computing import Parent, compute
from tests.support.huggingface import (
    bert,
    counting,
    fit,
    fit_classifier,
    images,
    library,
    llama,
    lora,
    require,
    sequences,
    texts,
    vit,
)

require()
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in v6:FutureWarning")

from disinherit.client.huggingface.batches import adapt, make_loader  # noqa: E402
from disinherit.client.huggingface.owner import HuggingFaceOwner  # noqa: E402


def test_a_class_is_forgotten_in_a_text_classifier_and_its_adapter() -> None:
    rows, more, unseen = texts(30, 1), texts(30, 2), texts(30, 3)
    base = fit_classifier(bert(), rows, 40)
    adapter = lora(copy.deepcopy(base), ["query"], modules_to_save=["classifier"])
    fit_classifier(adapter, more, 10)
    network = Network(labels=["no", "yes", "perhaps"])
    inner = adapt(adapter, rows)
    network.add(
        "base", adapt(base, rows), make_loader(rows, base), evaluate=make_loader(unseen, base)
    )
    network.add(
        "adapter",
        inner,
        make_loader(more, inner),
        parents="base",
        evaluate=make_loader(unseen, inner),
    )
    result = network.forget("yes")
    assert result.complete, str(result)
    assert result["adapter"].scope == "head"
    for model in (base, adapter):
        named = model(**stacked(unseen)).logits.argmax(1).tolist()
        assert 1 not in named
        right = [got == row["label"] for got, row in zip(named, unseen, strict=True)]
        assert sum(right) >= 18, "the other classes, of which there are 20"


def test_a_classifier_made_of_a_language_model_inherits_its_change() -> None:
    forget, kept = sequences(3, 1), counting(12, 1)
    rows, own = [*forget, *kept], texts(9, 2)
    base = fit(llama(), rows, 60)
    names = {0: "a", 1: "b", 2: "c"}
    config = library().LlamaConfig(**{**base.config.to_dict(), "id2label": names})
    child = library().LlamaForSequenceClassification(config)
    child.load_state_dict(base.state_dict(), strict=False)
    before = copy.deepcopy(fit_classifier(child, own, 10).state_dict())

    def again(batches: Any) -> Any:
        if batches is None:
            return adapt(llama(), rows).state_dict()
        whole = sum(len(targets) for _, targets in batches) == len(rows)
        return adapt(fit(llama(), rows if whole else kept, 60), rows).state_dict()

    network = Network(labels=("<sequence>", "<other>"), scope="all")
    network.add("base", adapt(base, rows), make_loader(rows, base), retrain=again)
    loader = make_loader(own, child)
    network.add("child", adapt(child, own), loader, labels=names.values(), parents="base")
    result = network.forget(samples=[0, 1, 2], root="base")
    assert result["base"].remedy == "replayed", str(result)
    assert result["child"].changes == {"base": 1.0}, str(result)
    after = child.state_dict()
    assert {n for n, value in before.items() if torch.equal(value, after[n])} == set()


def stacked(rows: list[dict[str, Any]]) -> dict[str, Any]:
    model = bert()
    inputs = [batch for batch, _ in make_loader(rows, model, batch_size=len(rows))]
    ((ids, mask),) = inputs
    return {"input_ids": ids, "attention_mask": mask}


def test_a_class_is_forgotten_in_an_image_classifier() -> None:
    rows = images(12, 1)
    model = fit_classifier(vit(), rows, 40)
    network = Network(labels=["a", "b", "c"])
    network.add("vit", adapt(model, rows), make_loader(rows, model))
    assert network.forget("b").complete
    pixels = torch.stack([row["pixel_values"] for row in rows])
    assert 1 not in model(pixel_values=pixels).logits.argmax(1).tolist()


def test_sequences_are_dampened_by_their_fisher_information() -> None:
    forget, kept = sequences(3, 1), counting(12, 1)
    model = fit(llama(), [*forget, *kept], 100)
    network = Network(labels=("<sequence>", "<other>"), scope="all")
    data = [*forget, *kept]
    network.add("m", adapt(model, data), make_loader(data, model))
    method = Method(scope="all", mechanism="fisher", alpha=3.0, lam=0.1, gauge=0.0)
    outcome = network.forget(samples=[0, 1, 2], method=method)["m"]
    assert 0 < outcome.selected < outcome.total
    assert outcome.forget is not None
    assert outcome.forget.named is not None
    assert outcome.forget.named[0] > outcome.forget.named[1]


def test_a_language_model_that_would_be_ruined_stays_as_it_is() -> None:
    """It knows nothing by heart, so no accuracy shows it."""
    data = sequences(8, 3)
    model = fit(llama(), data, 20)
    before = copy.deepcopy(model.state_dict())
    network = Network(labels=("<sequence>", "<other>"), scope="all")
    network.add("m", adapt(model, data), make_loader(data, model))
    method = Method(scope="all", mechanism="fisher", alpha=0.001, lam=0.001, gauge=0.0)
    outcome = network.forget(samples=[0], method=method)["m"]
    assert outcome.state == "harmful", outcome
    assert "its mean loss on 7 retained training sequences would rise" in outcome.reason
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.fixture
def owner(tmp_path: Path) -> Any:
    with HuggingFaceOwner(ModelStore(tmp_path / "store", "anna")) as opened:
        yield opened


def test_only_the_adapter_of_a_root_is_trained(
    owner: HuggingFaceOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "LEAST_STEPS", 20)
    model = lora(llama(), task_type="CAUSAL_LM")
    record = owner.add("adapter", model, sequences(6, 1), ids="id")
    problem = root_problem(owner, record, Method(scope="all"), "q", ["s1-0"])
    made = RootFineTuning().unlearn(problem)
    changed = [n for n, v in problem.weights.items() if not torch.equal(v, made.weights[n])]
    assert [name.split(".")[-3] for name in sorted(changed)] == ["lora_A", "lora_B"]


def test_an_adapter_is_folded_by_its_recipe(owner: HuggingFaceOwner) -> None:
    base = llama()
    weights = copy.deepcopy(base.state_dict())
    model = lora(base, ["q_proj", "v_proj"], task_type="CAUSAL_LM")
    owner.add("adapter", model, sequences(2, 1))
    folded = copy.deepcopy(model).merge_and_unload().state_dict()
    parents = [Parent(lambda: weights, 1.0), Parent(lambda: owner.store.weights("adapter"), 1.0)]
    found = compute(as_recipe("fold scale=4.0"), parents, folded)
    for name, value in folded.items():
        assert torch.equal(found[name], value), name


def test_data_sets_and_collators_of_the_libraries_are_taken(owner: HuggingFaceOwner) -> None:
    datasets, transformers = library("datasets"), library()
    rows = datasets.Dataset.from_list(sequences(5, 1))
    plain = owner.add("rows", llama(), rows, ids="id")
    assert [*owner.sample_ids(plain)] == [f"s1-{index}" for index in range(5)]

    def collate(some: list[dict[str, Any]]) -> Any:
        """As a data collator with the tokenizer of a model does, from the left."""
        width = max(len(row["input_ids"]) for row in some)
        blanks = [width - len(row["input_ids"]) for row in some]
        pairs = list(zip(blanks, some, strict=True))
        batch = {
            "input_ids": torch.tensor([[0] * blank + row["input_ids"] for blank, row in pairs]),
            "attention_mask": torch.tensor(
                [[0] * blank + [1] * (width - blank) for blank, _ in pairs]
            ),
        }
        return transformers.BatchEncoding(batch)

    loader = DataLoader(rows, batch_size=2, shuffle=True, collate_fn=collate)
    owner.add("loader", llama(), loader)
    batches = owner.training_data(owner.store.record("loader"))
    assert batches is not None
    widths = [[tuple(value.shape) for value in inputs] for inputs, _ in batches]
    assert widths == [[(5, 9)] * 3], "in the order of the rows, all as wide as the widest"
    ((inputs, _),) = batches
    tokens, mask, labels = inputs
    assert torch.equal(labels, tokens.where(mask.bool(), -100))
