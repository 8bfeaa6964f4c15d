"""Batch norm before tokens: gradients against finite differences, which need no backward pass."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from disinherit.client.dampening.repair import repair
from disinherit.common.fisher.diagonal import MethodName, fisher_diagonal
from disinherit.common.fisher.gradients import right_norm_gradients

CPU = torch.device("cpu")


class Tokens(nn.Module):
    """Makes a token of every position of an image; the gradient returns with channels last."""

    def __init__(self, *, branching: bool = False, inplace: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True) if inplace else nn.Tanh()
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)
        self.branching, self.inplace = branching, inplace

    def forward(self, x: Tensor) -> Any:
        if self.branching and float(x.sum()) < -1e9:
            return x
        made = self.norm(self.conv(x))
        if self.inplace:
            made = self.act(made)
        tokens = made.flatten(2).transpose(1, 2).contiguous()
        mixed = nn.functional.linear(tokens, self.mix.weight, self.mix.bias)
        if not self.branching:
            mixed = self.mix(tokens)
        return self.head(torch.tanh(mixed).mean(1))


def differences(model: nn.Module, name: str, x: Tensor, y: Tensor) -> Tensor:
    """Squared gradient of one sample's loss, by central differences."""
    parameter = model.get_parameter(name)
    flat, found = parameter.detach().view(-1), torch.zeros(parameter.numel(), dtype=x.dtype)
    for i in range(len(flat)):
        losses = []
        for step in (1e-5, -1e-5):
            flat[i] += step
            losses.append(float(nn.functional.cross_entropy(model(x), y)))
            flat[i] -= step
        found[i] = (losses[0] - losses[1]) / 2e-5
    return found.square().view(parameter.shape)


def make(**options: bool) -> tuple[Tokens, Tensor, Tensor]:
    torch.manual_seed(0)
    model = Tokens(**options).double().eval()
    nn.init.uniform_(model.norm.weight, 0.5, 2.0)
    return model, torch.randn(3, 3, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 3])


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("method", "branching"),
    [("layers", False), ("vmap", False), ("auto", False), ("auto", True)],
)
def test_fisher_below_a_batch_norm_matches_finite_differences(
    method: MethodName, branching: bool, layout: torch.memory_format, inplace: bool
) -> None:
    model, inputs, targets = make(branching=branching, inplace=inplace)
    inputs = inputs.contiguous(memory_format=layout)
    batch = list(zip(inputs.split(1), targets.split(1), strict=True))
    names = ["norm.weight", "norm.bias", "conv.weight"]
    if branching:  # no call of the layer uses its weight, so one pass per sample remains
        names.append("mix.bias")
    found = fisher_diagonal(model, batch, scope=",".join(names), method=method).values
    for name in names:
        with torch.no_grad():
            expected = sum(
                differences(model, name, inputs[i : i + 1], targets[i : i + 1]) for i in range(3)
            )
        assert isinstance(expected, Tensor)
        torch.testing.assert_close(found[name], expected / 3, rtol=1e-5, atol=1e-9)


def test_repair_steps_below_a_batch_norm_reduce_the_loss() -> None:
    model, inputs, targets = make()
    inputs, targets = inputs[:1], targets[:1]
    start = {"norm.weight": model.norm.weight.detach().clone()}
    (moved,) = repair(model, start, [(inputs, targets)], [], steps=1, seed=1, device=CPU).values()
    with right_norm_gradients(model):
        loss = nn.functional.cross_entropy(model(inputs), targets)
        (gradient,) = torch.autograd.grad(loss, model.norm.weight)
    with torch.no_grad():
        expected = differences(model, "norm.weight", inputs, targets).sqrt()
    torch.testing.assert_close(gradient.abs(), expected, rtol=1e-5, atol=1e-8)
    # The first step of Adam has the size of its learning rate, against the gradient's sign.
    assert torch.equal((moved - start["norm.weight"]).sign(), -gradient.sign())
    assert not model.norm._forward_hooks
