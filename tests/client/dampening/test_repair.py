"""Repair: steps of Adam on retained samples, equal to a naive loop and reproducible."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening.repair import BATCH, LEARNING_RATE, repair
from disinherit.client.dampening.summaries import register
from disinherit.client.owner.choosing import request_seed
from disinherit.common.errors import DataError
from disinherit.common.method import Method
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import HEAD, collect, make_method, make_task
from tests.support.owner import PointsOwner, make_network, make_points

LABELS = ("cat", "dog", "owl")
CPU = torch.device("cpu")


def test_steps_equal_a_naive_loop_over_retained_samples() -> None:
    inputs, targets = make_points("anna", "train", LABELS, LABELS)
    model = make_network(3)
    start = {name: model.get_parameter(name) for name in HEAD}
    found = repair(model, start, [(inputs, targets)], [1], steps=4, seed=7, device=CPU)

    kept = targets != 1  # less than a batch: every step uses all of them, in some order
    assert int(kept.sum()) <= BATCH
    naive = make_network(3)
    parameters = [naive.get_parameter(name) for name in HEAD]
    optimizer = torch.optim.Adam(parameters, LEARNING_RATE)
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(naive(inputs[kept]), targets[kept]).backward()
        optimizer.step()
    for name, parameter in zip(HEAD, parameters, strict=True):
        torch.testing.assert_close(found[name], parameter.detach(), rtol=1e-9, atol=1e-12)
        assert torch.equal(start[name], make_network(3).get_parameter(name))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_repaired_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    inputs, targets = make_points("anna", "train", LABELS, LABELS)
    model = make_network(3).to(dtype)
    names = [name for name, _ in model.named_parameters()]
    start = {name: model.get_parameter(name).detach() for name in names}
    data = [(inputs.to(dtype), targets)]
    found = repair(model, start, data, [1], steps=30, seed=7, device=CPU)
    assert {value.dtype for value in found.values()} == {dtype}

    wide = make_network(3).float()
    wide.load_state_dict(start)
    expected = repair(
        wide,
        {name: wide.get_parameter(name) for name in names},
        [(inputs.to(dtype).float(), targets)],
        [1],
        steps=30,
        seed=7,
        device=CPU,
    )
    for name in names:
        moved = (expected[name] - start[name].float()).abs().max()
        assert (found[name].float() - expected[name]).abs().max() < 0.15 * moved


def test_forgotten_samples_are_never_used() -> None:
    inputs, targets = make_points("anna", "train", LABELS, LABELS)
    model = make_network(3)
    start = {name: model.get_parameter(name) for name in HEAD}
    ruined = torch.where((targets == 1).unsqueeze(1), torch.nan, inputs)
    one, two = (
        repair(model, start, [(some, targets)], [1], steps=3, seed=7, device=CPU)
        for some in (inputs, ruined)
    )
    assert all(torch.equal(one[name], two[name]) for name in HEAD)


def test_samples_are_chosen_uniformly() -> None:
    """Each of 1,000 samples has its own weight, which only its steps change."""
    count = 1000
    model = nn.Linear(count, 2, bias=False)
    start = {"weight": torch.zeros(2, count)}
    inputs, targets = torch.eye(count), torch.arange(count) % 2
    batches = list(zip(inputs.split(100), targets.split(100), strict=True))
    moved = torch.zeros(count)
    for seed in range(40):
        new = repair(model, start, batches, [], steps=2, seed=seed, device=CPU)["weight"]
        seen = new[0] != 0
        assert int(seen.sum()) == 2 * BATCH
        moved += seen
    halves = moved.view(2, -1).sum(dim=1)
    assert abs(halves[0] / halves.sum() - 0.5).item() < 0.03


def test_missing_retained_samples_and_divergence_are_refused() -> None:
    inputs, targets = make_points("anna", "train", LABELS, ("cat",))
    model = make_network(3)
    start = {name: model.get_parameter(name) for name in HEAD}
    with pytest.raises(DataError, match="retained samples"):
        repair(model, start, [(inputs, targets)], [0], steps=1, seed=0, device=CPU)
    with pytest.raises(DataError, match="Expected 1 steps of repair to end in finite weights"):
        repair(model, start, [(inputs * torch.inf, targets)], [], steps=1, seed=0, device=CPU)


def unlearned(
    folder: Path, request_id: str, method: Method, *, keeps_data: bool = True
) -> tuple[pb.ModelResult, dict[str, Tensor], dict[str, Tensor]]:
    """Forget cats in a model; return the result, and the weights before and after."""
    with PointsOwner(folder, "anna") as owner:
        owner.train("m", ("cat", "dog", "owl"), created_us=1)
        register(owner, pb.RegisterTask(scope=method.scope))
        owner.keeps_data = keeps_data
        packet = collect(owner, "m", ["cat"], method)
        task = make_task(owner, ["m"], packet, method, request_id)
        (result,) = unlearn(owner, task).models
        assert not result.error
        return result, owner.store.weights("m"), owner.store.weights(result.successor.id)


@pytest.mark.parametrize("scope", ["head", "all"])
def test_repeated_request_repairs_equally_and_within_its_scope(tmp_path: Path, scope: str) -> None:
    method = make_method(scope=scope, repair_steps=5)
    one, two, other = (
        unlearned(tmp_path / folder, request, method)
        for folder, request in (("1", "forget"), ("2", "forget"), ("3", "again"))
    )
    assert one[0].repair_steps == 5
    assert one[0].successor.digest == two[0].successor.digest
    assert request_seed("forget", "m") != request_seed("again", "m")
    assert other[0].repair_steps == 5
    before, after = one[1:]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == (set(HEAD) if scope == "head" else set(before))


def test_without_steps_or_without_data_nothing_is_repaired(tmp_path: Path) -> None:
    plain = unlearned(tmp_path / "1", "forget", make_method())
    gone = unlearned(tmp_path / "2", "forget", make_method(repair_steps=5), keeps_data=False)
    assert plain[0].repair_steps == gone[0].repair_steps == 0
    assert plain[0].successor.digest == gone[0].successor.digest
