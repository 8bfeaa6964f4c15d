"""Checks that Fisher information can be that of the root whose owner sent it.

A diagonal Fisher is a mean of squares.  So what is behind a packet, its values times its samples,
is part of what is behind the registered summary, and no sum over it can be larger::

    n Σ_j F_j  <=  Σ_c s_c        s_c: sum registered for class c (`FisherScale`)

where c runs over the class that the packet is of, or over all classes for samples and for a
client's whole contribution.  This binds an owner to what it said before it knew of any request.  It
is all that can be known of the scale of one packet (and if it says that noise was added, what noise
may add is allowed, too, up to as much again): a Fisher times a number is again a Fisher, of a
model that fits its data worse.
"""

import math
from collections.abc import Sequence

import torch

from disinherit.common import limits
from disinherit.common.errors import FisherError
from disinherit.common.graph.records import ModelRecord, ModelStatus
from disinherit.common.models.scope_text import is_head_scope
from disinherit.common.wire.packets import PackedFisher
from disinherit.v1 import unlearning_pb2 as pb

SLACK = 2.0
"""How many times the bound a sum may be: short encodings round, and loaders may augment anew."""


def check_scale(
    root: pb.Root, record: ModelRecord, scope: str, packets: Sequence[PackedFisher]
) -> None:
    """Refuse packets of other samples than were asked for, or larger than they can be.

    An owner that registered no scale, or in a scope that tells nothing of the request's, is
    believed.

    Args:
        root: what was asked for.
        record: the root.
        scope: of the request.
        packets: what its owner sent, checked against what was asked for.

    Raises:
        FisherError: if they cannot be the root's.
    """
    if root.samples and any(packet.samples != len(root.samples) for packet in packets):
        raise FisherError(
            f"Expected Fisher information of the {len(root.samples)} samples that the request "
            f"names, but the owner of {record.id} sent that of {packets[0].samples}."
        )
    for packet in packets:
        _check_numbers(record, packet)
        _check_head(record, scope, packet)
        bound, names = _bound(record, packet), _comparable(record, scope, packet)
        sums = (float(packet.values[name].sum(dtype=torch.float64)) for name in names)
        total = _samples(record, packet) * sum(sums)
        # Noise that is set to zero where it would be negative adds 0.4 deviations on average.  More
        # noise than there is information is none that an owner would send.
        noise = packet.noise * sum(packet.values[name].numel() for name in names)
        if bound is not None and names and not total <= SLACK * bound + min(noise, bound):
            raise FisherError(
                f"Expected squared gradients of {record.id} that sum to at most {bound:.3g}, as "
                f"its owner registered, but what it sent now sums to {total:.3g}, more than "
                f"{SLACK:g} times as much."
            )


def _check_numbers(record: ModelRecord, packet: PackedFisher) -> None:
    numbers = {"clip_norm": packet.clip_norm, "noise": packet.noise}
    for name, value in numbers.items():
        if not (math.isfinite(value) and value >= 0):
            raise FisherError(
                f"Expected a finite {name} >= 0 with the Fisher information of {record.id}, but "
                f"its owner sent {value}."
            )
    if packet.samples < 1:
        raise FisherError(
            f"Expected Fisher information of at least one sample of {record.id}, but its owner "
            f"sent that of {packet.samples}."
        )


def _check_head(record: ModelRecord, scope: str, packet: PackedFisher) -> None:
    """Refuse names of a head that are none of the parameters that were asked for."""
    limits.check_names(packet.head, "the head's parameter", error=FisherError)
    if is_head_scope(scope) and not packet.values.keys() >= set(packet.head):
        raise FisherError(
            f"Expected Fisher information of the head of {record.id}, but its owner sent that of "
            f"other parameters than {limits.clipped(', '.join(packet.head))}."
        )


def _samples(record: ModelRecord, packet: PackedFisher) -> int:
    """Return how many samples are behind a packet: no fewer than were registered, if it is known.

    An owner could say fewer, for its values to pass.
    """
    counts = record.provenance.samples_per_class if record.provenance is not None else {}
    return max(packet.samples, sum(counts.get(name, 0) for name in packet.classes))


def _bound(record: ModelRecord, packet: PackedFisher) -> float | None:
    if record.fisher_scale is None:
        return None
    if not packet.classes and record.status is not ModelStatus.ACTIVE:
        # Its weights may have been destroyed, and its successor's gradients are larger.
        return None
    sums = dict(zip(record.labels, record.fisher_scale.sums, strict=True))
    return sum(sums[name] for name in packet.classes or record.labels)


def _comparable(record: ModelRecord, scope: str, packet: PackedFisher) -> Sequence[str]:
    """Return the parameters of a packet that the registered sums are about, too."""
    registered = record.fisher_scale.scope if record.fisher_scale is not None else ""
    if registered in (scope, "all"):
        return list(packet.values)
    if registered == "head":
        return [name for name in packet.head if name in packet.values]
    return []
