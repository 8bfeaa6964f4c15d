"""Changes of other owners' roots, added to the models of one owner."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from disinherit.client.actions.unlearn import unlearn
from disinherit.common.deltas.packets import PackedDelta, encode_delta
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.delta_tasks import DIGEST, AnyNetworkOwner, delta_task
from tests.support.owner import FEATURES, HIDDEN, LABELS

FORGOTTEN = ["cat-1", "cat-4", "dog-2"]
APPLIED = pb.OUTCOME_APPLIED
REFUSED = pb.OUTCOME_INEFFECTIVE
FAILED = pb.OUTCOME_FAILED


def mlp(classes: int = len(LABELS), dtype: torch.dtype = torch.float32) -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes)).to(
        dtype
    )


def change_of(
    weights: Mapping[str, Tensor],
    *,
    labels: Sequence[str] = LABELS,
    head: tuple[str, str] = ("2.weight", "2.bias"),
    seed: int = 7,
    source: str = "far",
    scale: float = 0.1,
    **delta: Any,
) -> pb.FisherPacket:
    """The change of another owner's root with such weights; each seed is of another version."""
    random = torch.Generator().manual_seed(seed)
    values = {
        name: scale * torch.randn(value.shape, generator=random)
        for name, value in weights.items()
        if value.is_floating_point()
    }
    return encode_delta(
        values,
        labels=labels,
        head_weight=head[0],
        head_bias=head[1],
        further_heads=(),
        source=source,
        samples=3,
        delta=pb.Delta(
            before=f"{seed:064x}",
            after=f"{seed + 256:064x}",
            request_digest=DIGEST,
            root_method="replay",
            exact=True,
            **delta,
        ),
    )


def apply(
    owner: AnyNetworkOwner,
    packets: Sequence[pb.FisherPacket],
    model: str,
    *coefficients: float,
    **options: Any,
) -> pb.ModelResult:
    task = delta_task(owner, packets, {model: coefficients}, **options)
    (result,) = unlearn(owner, task).models
    return result


def summed(
    weights: Mapping[str, Tensor], packets: Sequence[pb.FisherPacket], *coefficients: float
) -> dict[str, Tensor]:
    """The sum in float64, rounded once to the dtype of each tensor."""
    decoded = [PackedDelta.from_packet(packet).values for packet in packets]
    found = {}
    for name, value in weights.items():
        total = value.double()
        for values, coefficient in zip(decoded, coefficients, strict=True):
            if name in values:
                total = total + coefficient * values[name].double()
        found[name] = total.to(value.dtype)
    return found


def normed() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.Linear(HIDDEN, len(LABELS))
    ).double()
