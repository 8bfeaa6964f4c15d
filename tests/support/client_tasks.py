"""Messages for owners, and what must come of them, computed independently of Disinherit."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from disinherit.client.actions.fisher import forget_fishers
from disinherit.client.owner.owner import Owner
from disinherit.client.privacy.policy import OPEN, ReleasePolicy
from disinherit.common.method import Method
from disinherit.common.wire.packets import PackedFisher, merge
from disinherit.v1 import unlearning_pb2 as pb

HEAD = ("2.weight", "2.bias")
"""The head's parameters of the owners' network in `tests.support.owner`."""


def make_method(**changes: Any) -> Method:
    """Head scope, rows of the forgotten classes, nothing tuned, Fishers as they are."""
    return replace(Method(alpha=1.0, lam=1.0, gauge=1.0, rescale=False), **changes)


def collect(
    owner: Owner,
    root: str,
    classes: Sequence[str],
    method: Method,
    policy: ReleasePolicy = OPEN,
) -> pb.FisherPacket:
    """Ask one root and merge what it answers."""
    fisher_task = pb.FisherTask(
        request_id="forget",
        roots=[pb.Root(model_id=root, classes=classes)],
        method=method.to_proto(),
    )
    (answer,) = forget_fishers(owner, fisher_task, policy).roots
    assert not answer.error, answer.error
    packet, tensors = merge([PackedFisher.from_packet(packet) for packet in answer.packets], "max")
    packet.tensors = tensors
    return packet


def make_task(
    owner: Owner,
    models: Sequence[str],
    packet: pb.FisherPacket,
    method: Method,
    request_id: str = "forget",
) -> pb.UnlearnTask:
    """Ask an owner to unlearn in models that it has."""
    return pb.UnlearnTask(
        request_id=request_id,
        method=method.to_proto(),
        fishers=[packet],
        models=[pb.ModelTask(model_id=m, digest=owner.store.record(m).digest) for m in models],
        created_us=1000,
    )


def naive_sums(
    network: nn.Module, weights: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, classes: int
) -> dict[str, Tensor]:
    """Sums of squared gradients per class `[C, *shape]`, one backward pass per sample."""
    network.load_state_dict(weights)
    network.eval()
    sums = {n: p.new_zeros(classes, *p.shape).detach() for n, p in network.named_parameters()}
    for sample, target in zip(inputs, targets.tolist(), strict=True):
        network.zero_grad()
        nn.functional.cross_entropy(network(sample[None]), torch.tensor([target])).backward()
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                sums[name][target] += parameter.grad**2
    return sums


def by_hand(
    theta: Tensor, forget: Tensor, reference: Tensor, rows: Sequence[int], alpha: float, lam: float
) -> Tensor:
    """The rule, value by value, with the gauge fixed at strength 1 (`theta` is of the head)."""
    lowest = theta.min(dim=0).values
    result = (theta - lowest).clone()
    for place in itertools.product(*map(range, theta.shape)):
        f, r = forget[place].item(), reference[place].item()
        if place[0] in rows and f > alpha * r:
            result[place] *= min(1.0, lam * r / f)
    return result


def files_of(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Hungry(nn.Module):
    """Runs out of memory above a number of samples at once, and remembers how it was called.

    Args:
        network: does the work.
        limit: samples at once.
    """

    def __init__(self, network: nn.Module, limit: int) -> None:
        super().__init__()
        self.network = network
        self.limit = limit
        self.sizes: list[int] = []
        self.inferring: list[bool] = []

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > self.limit:
            raise torch.OutOfMemoryError(f"{len(inputs)} samples are too many")
        self.sizes.append(len(inputs))
        self.inferring.append(torch.is_inference_mode_enabled())
        logits: Tensor = self.network(inputs)
        return logits


def apart(task: pb.UnlearnTask) -> tuple[pb.UnlearnTask, dict[str, bytes]]:
    """A task as it travels: without the tensors of its packets, which are beside it."""
    light = pb.UnlearnTask()
    light.CopyFrom(task)
    for packet in light.fishers:
        packet.ClearField("tensors")
    return light, {packet.digest: packet.tensors for packet in task.fishers}
