"""The head of an owner's models: verified at root and descendant, and stored."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from disinherit.client.actions.evaluate import evaluate
from disinherit.client.actions.fisher import forget_fishers
from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening.many import Stacking
from disinherit.client.dampening.summaries import register
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import FisherError
from disinherit.common.method import Method
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import collect, make_method, make_task
from tests.support.network_owner import CLASSES, Heads, NetworkOwner, deeper, plain
from tests.support.owner import FEATURES, LABELS

METHOD = make_method(alpha=None, lam=None, gauge=None, rescale=True)
CHANGED = (pb.OUTCOME_APPLIED, pb.OUTCOME_INEFFECTIVE)
"""A method for tests of the changes, not of the forgetting."""
KEPT = tuple(name for name in LABELS if name != "cat")


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[NetworkOwner]:
    with NetworkOwner(tmp_path / "anna", tuning=False) as owner:
        yield owner


def forget(owner: NetworkOwner, models: list[str], method: Method = METHOD) -> pb.UnlearnReply:
    packet = collect(owner, models[0], ["cat"], method)
    return unlearn(owner, make_task(owner, models, packet, method))


MEAN: Callable[[Any, Tensor], Tensor] = lambda heads, x: (heads[0](x) + heads[1](x)) / 2  # noqa: E731


class Ensemble(nn.Module):
    """Three members, their logits averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList(plain() for _ in range(3))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.stack([member(inputs) for member in self.members]).mean(0)


def convolutional() -> nn.Module:
    body = nn.Linear(FEATURES, 12), nn.ReLU(), nn.Unflatten(1, (12, 1, 1))
    return nn.Sequential(*body, nn.Conv2d(12, CLASSES, 1), nn.Flatten())


SEVERAL: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "mean of two": (lambda: Heads(MEAN), {"heads.0", "heads.1"}),
    "ensemble": (Ensemble, {"members.0.2", "members.1.2", "members.2.2"}),
    "unused last": (lambda: Heads(lambda heads, x: heads[0](x)), {"heads.0"}),
    "convolution": (convolutional, {"3"}),
}


@pytest.mark.parametrize("case", SEVERAL)
@pytest.mark.parametrize("together", [True, False])
def test_every_layer_of_the_head_forgets(
    owner: NetworkOwner, case: str, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, layers = SEVERAL[case]
    owner.fit("m", build)
    register(owner, pb.RegisterTask(scope="head"))
    if not together:
        monkeypatch.setattr(Stacking, "unlearn", lambda self, models: {})
    before = owner.accuracy("m", KEPT)
    (result,) = forget(owner, ["m"]).models
    assert result.outcome == pb.OUTCOME_APPLIED, result.error
    names = {name for layer in layers for name in (f"{layer}.weight", f"{layer}.bias")}
    assert {selection.parameter for selection in result.selections} == names
    assert all(sum(selection.rows) == selection.rows[0] > 0 for selection in result.selections)
    assert owner.accuracy("m", ("cat",)) > 0.9
    assert owner.accuracy("m~forget", ("cat",)) == 0
    assert owner.accuracy("m~forget", KEPT) >= before - 0.02


@pytest.mark.parametrize("scope", ["head", "all", "2.*"])
@pytest.mark.parametrize("registered", [True, False])
def test_a_descendant_whose_head_is_another_layer_is_refused_by_name(
    owner: NetworkOwner, scope: str, registered: bool
) -> None:
    owner.fit("m", plain)
    owner.fit("n", deeper, start=owner.store.weights("m"), created_us=2)
    if registered:
        register(owner, pb.RegisterTask(scope="all"))
    method = make_method(alpha=None, lam=None, gauge=None, scope=scope)
    root, child = forget(owner, ["m", "n"], method).models
    assert root.outcome == pb.OUTCOME_APPLIED, root.error
    assert child.outcome == pb.OUTCOME_FAILED
    assert "the model's head is 4.*" in child.error
    assert "model 'n'" in child.error


def test_scope_without_heads_reaches_a_descendant_with_another_head(owner: NetworkOwner) -> None:
    owner.fit("m", plain)
    owner.fit("n", deeper, start=owner.store.weights("m"), created_us=2)
    method = make_method(scope="0.*", row_scoped=True, alpha=2.0)
    _, child = forget(owner, ["m", "n"], method).models
    assert child.outcome in CHANGED, child.error
    assert [selection.parameter for selection in child.selections] == ["0.weight", "0.bias"]


def test_a_model_without_a_head_is_unlearned_in_without_rows_and_gauge(
    owner: NetworkOwner,
) -> None:
    owner.fit("m", lambda: Heads(lambda heads, x: heads[0](x).tanh() * 8, heads=1))
    refused = "no sum of the outputs of 'heads.0'. Give another scope, such as 'heads.0.*' or 'all'"
    with pytest.raises(FisherError, match="Cannot register model 'm'.*" + refused.split(".")[0]):
        register(owner, pb.RegisterTask(scope="head"))
    task = pb.FisherTask(roots=[pb.Root(model_id="m", classes=["cat"])], method=METHOD.to_proto())
    assert refused in forget_fishers(owner, task).roots[0].error
    method = make_method(scope="all", alpha=20.0, gauge=2.0)
    packet = collect(owner, "m", ["cat"], method)
    assert packet.head_weight == ""
    (result,) = unlearn(owner, make_task(owner, ["m"], packet, method)).models
    assert result.outcome in CHANGED, result.error
    rows = {s.parameter: list(s.rows) for s in result.selections}["heads.0.weight"]
    assert sum(map(bool, rows)) > 1  # of any class
    before, after = owner.store.weights("m"), owner.store.weights("m~forget")
    changed = before["heads.0.weight"] != after["heads.0.weight"]
    assert changed.sum(1).tolist() == rows  # the gauge changed no value


def test_a_descendant_without_a_head_is_refused_at_scope_head_only(owner: NetworkOwner) -> None:
    owner.fit("m", plain)
    owner.fit("n", lambda: nn.Sequential(*plain().children(), nn.Tanh()), created_us=2)
    _, child = forget(owner, ["m", "n"]).models
    assert "no sum of the outputs of '2'" in child.error
    _, child = forget(owner, ["m", "n"], make_method(scope="all", alpha=20.0)).models
    assert child.outcome == pb.OUTCOME_APPLIED, child.error


def test_registered_head_is_used_when_the_data_is_gone(owner: NetworkOwner) -> None:
    owner.fit("m", lambda: Heads(MEAN))
    register(owner, pb.RegisterTask(scope="head"))
    owner.keeps_data = False
    structure = owner.store.structure("m")
    assert structure is not None
    assert str(structure.head) == "heads.0.*, heads.1.*"
    (result,) = forget(owner, ["m"]).models
    assert result.outcome == pb.OUTCOME_APPLIED, result.error
    assert owner.store.structure("m~forget") == structure
    with ModelStore(owner.store.root, "anna") as reopened:
        assert reopened.structure("m~forget") == structure


def test_unknown_head_is_refused_without_data_and_registration(owner: NetworkOwner) -> None:
    owner.fit("m", plain)
    packet = collect(owner, "m", ["cat"], METHOD)
    owner.fit("n", plain, start=owner.store.weights("m"), created_us=2)
    owner.keeps_data = False
    (result,) = unlearn(owner, make_task(owner, ["n"], packet, METHOD)).models
    assert "Expected some data of model 'n', to find the layers of its logits" in result.error
    (reply,) = register(owner, pb.RegisterTask(scope="head", model_ids=["n"])).models
    assert not reply.fisher_digest


def test_labels_that_do_not_fit_the_head_are_refused_when_registering(owner: NetworkOwner) -> None:
    owner.fit("m", lambda: plain(6), labels=(*LABELS, "ant", "bee"))
    more = owner.store.record("m")
    owner.builds["x"] = lambda: plain(6)
    owner.store.add(
        type(more)(
            id="x",
            owner="anna",
            architecture=more.architecture,
            labels=LABELS,
            digest=more.digest,
            created_us=2,
            provenance=more.provenance,
        ),
        owner.store.weights("m"),
    )
    register(owner, pb.RegisterTask(scope="head", model_ids=["m"]))
    for scope in ("head", "all"):
        with pytest.raises(FisherError, match=r"each of the 6 rows of the head \(2\.\*\) .* 4 lab"):
            register(owner, pb.RegisterTask(scope=scope, model_ids=["x"]))


class TokNet(nn.Module):
    """A classifier with a weight that may be tied to a table of class embeddings."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.label, self.body = nn.Embedding(CLASSES, 12), nn.Linear(FEATURES, 12)
        self.fc = nn.Linear(12, CLASSES, bias=False)
        if tied:
            self.fc.weight = self.label.weight

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.relu(self.body(inputs)))
        return logits


@pytest.mark.parametrize("scope", ["head", "all"])
@pytest.mark.parametrize("first", ["tied", "free"])
def test_a_tied_root_and_an_untied_child_are_two_kinds(
    tmp_path: Path, scope: str, first: str
) -> None:
    made = []
    for together in (True, False):
        with NetworkOwner(tmp_path / str(together), "anna", tuning=False) as owner:
            owner.fit("tied", lambda: TokNet(True))
            owner.fit("free", lambda: TokNet(False), created_us=2)
            register(owner, pb.RegisterTask(scope="all"))
            method = make_method(scope=scope, alpha=5.0)
            packet = collect(owner, "tied", ["cat"], method)
            owner.lose_data()
            models = ["tied", "free"] if first == "tied" else ["free", "tied"]
            with pytest.MonkeyPatch.context() as patch:
                if not together:
                    patch.setattr(Stacking, "unlearn", lambda self, models: {})
                reply = unlearn(owner, make_task(owner, models, packet, method))
            results = {result.model_id: result for result in reply.models}
            assert "the model's head is fc.*" in results["free"].error
            assert results["tied"].outcome == pb.OUTCOME_APPLIED, results["tied"].error
            weights = owner.store.weights("tied~forget")
            assert torch.equal(weights["fc.weight"], weights["label.weight"])
            assert [*results["tied"].tied] == (["label.weight"] if scope == "head" else [])
            assert "free~forget" not in {record.id for record in owner.store.records()}
            made.append(owner.store.record("tied~forget").digest)
    assert made[0] == made[1]


def test_tied_and_untied_models_come_out_alike_together_and_one_by_one(tmp_path: Path) -> None:
    """In a scope without the head both are unlearned in, each under its own names."""

    def net(tied: bool) -> nn.Module:
        network = nn.Sequential(
            nn.Linear(FEATURES, 12),
            nn.ReLU(),
            nn.Linear(12, 12),
            nn.ReLU(),
            nn.Linear(12, 12),
            nn.ReLU(),
            nn.Linear(12, CLASSES),
        )
        if tied:
            network[4] = network[2]
        return network

    made = []
    for together in (True, False):
        with NetworkOwner(tmp_path / str(together), "anna", tuning=False) as owner:
            owner.fit("tied", lambda: net(True))
            owner.fit("free", lambda: net(False), created_us=2)
            register(owner, pb.RegisterTask(scope="all"))
            method = make_method(scope="2.*", alpha=1.0)
            packet = collect(owner, "tied", ["cat"], method)
            owner.lose_data()
            with pytest.MonkeyPatch.context() as patch:
                if not together:
                    patch.setattr(Stacking, "unlearn", lambda self, models: {})
                reply = unlearn(owner, make_task(owner, ["tied", "free"], packet, method))
            assert [r.outcome for r in reply.models] == [pb.OUTCOME_APPLIED] * 2, reply
            before, after = owner.store.weights("free"), owner.store.weights("free~forget")
            assert torch.equal(before["4.weight"], after["4.weight"])
            assert not torch.equal(before["2.weight"], after["2.weight"])
            made.append([owner.store.record(f"{m}~forget").digest for m in ("tied", "free")])
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("scope", "tied"), [("2.*", ["4.weight", "4.bias"]), ("2.*,4.*", []), ("all", [])]
)
def test_layers_out_of_scope_that_share_weights_are_reported(
    owner: NetworkOwner, scope: str, tied: list[str]
) -> None:
    def net() -> nn.Module:
        layers = [nn.Linear(FEATURES, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU()]
        return nn.Sequential(*layers, layers[2], nn.ReLU(), nn.Linear(12, CLASSES))

    owner.fit("m", net)
    register(owner, pb.RegisterTask(scope="all"))
    owner.lose_data()
    (result,) = forget(owner, ["m"], make_method(scope=scope, alpha=1.0)).models
    assert result.outcome == pb.OUTCOME_APPLIED, result.error
    assert sorted(result.tied) == sorted(tied)


@pytest.mark.parametrize("together", [True, False])
def test_parameters_in_scope_that_the_packet_lacks_are_reported(
    owner: NetworkOwner, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.fit("m", lambda: Heads(lambda heads, x: heads[0](x).tanh() * 8, heads=1))
    owner.fit("n", lambda: Heads(MEAN), start=owner.store.weights("m"), created_us=2)
    register(owner, pb.RegisterTask(scope="all"))
    if not together:
        monkeypatch.setattr(Stacking, "unlearn", lambda self, models: {})
    owner.lose_data()
    root, child = forget(owner, ["m", "n"], make_method(scope="all", alpha=20.0)).models
    assert (child.outcome, list(root.not_covered)) == (pb.OUTCOME_APPLIED, []), child.error
    assert list(child.not_covered) == ["heads.1.bias", "heads.1.weight"]


class Pair(nn.Module):
    """Two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(FEATURES - 1, 12), nn.Linear(1, 12)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.left(left) + self.right(right)))
        return logits


@pytest.mark.parametrize("scope", ["head", "all"])
def test_models_with_several_inputs_are_supported(owner: NetworkOwner, scope: str) -> None:
    owner.batch = lambda x, y: ((x[:, :-1], x[:, -1:]), y)
    owner.tuning = True
    owner.fit("m", Pair)
    register(owner, pb.RegisterTask(scope=scope))
    method = make_method(alpha=None, lam=None, gauge=None, scope=scope, repair_steps=5)
    packet = collect(owner, "m", ["cat"], method)
    task = make_task(owner, ["m"], packet, method)
    task.measure_retain = True
    (result,) = unlearn(owner, task).models
    assert result.outcome == pb.OUTCOME_APPLIED, result.error
    assert result.retain_before > 0.9
    assert owner.accuracy("m~forget", ("cat",)) < 0.1
    (panel,) = evaluate(owner, pb.EvaluateTask(model_ids=["m~forget"])).models
    assert sum(panel.confusion) > 0, panel.error


def test_a_dict_batch_is_refused_by_its_keys_when_registering(owner: NetworkOwner) -> None:
    owner.fit("m", plain)
    owner.batch = lambda x, y: {"img": x, "label": y}
    said = r"batch 0 to be \(inputs, targets\), but got a dict with the keys img, label\. Let"
    for scope in ("head", "all"):
        with pytest.raises(FisherError, match=said) as caught:
            register(owner, pb.RegisterTask(scope=scope))
        assert "\n" not in str(caught.value)
    (panel,) = evaluate(owner, pb.EvaluateTask(model_ids=["m"])).models
    assert "a dict with the keys img, label" in panel.error
    owner.batch = lambda x, y: ({"ids": x, "mask": x}, y)
    with pytest.raises(FisherError, match="a dict with the keys ids, mask. Give the values in"):
        register(owner, pb.RegisterTask(scope="head"))


def test_outputs_that_are_no_logits_are_refused_when_registering(owner: NetworkOwner) -> None:
    owner.fit("m", plain)
    owner.builds["m"] = lambda: WithDict()
    for scope in ("head", "all"):
        with pytest.raises(FisherError, match=r"logits \[8, C\], but got dict; wrap it so that"):
            register(owner, pb.RegisterTask(scope=scope))
    (panel,) = evaluate(owner, pb.EvaluateTask(model_ids=["m"])).models
    assert "the model returned dict; wrap it" in panel.error


class WithDict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name, layer in plain().named_children():
            self.add_module(name, layer)

    def forward(self, inputs: Tensor) -> Any:
        return {"logits": nn.Sequential(*self.children())(inputs)}


def test_reason_against_stacking_is_logged_once_per_kind(
    owner: NetworkOwner, caplog: pytest.LogCaptureFixture
) -> None:
    owner.fit("m", plain)
    for i in range(3):
        owner.fit(f"n{i}", deeper, start=owner.store.weights("m"), created_us=2 + i)
    register(owner, pb.RegisterTask(scope="all"))
    owner.lose_data()
    with caplog.at_level(logging.INFO, "disinherit.client.dampening.many"):
        reply = forget(owner, ["m", "n0", "n1", "n2"])
    said = [r.getMessage() for r in caplog.records if r.name == "disinherit.client.dampening.many"]
    assert len(said) == 1
    assert "model 'n0', and others like it, are unlearned in one by one: FisherError" in said[0]
    assert [bool(result.error) for result in reply.models] == [False, True, True, True]
