"""Repair after dampening: a few steps of training on retained data, within the scope.

Dampening also weakens parameters of retained classes.  Steps on retained samples restore some of
their accuracy, without any forgotten sample.  A repair is the only training in unlearning, so it is
done on request only.

All randomness is seeded from the request, so a repeated request gives the same weights.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disinherit.client.owner.choosing import choose_samples
from disinherit.client.owner.owner import Batches
from disinherit.common.errors import DataError
from disinherit.common.fisher.gradients import right_norm_gradients
from disinherit.common.models.substitution import call_with

BATCH = 64
"""Most samples of a step."""

LEARNING_RATE = 2e-3
"""Learning rate of Adam."""


def repair(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    batches: Batches,
    forgotten: Sequence[int],
    *,
    steps: int,
    seed: int,
    device: torch.device,
) -> dict[str, Tensor]:
    """Take a few steps of Adam on the cross-entropy of retained samples.

    The model is in eval mode, so its buffers do not change.  Half-precision values are optimised in
    float32 and rounded for the forward pass and at the end: a step is often smaller than the
    distance between half-precision numbers, and Adam's epsilon is 0 in float16.

    Args:
        model: the model; its own parameters stay unchanged.
        parameters: name -> start value; only these change.
        batches: the data; samples of forgotten classes are left out.
        forgotten: indices of the forgotten classes.
        steps: number of steps of at most `BATCH` samples, > 0.
        seed: seed for choice and order of samples.
        device: device of the computation.

    Returns:
        New values of the parameters.

    Raises:
        DataError: if no sample is retained, or the steps diverge.
    """
    generator = torch.Generator().manual_seed(seed)
    samples = choose_samples(
        batches,
        steps * BATCH,
        generator,
        purpose="retained samples for the repair",
        left_out=forgotten,
    )
    model = model.to(device).eval()
    dtypes = {name: value.dtype for name, value in parameters.items()}
    new = {
        name: value.detach()
        .to(device, torch.promote_types(value.dtype, torch.float32), copy=True)
        .requires_grad_()
        for name, value in parameters.items()
    }
    optimizer = torch.optim.Adam(new.values(), LEARNING_RATE)
    left: list[Tensor] = []
    with torch.enable_grad(), right_norm_gradients(model):
        for _ in range(steps):
            left = left or list(torch.randperm(len(samples), generator=generator).split(BATCH))
            arguments, targets = samples.at(left.pop(), device)
            rounded = {name: value.to(dtypes[name]) for name, value in new.items()}
            logits = call_with(model, rounded, arguments)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            optimizer.zero_grad()
            F.cross_entropy(logits, targets).backward()
            optimizer.step()
    done = {name: value.detach().to(dtypes[name]) for name, value in new.items()}
    if not all(bool(value.isfinite().all()) for value in done.values()):
        raise DataError(
            f"Expected {steps} steps of repair to end in finite weights, but they did not. Request "
            "fewer, or none."
        )
    return done
