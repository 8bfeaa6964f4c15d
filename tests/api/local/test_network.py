"""A network of models in one process: real training, and classes that all heirs forget."""

import copy
import gc
import json
import pickle
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from disinherit import (
    Coordinator,
    CoordinatorStore,
    DirectTransport,
    Method,
    Network,
    Request,
    RequestError,
)
from disinherit.common.graph.records import ModelRecord
from disinherit.common.tensors.checkpoints import weights_digest
from tests.support.blobs import accuracy, blobs, trained
from tests.support.local_networks import ALL, LABELS, added, loader, shown


def test_all_that_inherited_a_class_forget_it_and_nobody_else(network: Network) -> None:
    stranger = weights_digest(added(network, "stranger").state_dict())
    added(network, "base").train()
    added(network, "child").eval()
    result = network.forget("cat", root="base")

    assert added(network, "base").training
    assert not added(network, "child").training
    assert result.complete
    assert [one.model for one in result.outcomes] == ["base", "child", "grandchild"]
    assert {one.state for one in result.outcomes} == {"verified"}
    for name in ("base", "child", "grandchild"):
        assert result.models[name] is added(network, name)
        assert accuracy(added(network, name), [0]) == 0
        assert accuracy(added(network, name), [1, 2]) > 0.85
    assert weights_digest(added(network, "stranger").state_dict()) == stranger
    assert accuracy(added(network, "stranger"), [0]) > 0.85


def test_the_figures_are_of_held_out_data_or_say_so(network: Network) -> None:
    result = network.forget("cat", root="base")
    base = result["base"]
    assert base.forget is not None
    assert base.retain is not None
    assert base.forget.after == accuracy(added(network, "base"), [0])
    assert base.retain.after == pytest.approx(accuracy(added(network, "base"), [1, 2]))
    assert base.forget.before > 0.85
    assert shown(result["grandchild"]) == ("not measured", "100.0% -> 100.0% (training)")
    text = str(result)
    assert "forget cat at base: 3 of 3 affected models verified, 2 on held-out data" in text
    assert "not measured" in text
    assert "suppression" in text
    assert "grandchild: No data tells" in text
    assert json.loads(json.dumps(result.to_dict()))["models"][0]["forget"]["after"] == 0


def test_training_data_that_decided_is_named(network: Network) -> None:
    """The stranger's twin was trained on cats, and has no other data."""
    network.add("twin", copy.deepcopy(added(network, "stranger")), loader(ALL, 4))
    result = network.forget("cat", root="twin")
    assert result["twin"].trained
    assert not result["twin"].reason
    assert shown(result["twin"]) == ("98.3% -> 0.0% (training)", "96.7% -> 98.3% (training)")
    assert "1 of 1 affected models verified, 0 on held-out data" in str(result)
    assert any("twin: " in one and "training samples decided" in one for one in result.reservations)


@pytest.mark.parametrize("scope", ["head", "all"])
def test_the_new_weights_are_those_of_a_campaign(
    family: dict[str, nn.Module], tmp_path: Path, scope: str
) -> None:
    def build() -> Network:
        network = Network(labels=LABELS, scope=scope)
        network.add("base", copy.deepcopy(family["base"]), loader(ALL, 1), evaluate=loader(ALL, 99))
        child = copy.deepcopy(family["child"])
        network.add("child", child, loader([1, 2], 2), parents=["base"])
        return network

    there, here = build(), build()
    method = Method(scope=scope, alpha=2.0, lam=0.5, gauge=0.5)
    owner = there._owner
    coordinator = Coordinator(
        CoordinatorStore(tmp_path / "coordinator.db"),
        DirectTransport({"network": lambda: nullcontext(owner)}),
    )
    for record in there.graph.models():
        coordinator.store.add_model(record, there.graph.parents(record.id))
    coordinator.submit(Request(forget={"base": ["cat"]}, method=method, id="forget-1"))
    tasks = coordinator.run("forget-1").tasks
    coordinator.store.close()

    result = here.forget("cat", root="base", method=method)
    assert {name: task.state.value for name, task in tasks.items()} == {
        one.model: one.state for one in result.outcomes
    }
    for name, task in tasks.items():
        assert task.successor is not None
        assert weights_digest(added(here, name).state_dict()) == task.successor.digest


def test_copies_forget_and_the_modules_stay(network: Network) -> None:
    before = {name: weights_digest(added(network, name).state_dict()) for name in ("base", "child")}
    graph = network.graph.models()
    result = network.forget("cat", root="base", inplace=False)
    assert result.complete
    assert accuracy(result.models["child"], [0]) == 0
    for name, digest in before.items():
        assert weights_digest(added(network, name).state_dict()) == digest
        assert result.models[name] is not added(network, name)
    assert network.graph.models() == graph

    again = network.forget("cat", root="base", inplace=False)
    for name, model in again.models.items():
        expected = weights_digest(result.models[name].state_dict())
        assert weights_digest(model.state_dict()) == expected
    changed = network.forget("cat", root="base")
    assert weights_digest(added(network, "base").state_dict()) == weights_digest(
        result.models["base"].state_dict()
    )
    assert changed.complete


def test_one_class_after_another(network: Network) -> None:
    network.forget("cat", root="base")
    result = network.forget("dog", root="base")
    assert result.complete
    for name in ("base", "child", "grandchild"):
        assert accuracy(added(network, name), [0]) == accuracy(added(network, name), [1]) == 0
        assert accuracy(added(network, name), [2]) > 0.85
    assert len(network.graph) == 4 + 6
    assert not any("~" in note for note in result.reservations)


def test_without_a_root_all_that_were_trained_on_it_are(network: Network) -> None:
    result = network.forget(["cat"])
    assert result.what == "cat at base; cat at stranger"
    assert accuracy(added(network, "stranger"), [0]) == 0
    assert result.complete


def test_a_class_under_another_name_is_followed(family: dict[str, nn.Module]) -> None:
    network = Network(labels=LABELS)
    base, child = copy.deepcopy(family["base"]), copy.deepcopy(family["child"])
    network.add("base", base, loader(ALL, 1))
    network.add(
        "child",
        child,
        loader([1, 2], 2),
        parents={"base": {"cat": "tabby"}},
        labels=["tabby", "dog", "owl"],
        evaluate=loader(ALL, 99),
    )
    result = network.forget("cat")
    assert result["child"].state == "verified"
    assert result["child"].forget is not None
    assert result["child"].forget.after == accuracy(child, [0]) == 0


def test_what_does_not_arrive_is_left_as_it_was(family: dict[str, nn.Module]) -> None:
    network = Network(labels=LABELS)
    base, child = copy.deepcopy(family["base"]), trained(blobs([0, 1], 5), classes=2)
    network.add("base", base, loader(ALL, 1))
    network.add("child", child, loader([0, 1], 5), parents=["base"], labels=["dog", "owl"])
    before = weights_digest(child.state_dict())
    result = network.forget("cat")
    assert result["child"].state == "not_reached"
    assert str(result).count(result["child"].reason) == 1
    assert not result.complete
    assert weights_digest(child.state_dict()) == before


def test_a_reason_proposes_what_can_be_done_here(family: dict[str, nn.Module]) -> None:
    """A child with another head, which was not trained on the class: it cannot be a root."""
    base = copy.deepcopy(family["base"])
    layers = [*copy.deepcopy(base).children()]
    child = nn.Sequential(*layers[:2], nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 3))
    network = Network(labels=LABELS)
    network.add("base", base, loader(ALL, 1))
    network.add("child", child, loader([1, 2], 2), parents="base")
    result = network.forget("cat")
    assert result["child"].state == "failed"
    assert "Unlearn in a scope without heads, or retrain it." in result["child"].reason


class Tied(nn.Module):
    """It names the word that follows a word, with one table for both."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.middle = nn.Embedding(6, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 6, bias=False)
        self.head.weight = self.words.weight

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.tanh(self.middle(self.words(inputs))))
        return logits


def test_a_head_that_is_an_embedding_too_is_refused_with_a_scope_to_use() -> None:
    """To take out a row would change the word, and so the class that follows it."""
    words = torch.arange(6).repeat(20)
    data = [(words, (words + 1) % 6)]
    model = Tied()
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(words), data[0][1]).backward()
        optimizer.step()
    before = weights_digest(model.state_dict())
    scopes = []
    for scope in ("head", "all"):
        network = Network(labels=[*"abcdef"], scope=scope)
        network.add("base", model, data)
        result = network.forget("b")
        assert result["base"].state == "failed"
        reason = result["base"].reason
        assert "head.weight is words.weight, too" in reason
        scopes.append(reason.partition("such as '")[2].partition("'")[0])
        assert weights_digest(model.state_dict()) == before
    assert scopes == ["middle.*", "middle.*"]
    network = Network(labels=[*"abcdef"], scope="middle.*")
    network.add("base", model, data)
    assert network.forget("b")["base"].state != "failed"


def test_a_model_keeps_one_class(family: dict[str, nn.Module]) -> None:
    """Without a kept class all logits would be zero, so that every sample is a cat."""
    base = copy.deepcopy(family["base"])
    network = Network(labels=LABELS)
    network.add("base", base, loader(ALL, 1))
    for name in ("cat", "owl"):
        assert network.forget(name).complete
    before = weights_digest(base.state_dict())
    with pytest.raises(RequestError, match="forget 'cat', 'owl', .* Retire the model instead"):
        network.forget("dog")
    assert weights_digest(base.state_dict()) == before
    assert accuracy(base, [1]) == 1
    assert network.forget("owl").complete, "again"


def test_what_has_not_helped_is_put_back(network: Network) -> None:
    before = weights_digest(added(network, "child").state_dict())
    method = Method(alpha=1e30, row_scoped=False)
    result = network.forget("cat", root="base", method=method)
    assert result["child"].state == "ineffective"
    assert "has not forgotten" in result["child"].reason
    assert "it was put back; ask again" in result["child"].reason
    assert weights_digest(added(network, "child").state_dict()) == before


def test_what_would_cost_too_much_is_left_and_it_says_by_which_data(network: Network) -> None:
    before = weights_digest(added(network, "grandchild").state_dict())
    method = Method(alpha=0.01, lam=0.01, row_scoped=False)
    result = network.forget("cat", root="base", method=method)
    assert result["grandchild"].state == "harmful"
    assert result["grandchild"].trained
    assert shown(result["grandchild"]) == ("not measured", "100.0% -> 13.3% (training)")
    assert weights_digest(added(network, "grandchild").state_dict()) == before
    assert any(
        one.startswith("grandchild: held-out data (evaluate=) is missing")
        for one in result.reservations
    )


@pytest.mark.parametrize("tuned", [False, True])
def test_strengths_are_chosen_where_there_is_data_for_it(tuned: bool) -> None:
    network = Network(labels=LABELS, scope="all")
    tune = loader(ALL, 98) if tuned else None
    held_out = loader(ALL, 99)
    network.add("base", trained(blobs(ALL, 1)), loader(ALL, 1), evaluate=held_out, tune=tune)
    result = network.forget("cat")
    assert any("Default strengths" in one for one in result.reservations) is not tuned
    assert (result["base"].state == "verified") or not tuned
    assert result["base"].forget is not None


def test_an_average_inherits_from_all(family: dict[str, nn.Module]) -> None:
    network = Network(labels=LABELS, scope="all")
    models = {name: copy.deepcopy(family[name]) for name in ("base", "stranger")}
    merged = copy.deepcopy(models["base"])
    states = [model.state_dict() for model in models.values()]
    merged.load_state_dict({n: (states[0][n] + states[1][n]) / 2 for n in states[0]})
    merged = trained(blobs([1, 2], 6), merged)
    network.add("base", models["base"], loader(ALL, 1))
    network.add("stranger", models["stranger"], loader([1, 2], 4))
    network.add("merged", merged, loader([1, 2], 6), parents=["base", "stranger"])
    result = network.forget("cat", method=Method(scope="all", alpha=5.0, lam=1.0))
    assert {one.model for one in result.outcomes} == {"base", "merged"}
    assert result.what == "cat at base"


def test_a_class_that_was_forgotten_stays_so(network: Network) -> None:
    network.forget("cat", root="base")
    before = {name: weights_digest(added(network, name).state_dict()) for name in ("base", "child")}
    again = network.forget(["cat", "cat"], root=["base", "base"])
    assert again.complete
    assert again.what == "cat at base"
    assert any("earlier requests had cleared it" in one for one in again.reservations)
    for name, digest in before.items():
        assert weights_digest(added(network, name).state_dict()) == digest


def test_what_one_model_did_not_forget_can_be_asked_again(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Roots that forgot still have the Fisher information that their heirs need."""

    def broken(record: ModelRecord) -> Any:
        if record.id == "child":
            raise ValueError("disk\nfull")
        return loader(ALL, 99)

    monkeypatch.setattr(network._owner, "evaluation_data", broken)
    first = network.forget("cat", root="base")
    assert [one.state for one in first.outcomes] == ["verified", "failed", "verified"]
    assert "ValueError. The log has the reason" in first["child"].reason
    monkeypatch.undo()
    again = network.forget("cat", root="base")
    assert [one.model for one in again.outcomes] == ["base", "child", "grandchild"]
    assert again.complete
    for name in ("base", "child", "grandchild"):
        assert accuracy(added(network, name), [0]) == 0


def test_modules_keep_all_but_their_weights() -> None:
    model = trained(blobs(ALL, 1)).train()
    assert isinstance(model, nn.Sequential)
    first, between, head = model
    assert isinstance(first, nn.Linear)
    assert isinstance(head, nn.Linear)
    between.eval()
    first.weight.requires_grad_(False)
    head.register_forward_hook(lambda *_: None)
    parameters = dict(model.named_parameters())
    gradient = head.bias.grad
    network = Network(labels=LABELS)
    network.add("base", model, loader(ALL, 1))
    assert network.forget("cat").complete
    assert dict(model.named_parameters()) == parameters
    assert head.bias.grad is gradient
    assert (model.training, between.training) == (True, False)
    assert not first.weight.requires_grad
    assert len(head._forward_hooks) == 1


def test_a_result_is_a_mapping_of_models_to_outcomes(network: Network) -> None:
    result = network.forget("cat", root="base")
    assert isinstance(result, Mapping)
    assert list(result) == ["base", "child", "grandchild"]
    assert len(result) == 3
    assert "base" in result
    assert "stranger" not in result
    assert result.get("stranger") is None
    assert list(result.values()) == list(result.outcomes)
    with pytest.raises(KeyError, match="stranger"):
        result["stranger"]


def test_what_a_notebook_shows_is_short(network: Network) -> None:
    assert repr(network) == "Network(4 models, scope 'head')"
    assert repr(network.graph) == "InheritanceGraph(4 models, 2 edges)"
    result = network.forget("cat", root="base")
    assert repr(result) == "ForgetResult(forget cat at base: 3 of 3 affected models verified)"


def test_a_result_survives_pickling(network: Network) -> None:
    result = network.forget("cat", root="base")
    assert str(pickle.loads(pickle.dumps(result))) == str(result)


def test_nothing_is_left_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    network = Network(labels=LABELS)
    network.add("base", trained(blobs(ALL, 1)), loader(ALL, 1))
    assert any(tmp_path.iterdir())
    del network
    gc.collect()
    assert not any(tmp_path.iterdir())
