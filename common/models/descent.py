"""Gradient descent on shuffled mini-batches, apart from the training of scenarios."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def minimise(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    count: int,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    batch_size: int = 64,
    enough: Callable[[], bool] = lambda: False,
    training: Callable[[nn.Module], object] = nn.Module.train,
) -> int:
    """Change a network in place by steps of Adam.

    On the CPU, the same arguments and number of threads give the same weights, bit for bit.
    Half-precision parameters are optimised in float32 and rounded after each step: a step is often
    smaller than the distance between half-precision numbers, and Adam's epsilon is 0 in float16.

    Args:
        network: put into training mode for the steps, and left in eval mode.
        loss: the loss of a mini-batch, from the positions `[b]` of its samples.
        count: number of samples, > 0; they are shuffled anew whenever all were used.
        steps: at most.
        learning_rate: of Adam.
        seed: of the order of the samples.
        batch_size: at most this many samples a step.
        enough: asked before the first step and after each, with the network in eval mode; true
            ends it.
        training: puts the network into the mode for a step.

    Returns:
        The number of steps taken.
    """
    parameters = list(network.parameters())
    wide = [_widened(parameter) for parameter in parameters]
    optimizer = torch.optim.Adam(wide, learning_rate)
    generator = torch.Generator().manual_seed(seed)
    left: list[Tensor] = []
    network.eval()
    for step in range(steps):
        if enough():
            return step
        if not left:
            order = torch.randperm(count, generator=generator)
            # A last batch of one cannot train batch normalisation, and is a noisy step anyway.
            left = [b for b in order.split(batch_size) if len(b) > 1 or count == 1]
        training(network)
        network.zero_grad()
        loss(left.pop(0)).backward()
        for value, parameter in zip(wide, parameters, strict=True):
            if value is not parameter and parameter.grad is not None:
                value.grad = parameter.grad.to(value.dtype)
        optimizer.step()
        with torch.no_grad():
            for value, parameter in zip(wide, parameters, strict=True):
                if value is not parameter and parameter.grad is not None:
                    parameter.copy_(value)
        network.eval()
    return steps


def steps_of(count: int, epochs: float, batch_size: int = 64) -> int:
    """Return the number of steps in so many epochs over `count` samples, at least 1.

    Example:
        >>> steps_of(130, 2), steps_of(10, 0.1)
        (6, 1)
    """
    return max(1, round(epochs * -(-count // batch_size)))


def _widened(parameter: nn.Parameter) -> Tensor:
    """Return the parameter itself, or its values in float32 if it is of half precision."""
    wider = torch.promote_types(parameter.dtype, torch.float32)
    if wider == parameter.dtype:
        return parameter
    return parameter.detach().to(wider).requires_grad_()
