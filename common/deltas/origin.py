"""Checks of the change that a root's owner sent, against its record and the request."""

from disinherit.common.deltas.packets import MOST_VALUES, PackedDelta
from disinherit.common.errors import FisherError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.limits import clipped, shown
from disinherit.v1 import unlearning_pb2 as pb

_BUFFERS = 2**20


def received_delta(
    packet: pb.FisherPacket, root: pb.Root, record: ModelRecord, request_digest: str
) -> PackedDelta:
    """Return the change in a packet from the owner of a root.

    Args:
        packet: the packet, with its tensors; not trusted.
        root: the root in the request.
        record: its record.
        request_digest: SHA-256 of what the request asks for.

    Raises:
        FisherError: if the change is of another root, other weights or another request, or
            implausible; or as in `PackedDelta.from_packet`.
        LabelError: as there.
        CheckpointError: as there.
    """
    if list(packet.sources) != [record.id] or tuple(packet.labels) != record.labels:
        raise FisherError(
            f"Expected the change of {record.id} with its classes "
            f"{clipped(str(list(record.labels)))}, but its owner sent that of "
            f"{clipped(str(list(packet.sources)))} with classes "
            f"{clipped(str(list(packet.labels)))}."
        )
    delta = packet.delta
    for digest, expected, name in (
        (delta.before, record.digest, "from weights"),
        (delta.request_digest, request_digest, "for a request"),
    ):
        if digest != expected:
            raise FisherError(
                f"Expected the change of {record.id} {name} with digest {expected}, but its owner "
                f"sent that {name} with {shown(digest)}. Ask again, once it has this version."
            )
    _check_samples(packet, root, record)
    change = PackedDelta.from_packet(packet, most_values=most_values(record))
    if not change.after or (change.values and change.after == change.before):
        raise FisherError(
            f"Expected weights of {record.id} after unlearning with another digest than before, as "
            f"its owner sent a change of them, but got {shown(change.after)}."
        )
    return change


def most_values(record: ModelRecord) -> int:
    """Return how many values the change of a model can have, by what was registered with it.

    A normalisation layer has no more buffers than parameters, as a rule; small models may.

    Args:
        record: the model.
    """
    values = record.fisher_scale.values if record.fisher_scale is not None else 0
    return min(2 * values + _BUFFERS, MOST_VALUES) if values else MOST_VALUES


def _check_samples(packet: pb.FisherPacket, root: pb.Root, record: ModelRecord) -> None:
    listed = len(root.samples)
    least = listed if listed and not root.ignore_unknown else 1
    if not least <= packet.samples <= (listed or packet.samples):
        expected = f"{listed} samples that the request names" if listed else "a sample at least"
        raise FisherError(
            f"Expected the change of {record.id} without {expected}, but its owner sent that "
            f"without {packet.samples}."
        )
