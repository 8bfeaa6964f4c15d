"""Roots to attack: networks, and their changes when samples are taken out.

======  ==========================================================================================
ridge   linear regression on the pixels, solved exactly with and without the samples
step    a small CNN, after one damped Gauss-Newton step away from the samples::

            θ' - θ = (n F + n d)⁻¹ Σ_{i in forget} ∇l_i

short   the same CNN, a brief fine-tune of a known parent, replayed without the samples
long    the same CNN trained from scratch, replayed without the samples
======  ==========================================================================================
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp

DAMPING = 0.01
"""d: what is added to the curvature of a sample."""

_BATCH = 50
_STEPS = 50
_ENOUGH = 1e-10

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Root:
    """A trained root, and how it unlearns.

    Attributes:
        name: see the table above.
        network: its module, trained.
        loss: sum of the losses of samples, from outputs and classes.
        curvature: second derivative of a sample's loss by its outputs, times a vector.
        change: the change of the weights when the samples at some indices are taken out.
    """

    name: str
    network: nn.Module
    loss: Loss
    curvature: Callable[[Tensor, Tensor], Tensor]
    change: Callable[[Sequence[int]], dict[str, Tensor]]


def ridge(inputs: Tensor, targets: Tensor) -> Root:
    """Return a linear root; its change is that of exact retraining.

    Args:
        inputs: images `[n, 1, H, W]`.
        targets: classes `[n]`, from 0 to 9.
    """

    def fitted(without: Sequence[int]) -> nn.Module:
        kept = torch.ones(len(targets), dtype=torch.bool)
        kept[list(without)] = False
        ones = torch.ones(int(kept.sum()), 1, dtype=torch.float64)
        rows = torch.cat([inputs[kept].flatten(1).double(), ones], 1)
        wanted = nn.functional.one_hot(targets[kept], 10).double()
        square = rows.T @ rows + DAMPING * len(targets) * torch.eye(rows.shape[1]).double()
        solution = torch.linalg.solve(square, rows.T @ wanted).float()
        network = nn.Sequential(nn.Flatten(), nn.Linear(len(solution) - 1, 10))
        network.load_state_dict({"1.weight": solution[:-1].T, "1.bias": solution[-1]})
        return network

    network = fitted(())
    return Root("ridge", network, _squares, _same, lambda ids: _minus(fitted(ids), network))


def cnn_roots(
    inputs: Tensor, targets: Tensor, parent_inputs: Tensor, parent_targets: Tensor
) -> list[Root]:
    """Return three small convolutional roots.

    Args:
        inputs: images `[n, 1, 28, 28]`.
        targets: classes `[n]`, from 0 to 9.
        parent_inputs: images that the parent of the brief fine-tune is trained on.
        parent_targets: their classes.
    """
    torch.manual_seed(0)
    fresh = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2),
        nn.GELU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(16 * 7 * 7, 10),
    )
    parent = _trained(fresh, parent_inputs, parent_targets, (), 10, 0.05)

    def short(without: Sequence[int]) -> nn.Module:
        return _trained(parent, inputs, targets, without, 3, 0.01)

    def long(without: Sequence[int]) -> nn.Module:
        return _trained(fresh, inputs, targets, without, 15, 0.05)

    def step(ids: Sequence[int]) -> dict[str, Tensor]:
        gradient = flat(gradients(stepped, inputs[list(ids)], targets[list(ids)]))
        found = solved(lambda v: product(stepped, inputs, v), gradient / len(targets), _STEPS)
        return unflat(found, stepped.network)

    fine_tuned, trained = short(()), long(())
    stepped = Root("step", fine_tuned, _entropy, _softmax, step)
    return [
        stepped,
        Root("short", fine_tuned, _entropy, _softmax, lambda i: _minus(short(i), fine_tuned)),
        Root("long", trained, _entropy, _softmax, lambda i: _minus(long(i), trained)),
    ]


def gradients(
    root: Root, inputs: Tensor, targets: Tensor, *, differentiable: bool = False
) -> dict[str, Tensor]:
    """Return the gradient of the sum of losses, by name of parameter."""
    named = dict(root.network.named_parameters())
    loss = root.loss(root.network(inputs), targets)
    found = torch.autograd.grad(loss, list(named.values()), create_graph=differentiable)
    return dict(zip(named, found, strict=True))


def product(root: Root, inputs: Tensor, vector: Tensor) -> Tensor:
    """Return the damped mean Gauss-Newton matrix of samples, times a vector `[d]`."""
    weights = {name: value.detach() for name, value in root.network.named_parameters()}

    def outputs(values: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = functional_call(root.network, dict(values), (inputs,))
        return found

    tangents: Any = (unflat(vector, root.network),)
    forward: Any = jvp(outputs, (weights,), tangents)
    backward: Any = vjp(outputs, weights)
    (back,) = backward[1](root.curvature(*forward))
    return flat(back) / len(inputs) + DAMPING * vector


def solved(matrix: Callable[[Tensor], Tensor], wanted: Tensor, steps: int) -> Tensor:
    """Return the solution of a linear system, by some steps of conjugate gradients."""
    found, rest = torch.zeros_like(wanted), wanted.clone()
    direction, square = rest.clone(), rest @ rest
    for _ in range(steps):
        image = matrix(direction)
        step = square / (direction @ image)
        found, rest = found + step * direction, rest - step * image
        square, former = rest @ rest, square
        if square < _ENOUGH * (wanted @ wanted):
            break
        direction = rest + square / former * direction
    return found


def flat(values: Mapping[str, Tensor]) -> Tensor:
    """Return all values in one vector."""
    return torch.cat([value.flatten() for value in values.values()])


def unflat(vector: Tensor, network: nn.Module) -> dict[str, Tensor]:
    """Return the values of a vector by name of parameter."""
    named = dict(network.named_parameters())
    pieces = vector.split([value.numel() for value in named.values()])
    return {n: piece.view_as(named[n]) for n, piece in zip(named, pieces, strict=True)}


def _trained(
    start: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    without: Sequence[int],
    epochs: int,
    learning_rate: float,
) -> nn.Module:
    """Return a trained copy; without some samples, all others come in the same order."""
    network, gone = copy.deepcopy(start), torch.tensor(without, dtype=torch.int64)
    optimizer = torch.optim.SGD(network.parameters(), learning_rate, momentum=0.9)
    order = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        for batch in torch.randperm(len(targets), generator=order).split(_BATCH):
            kept = batch[~torch.isin(batch, gone)]
            optimizer.zero_grad()
            (_entropy(network(inputs[kept]), targets[kept]) / _BATCH).backward()
            optimizer.step()
    return network


def _minus(after: nn.Module, before: nn.Module) -> dict[str, Tensor]:
    start = dict(before.named_parameters())
    return {name: (new - start[name]).detach() for name, new in after.named_parameters()}


def _entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets, reduction="sum")


def _softmax(outputs: Tensor, vectors: Tensor) -> Tensor:
    chances = outputs.softmax(1)
    return chances * (vectors - (chances * vectors).sum(1, keepdim=True))


def _squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - nn.functional.one_hot(targets, 10)).square().sum() / 2


def _same(outputs: Tensor, vectors: Tensor) -> Tensor:
    return vectors
