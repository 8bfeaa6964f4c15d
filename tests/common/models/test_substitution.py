"""Calls with substituted parameters: their results, and the restored model."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from disinherit.client.dampening.logits import CachedLogits
from disinherit.client.dampening.repair import repair
from disinherit.common.fisher.diagonal import fisher_diagonal
from disinherit.common.models.heads import find_head
from disinherit.common.models.scope import resolve_scope
from disinherit.common.models.substitution import call_with, unchanged
from tests.support.fisher_cases import CASES, CLASSES, Tied, make, places, shared_net

CPU = torch.device("cpu")
REPLACED = [case for case in CASES if case not in ("keeping", "branching", "recurrent")]


def limited_net() -> nn.Module:
    embed = nn.Embedding(6, 3, max_norm=0.5)
    return nn.Sequential(embed, nn.Flatten(), nn.Linear(6, CLASSES))


@pytest.mark.parametrize("case", REPLACED)
def test_replaced_parameters_are_used_wherever_the_model_has_them(case: str) -> None:
    model, inputs, _ = make(case, 4)
    model.eval()
    arguments = (inputs,) if isinstance(inputs, Tensor) else inputs
    other = {name: p.detach() * 0.7 + 0.1 for name, p in model.named_parameters()}
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.copy_(other[name])
    before, values = places(model), copy.deepcopy(model.state_dict())
    torch.testing.assert_close(call_with(model, other, arguments), twin(*arguments))
    torch.testing.assert_close(call_with(model, {}, arguments), model(*arguments))
    assert places(model) == before
    assert all(value.equal(values[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("build", [shared_net, Tied])
def test_a_failed_call_restores_the_model(build: Callable[[], nn.Module]) -> None:
    model = build()
    before = places(model)
    other = {name: p.detach() + 1 for name, p in model.named_parameters()}
    with pytest.raises(RuntimeError):
        call_with(model, other, (torch.ones(2, 7),))
    assert places(model) == before


def test_a_model_with_a_shared_layer_keeps_training_in_all_parts() -> None:
    torch.manual_seed(0)
    model = shared_net()
    inputs, targets = torch.randn(6, 3), torch.randint(0, CLASSES, (6,))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        fisher_diagonal(model, [(inputs, targets)], scope="all")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    assert all(not p.equal(before[name]) for name, p in model.named_parameters())
    model.double()


@pytest.mark.parametrize("scope", ["head", "all"])
@pytest.mark.parametrize(
    ("build", "tokens"), [(shared_net, False), (Tied, False), (limited_net, True)]
)
def test_fisher_tuning_and_repair_restore_every_parameter(
    build: Callable[[], nn.Module], tokens: bool, scope: str
) -> None:
    torch.manual_seed(0)
    model = build().eval()
    width = 3 if build is shared_net else CLASSES
    inputs: Any = torch.randint(0, 6, (8, 2)) if tokens else torch.randn(8, width)
    targets = torch.arange(8) % 3
    before, values = places(model), copy.deepcopy(model.state_dict())
    names = resolve_scope(model, scope, find_head(model, inputs))
    start = {name: model.get_parameter(name).detach() * 0.9 for name in names}
    kept = {name: value.clone() for name, value in start.items()}

    fisher_diagonal(model, [(inputs, targets)], scope=scope)
    logits = CachedLogits(model, [(inputs, targets)], frozenset(names), CPU)
    (found,) = list(logits([start]))
    repair(model, start, [(inputs, targets)], [0], steps=2, seed=1, device=CPU)

    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name, value in kept.items():
            twin.get_parameter(name).copy_(value)
    torch.testing.assert_close(found[:, 0], twin(inputs), rtol=1e-5, atol=1e-6)
    assert places(model) == before
    assert all(value.equal(values[name]) for name, value in model.state_dict().items())
    assert all(value.equal(kept[name]) for name, value in start.items())


def test_renormalised_embeddings_are_restored_after_a_forward_pass() -> None:
    model = limited_net()
    before = copy.deepcopy(model.state_dict())
    with unchanged(model):
        model(torch.zeros(1, 2, dtype=torch.int64))
        assert not model.state_dict()["0.weight"].equal(before["0.weight"])
    assert model.state_dict()["0.weight"].equal(before["0.weight"])
