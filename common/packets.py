"""Fisher information as it travels: tensors, where they belong and their digest."""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from disinherit.common.checkpoints import tensor_bytes, tensors_from_bytes
from disinherit.common.errors import FisherError
from disinherit.common.labels import align_rows, union_labels
from disinherit.common.merging import MergeRule, check_fisher, merge_fishers
from disinherit.v1.unlearning_pb2 import FisherPacket


def encode_fisher(
    values: Mapping[str, Tensor],
    *,
    labels: Sequence[str],
    head_weight: str,
    head_bias: str,
    sources: Sequence[str],
    classes: Sequence[str],
    samples: int,
) -> FisherPacket:
    """Pack a Fisher information for the wire.

    Args:
        values: parameter name -> non-negative tensor of the parameter's shape.
        labels: class names of the head's rows, `[C]`.
        head_weight: name of the head's weight.
        head_bias: name of the head's bias, `""` for a head without one.
        sources: ids of the root models it comes from.
        classes: the forgotten classes it stands for.
        samples: number of samples behind it.

    Returns:
        The packet, with the SHA-256 of its tensors.
    """
    data = tensor_bytes({name: value.cpu() for name, value in values.items()})
    return FisherPacket(
        tensors=data,
        digest=hashlib.sha256(data).hexdigest(),
        labels=labels,
        head_weight=head_weight,
        head_bias=head_bias,
        sources=sources,
        classes=classes,
        samples=samples,
    )


def decode_fisher(packet: FisherPacket) -> dict[str, Tensor]:
    """Unpack the tensors of a packet after checking them.

    Returns:
        Parameter name -> non-negative tensor.

    Raises:
        FisherError: if the digest does not fit, or a value is negative, NaN or infinite.
        CheckpointError: if the bytes are no safetensors.
    """
    what = f"the Fisher packet of {', '.join(packet.sources) or 'an unknown root'}"
    digest = hashlib.sha256(packet.tensors).hexdigest()
    if digest != packet.digest:
        raise FisherError(
            f"Expected digest {packet.digest!r} for {what}, but its bytes have {digest}. "
            "Ask its sender to send it again."
        )
    values = tensors_from_bytes(packet.tensors, what)
    for name, value in values.items():
        check_fisher(name, value, what)
    return values


def head_names(packet: FisherPacket) -> tuple[str, ...]:
    """Return the parameter names of the head in a packet."""
    return tuple(name for name in (packet.head_weight, packet.head_bias) if name)


def merge_packets(packets: Sequence[FisherPacket], rule: MergeRule) -> FisherPacket:
    """Merge packets of several roots and classes into one (MFIM, arXiv 2408.08493).

    Head rows are aligned by class *name* in the union of the label spaces; a class one root does
    not know contributes zero, which selects nothing.

    Args:
        packets: at least one packet.
        rule: `max` (the paper's), `mean` or `sum`.

    Returns:
        One packet that names all sources and classes.

    Raises:
        FisherError: if there is no packet, or names or shapes do not fit together.
    """
    if not packets:
        raise FisherError("Expected at least one Fisher packet to merge, but got none.")
    first = packets[0]
    for packet in packets[1:]:
        if head_names(packet) != head_names(first):
            raise FisherError(
                f"Expected the same head in every Fisher packet, but {', '.join(first.sources)} "
                f"has {head_names(first)} and {', '.join(packet.sources)} has {head_names(packet)}."
            )
    labels = union_labels([packet.labels for packet in packets])
    return encode_fisher(
        merge_fishers([align_head(packet, labels) for packet in packets], rule),
        labels=labels,
        head_weight=first.head_weight,
        head_bias=first.head_bias,
        sources=list(dict.fromkeys(source for packet in packets for source in packet.sources)),
        classes=list(dict.fromkeys(name for packet in packets for name in packet.classes)),
        samples=sum(packet.samples for packet in packets),
    )


@torch.no_grad()
def align_head(
    packet: FisherPacket, labels: Sequence[str], mapping: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """Return a packet's tensors with the head's rows placed by class name in another label space.

    Args:
        packet: the packet.
        labels: class names of the target head's rows, `[C']`.
        mapping: packet class name -> target class name where they differ.

    Returns:
        Parameter name -> tensor; head rows without a counterpart are zero.

    Raises:
        FisherError: if the packet is damaged, or names no head whose rows could be placed.
        LabelError: if its label space does not fit its head.
    """
    values = decode_fisher(packet)
    if not packet.head_weight and (mapping or list(packet.labels) != list(labels)):
        raise FisherError(
            f"Expected the classes {list(packet.labels)} everywhere, as the Fisher packet of "
            f"{', '.join(packet.sources)} names no linear head, but got {list(labels)}."
        )
    for name in head_names(packet):
        if name in values:
            values[name] = align_rows(values[name], packet.labels, labels, mapping)
    return values


def rename_classes(packet: FisherPacket, names: Mapping[str, str]) -> FisherPacket:
    """Return a packet whose classes carry the names they have at other models.

    Args:
        packet: the packet; left as it is.
        names: class name in the packet -> its name there, where they differ.  A class of the packet
            that has, by chance, the new name of another one is left out of the result.

    Raises:
        FisherError: if the packet is damaged.
    """
    if not names:
        return packet
    taken = set(names.values())
    labels = [name for name in packet.labels if name in names or name not in taken]
    values = align_head(packet, labels)
    return encode_fisher(
        values,
        labels=[names.get(name, name) for name in labels],
        head_weight=packet.head_weight,
        head_bias=packet.head_bias,
        sources=packet.sources,
        classes=[names.get(name, name) for name in packet.classes if name in labels],
        samples=packet.samples,
    )
