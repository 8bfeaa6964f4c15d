"""The methods for classes in deep layers: against their equations, computed naively in float64."""

import pytest
import torch
from torch import Tensor, nn

from disinherit.common.errors import NotApplicableError
from disinherit.simulations.bench.cases.subjects import MethodCase, Samples
from disinherit.simulations.bench.methods.class_changes import ChangesForClasses
from disinherit.simulations.bench.methods.direction_removal import (
    DirectionRemoval,
    edited,
    forget_basis,
    layer_inputs,
    project_out,
    separability,
)
from tests.support.case import FORGOTTEN, digits_case

LAYERS = ("features.3", "head")
"""Those of the network after its first one."""


@pytest.fixture(scope="module")
def case() -> MethodCase:
    return digits_case().view()


def test_damp_projects_out_what_the_kept_means_do_not_span(case: MethodCase) -> None:
    subject = case.subjects["r1"]
    features = subject.network(subject.original).double().get_submodule("features")
    hidden = nn.Sequential(*list(features.children())[:3])
    inputs = {"features.3": hidden, "head": features}
    data = Samples.joined([subject.forget, subject.retain])
    forgotten = torch.arange(len(data)) < len(subject.forget)

    found = edited(case, subject)

    for place, layer in enumerate(LAYERS, start=1):
        z: Tensor = inputs[layer](data.inputs.double()).detach()
        kept = [z[data.targets == c].mean(dim=0) for c in range(10) if c != FORGOTTEN]
        mu = z[data.targets == FORGOTTEN].mean(dim=0)
        basis, _ = torch.linalg.qr(torch.stack(kept, dim=1))
        d = mu - basis @ (basis.T @ mu)
        q = d / d.norm()
        a = separability(z.float(), forgotten, case.seed) * place / 2
        assert 0 < a <= 1
        weight = subject.original[f"{layer}.weight"].double()
        expected = weight @ (torch.eye(len(q), dtype=torch.float64) - a * torch.outer(q, q))
        torch.testing.assert_close(
            found[f"{layer}.weight"].double(), expected, atol=1e-5, rtol=1e-4
        )
    changed = {n for n, value in found.items() if not torch.equal(value, subject.original[n])}
    assert changed == {f"{layer}.weight" for layer in LAYERS}, "neither biases nor the first layer"


def test_directions_of_several_classes_are_removed_at_once() -> None:
    torch.manual_seed(0)
    features, targets = torch.randn(80, 12), torch.arange(80) % 8
    forgotten = targets >= 6

    basis = forget_basis(features, targets, forgotten)

    assert basis.shape == (12, 2)
    torch.testing.assert_close(basis.T @ basis, torch.eye(2, dtype=torch.float64))
    means = torch.stack([features[targets == c].double().mean(dim=0) for c in range(8)])
    torch.testing.assert_close(means[:6] @ basis, torch.zeros(6, 2, dtype=torch.float64))
    weight = project_out(torch.randn(5, 12), basis, 1.0).double()
    torch.testing.assert_close(
        weight @ basis, torch.zeros(5, 2, dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_a_layer_with_fewer_inputs_than_kept_classes_is_left_as_it_is() -> None:
    torch.manual_seed(0)
    features, targets = torch.randn(60, 4), torch.arange(60) % 6

    basis = forget_basis(features, targets, targets == 5)

    weight = torch.randn(3, 4, 2, 2)
    assert basis.shape == (4, 0)
    assert torch.equal(project_out(weight, basis, 1.0), weight)


def test_a_convolution_is_edited_at_each_place_of_its_kernel() -> None:
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 4, 3)
    network = nn.Sequential(first, nn.ReLU(), second, nn.Flatten(), nn.Linear(16, 2)).eval()
    samples = Samples(torch.randn(5, 1, 6, 6), torch.tensor([0, 1, 0, 1, 0]))

    inputs = layer_inputs(network, samples)

    assert list(inputs) == ["2", "4"]
    expected = first(samples.inputs).relu().mean(dim=(2, 3))
    torch.testing.assert_close(inputs["2"], expected.detach())
    basis = torch.linalg.qr(torch.randn(6, 1, dtype=torch.float64)).Q
    weight = second.weight.detach()
    new = project_out(weight, basis, 0.5)
    expected = weight[:, :, 1, 2].double() @ (torch.eye(6) - 0.5 * basis @ basis.T)
    torch.testing.assert_close(new[:, :, 1, 2].double(), expected)


def test_a_probe_that_guesses_edits_nothing() -> None:
    torch.manual_seed(0)
    forgotten = torch.arange(400) < 40
    noise = torch.randn(400, 3)
    assert separability(noise, forgotten, 0) < 0.4
    assert separability(noise + 50 * forgotten.unsqueeze(1), forgotten, 0) == 1.0
    assert separability(noise, torch.arange(400) < 1, 0) == 0.0, "too few to hold one out"


def test_changes_for_classes_replay_the_root_and_take_the_row_out_below(case: MethodCase) -> None:
    made = ChangesForClasses(repair_steps=0)(case).weights
    root, child = case.subjects["r1"], case.subjects["r2"]
    replayed = case.retrain("r1", range(len(root.forget)))
    for name, value in replayed.items():
        torch.testing.assert_close(made["r1"][name], value)
        if not name.startswith("head."):
            expected = child.original[name] + (value - root.original[name])
            torch.testing.assert_close(made["r2"][name], expected)
    bias = made["r2"]["head.bias"]
    assert bias[FORGOTTEN] < bias.sort().values[1] - 4
    repaired = ChangesForClasses(repair_steps=2)(case).weights
    assert torch.equal(repaired["r1"]["head.bias"], made["r1"]["head.bias"])
    assert repaired["r2"]["head.bias"][FORGOTTEN] < bias.sort().values[1] - 4


@pytest.mark.parametrize("method", [ChangesForClasses(), DirectionRemoval()])
def test_samples_have_neither_rows_nor_means(
    method: ChangesForClasses | DirectionRemoval,
) -> None:
    with pytest.raises(NotApplicableError, match="none for samples"):
        method(digits_case(granularity="memorised").view())
