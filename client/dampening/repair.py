"""Repair after dampening: a few steps of training on retained data, within the scope.

Dampening also weakens parameters of retained classes.  Steps on retained samples restore some of
their accuracy, without any forgotten sample.  A repair is the only training in unlearning, so it is
done on request only.

All randomness is seeded from the request, so a repeated request gives the same weights.
"""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disinherit.client.owner.owner import Batches
from disinherit.common.errors import DataError
from disinherit.common.fisher.gradients import right_norm_gradients
from disinherit.common.models.inputs import to_device, unpack_batch
from disinherit.common.models.substitution import call_with

BATCH = 64
"""Most samples of a step."""

LEARNING_RATE = 2e-3
"""Learning rate of Adam."""


def repair_seed(request_id: str, model_id: str) -> int:
    """Return the seed of the repair of a model for a request, in [0, 2^63)."""
    digest = hashlib.sha256(f"{request_id}\0{model_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


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
    inputs, targets = _choice(batches, forgotten, steps * BATCH, generator)
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
            left = left or list(torch.randperm(len(targets), generator=generator).split(BATCH))
            chosen = left.pop()
            arguments = to_device([tensor[chosen] for tensor in inputs], device)
            rounded = {name: value.to(dtypes[name]) for name, value in new.items()}
            logits = call_with(model, rounded, arguments)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            optimizer.zero_grad()
            F.cross_entropy(logits, targets[chosen].to(device)).backward()
            optimizer.step()
    done = {name: value.detach().to(dtypes[name]) for name, value in new.items()}
    if not all(bool(value.isfinite().all()) for value in done.values()):
        raise DataError(
            f"Expected {steps} steps of repair to end in finite weights, but they did not. Request "
            "fewer, or none."
        )
    return done


def _choice(
    batches: Batches, forgotten: Sequence[int], most: int, generator: torch.Generator
) -> tuple[list[Tensor], Tensor]:
    """Return retained samples, at most `most` of them, chosen at random."""
    inputs: list[list[Tensor]] = []
    targets: list[Tensor] = []
    keys: list[Tensor] = []
    held = 0
    for index, item in enumerate(batches):
        some, classes = unpack_batch(item, index)
        kept = ~torch.isin(classes.cpu(), torch.tensor(list(forgotten), dtype=classes.dtype))
        inputs.append([tensor.cpu()[kept] for tensor in some])
        targets.append(classes.cpu()[kept])
        keys.append(torch.rand(len(targets[-1]), generator=generator, dtype=torch.float64))
        held += len(targets[-1])
        if held > 2 * most:  # samples with the smallest keys are a uniform choice
            order = torch.cat(keys).argsort()[:most]
            inputs = [_joined(inputs, order)]
            targets, keys = ([torch.cat(one)[order]] for one in (targets, keys))
            held = most
    if not held:
        raise DataError("Expected retained samples for the repair, but got none.")
    order = torch.cat(keys).argsort()[:most]
    return _joined(inputs, order), torch.cat(targets)[order]


def _joined(inputs: Sequence[Sequence[Tensor]], order: Tensor) -> list[Tensor]:
    """Return the rows of each argument over all batches, in the given order."""
    return [torch.cat(parts)[order] for parts in zip(*inputs, strict=True)]
