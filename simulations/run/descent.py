"""Gradient descent on shuffled mini-batches, for whatever is not the training of a scenario."""

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
) -> int:
    """Change a network in place by steps of Adam.

    On the CPU, the same arguments and number of threads give the same weights, bit for bit.

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

    Returns:
        The number of steps taken.
    """
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
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
        network.train()
        optimizer.zero_grad()
        loss(left.pop(0)).backward()
        optimizer.step()
        network.eval()
    return steps


def steps_of(count: int, epochs: float, batch_size: int = 64) -> int:
    """Return the number of steps in so many epochs over `count` samples, at least 1.

    Example:
        >>> steps_of(130, 2), steps_of(10, 0.1)
        (6, 1)
    """
    return max(1, round(epochs * -(-count // batch_size)))
