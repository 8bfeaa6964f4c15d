"""Plausibility checks of the Fisher information that a root's owner sent.

A diagonal Fisher is a mean of squared gradients.  A packet's values times its samples are therefore
a part of the registered summary, and their sum cannot be larger::

    n Σ_j F_j  <=  Σ_c s_c        s_c: sum registered for class c (`FisherScale`)

where c runs over the class of the packet, or over all classes for samples and clients.  This binds
an owner to the scale that it registered before it knew of any request.  If the packet reports added
noise, the bound grows by what noise can add, and at most doubles.  More cannot be checked on one
packet: a Fisher times a number is again a Fisher, of a model that fits its data worse.
"""

import math
from collections.abc import Sequence

from disinherit.common import limits
from disinherit.common.errors import FisherError
from disinherit.common.graph.records import ModelRecord, ModelStatus
from disinherit.common.models.scope_text import is_head_scope
from disinherit.common.wire.packets import PackedFisher
from disinherit.v1 import unlearning_pb2 as pb

SLACK = 2.0
"""Factor on the bound, since short encodings round and loaders may augment differently."""


def check_scale(
    root: pb.Root, record: ModelRecord, scope: str, packets: Sequence[PackedFisher]
) -> None:
    """Refuse packets with a wrong number of samples, or above the registered scale.

    Without a registered scale, or with one in an incomparable scope, sums are not checked.

    Args:
        root: the root of the request.
        record: its record.
        scope: scope of the request.
        packets: its owner's packets, whose form was checked already.

    Raises:
        FisherError: if they are implausible.
    """
    if root.samples and any(packet.samples != len(root.samples) for packet in packets):
        raise FisherError(
            f"Expected Fisher information of the {len(root.samples)} samples that the request "
            f"names, but the owner of {record.id} sent that of {packets[0].samples}."
        )
    for packet in packets:
        _check_numbers(record, packet)
        _check_factors(record, packet)
        _check_head(record, scope, packet)
        bound, names = _bound(record, packet), _comparable(record, scope, packet)
        sums = (packet.total(name) for name in names)
        total = _samples(record, packet) * sum(sums)
        # Gaussian noise clipped at zero adds 0.4 standard deviations on average.  Noise above the
        # bound is implausible.
        shapes = packet.shapes
        noise = packet.noise * sum(math.prod(shapes[name]) for name in names)
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


def _check_factors(record: ModelRecord, packet: PackedFisher) -> None:
    """Refuse sums that stand for more values than the model has, or for several matrices.

    They are short, and what is multiplied out of them could fill the memory of others.
    """
    if not packet.factors:
        return
    values = sum(math.prod(shape) for shape in packet.shapes.values())
    known = record.fisher_scale.values if record.fisher_scale is not None else 0
    most = known or limits.ANSWER.most // 4
    if values > most:
        raise FisherError(
            f"Expected Fisher information of at most {most:,} values, as many as are known of "
            f"{record.id}, but what its owner sent in factors stands for {values:,}."
        )
    if any(len(one.rows) > 1 for one in packet.factors.values()):
        raise FisherError(
            f"Expected one matrix for each parameter of {record.id}, but its owner sent the "
            "factors of several."
        )


def _check_head(record: ModelRecord, scope: str, packet: PackedFisher) -> None:
    """Refuse names of a head that are not among the packet's parameters."""
    limits.check_names(packet.head, "the head's parameter", error=FisherError)
    if is_head_scope(scope) and not packet.values.keys() >= set(packet.head):
        raise FisherError(
            f"Expected Fisher information of the head of {record.id}, but its owner sent that of "
            f"other parameters than {limits.clipped(', '.join(packet.head))}."
        )


def _samples(record: ModelRecord, packet: PackedFisher) -> int:
    """Return the number of samples of a packet, at least the registered number of its classes.

    Otherwise an owner could report fewer, so that larger values pass.
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
    """Return the parameters of a packet that the registered sums include."""
    registered = record.fisher_scale.scope if record.fisher_scale is not None else ""
    if registered in (scope, "all"):
        return list(packet.values)
    if registered == "head":
        return [name for name in packet.head if name in packet.values]
    return []
