"""Attenuation of a change, against the same by hand in float64."""

import pytest
import torch
from torch import nn

from disinherit.common.curvature.attenuation import attenuated
from disinherit.common.curvature.ekfac import Curvature, LayerCurvature, measure

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4, bias=False)
    ).double()


@pytest.fixture(scope="module")
def curvature(network: nn.Module) -> Curvature:
    torch.manual_seed(1)
    data = [(torch.randn(40, 1, 3, 3, dtype=torch.float64), torch.randint(4, (40,)))]
    return measure(network, [name for name, _ in network.named_parameters()], data, CPU)


def test_a_change_is_damped_along_each_direction_of_the_curvature(
    network: nn.Module, curvature: Curvature
) -> None:
    torch.manual_seed(2)
    change = {name: torch.randn_like(value) for name, value in network.named_parameters()}
    kept = {name: value.clone() for name, value in change.items()}
    found = attenuated(change, curvature, damping=0.5)
    for path, one in curvature.layers.items():
        weight = change[f"{path}.weight"].flatten(1)
        if one.with_bias:
            weight = torch.cat([weight, change[f"{path}.bias"][:, None]], dim=1)
        basis = torch.kron(one.outputs.contiguous(), one.inputs.contiguous())
        share = 0.5 * one.values.mean()
        factors = torch.diag((share / (one.values + share)).flatten())
        expected = (basis @ factors @ basis.mT @ weight.flatten()).reshape(weight.shape)
        if one.with_bias:
            torch.testing.assert_close(found[f"{path}.bias"], expected[:, -1])
            expected = expected[:, :-1]
        torch.testing.assert_close(found[f"{path}.weight"].flatten(1), expected)
    assert all(torch.equal(change[name], value) for name, value in kept.items())


def test_what_is_not_covered_or_without_curvature_stays_whole(curvature: Curvature) -> None:
    flat = {
        path: LayerCurvature(one.with_bias, one.outputs, one.inputs, torch.zeros_like(one.values))
        for path, one in curvature.layers.items()
    }
    change = {
        "3.weight": torch.ones(4, 12, dtype=torch.float64),
        "0.weight": torch.ones(3, 1, 2, 2),
        "norm.running_var": torch.ones(3),
    }
    found = attenuated(change, Curvature(flat, 40))
    assert found.keys() == change.keys()
    torch.testing.assert_close(found["3.weight"], change["3.weight"])
    assert torch.equal(attenuated(change, curvature)["0.weight"], change["0.weight"])  # no bias
    assert found["norm.running_var"] is change["norm.running_var"]
