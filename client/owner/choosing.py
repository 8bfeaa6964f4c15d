"""Choice of an owner's samples for a training of a few steps, seeded by the request."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from disinherit.client.owner.owner import Batches
from disinherit.common.errors import DataError
from disinherit.common.models.inputs import to_device, unpack_batch


@dataclass(frozen=True, slots=True, eq=False)
class ChosenSamples:
    """Samples in memory.

    Attributes:
        inputs: the model's arguments, each `[n, ...]`.
        targets: class indices, `[n]`.
    """

    inputs: Sequence[Tensor]
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def at(self, chosen: Tensor, device: torch.device) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return arguments and targets at some positions, on a device."""
        arguments = to_device([tensor[chosen] for tensor in self.inputs], device)
        return arguments, self.targets[chosen].to(device)


def request_seed(request_id: str, model_id: str) -> int:
    """Return the seed of what a request does to a model, in [0, 2^63)."""
    digest = hashlib.sha256(f"{request_id}\0{model_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def choose_samples(
    batches: Batches,
    most: int,
    generator: torch.Generator,
    *,
    purpose: str,
    left_out: Sequence[int] = (),
) -> ChosenSamples:
    """Return at most `most` samples, chosen at random; no more than twice as many are held.

    Args:
        batches: the samples.
        most: how many.
        generator: of the choice.
        purpose: what they are for, for an error.
        left_out: indices of classes to leave out.

    Raises:
        DataError: if there is none.
    """
    inputs: list[list[Tensor]] = []
    targets: list[Tensor] = []
    keys: list[Tensor] = []
    held = 0
    for index, item in enumerate(batches):
        some, classes = unpack_batch(item, index)
        kept = ~torch.isin(classes.cpu(), torch.tensor(list(left_out), dtype=classes.dtype))
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
        raise DataError(f"Expected {purpose}, but got none.")
    order = torch.cat(keys).argsort()[:most]
    return ChosenSamples(_joined(inputs, order), torch.cat(targets)[order])


def _joined(inputs: Sequence[Sequence[Tensor]], order: Tensor) -> list[Tensor]:
    """Return the rows of each argument over all batches, in the given order."""
    return [torch.cat(parts)[order] for parts in zip(*inputs, strict=True)]
