"""Alternatives: changes of a root of which it can take one only, where a model has got another one.

Each starts from the root as it was before the other.  Where its owner did not carry out a request,
the root of the next one is the same again, and so may the samples be.  Added to what the model got
by the first request, they would be taken out twice.
"""

from collections.abc import Container

from disinherit.client.deltas.repeating import Made, made_for
from disinherit.client.owner.owner import Owner
from disinherit.common.graph.identifiers import line_name
from disinherit.common.graph.records import ModelRecord
from disinherit.v1 import unlearning_pb2 as pb


def alternatives_to(
    owner: Owner, record: ModelRecord, packet: pb.FisherPacket, request_id: str
) -> list[str]:
    """Return the requests whose changes are in a version in the place of that in a packet.

    One change follows another if a version that the other's request made is in the line that it
    starts from.  Two changes of which none follows the other are alternatives.  Of packets of older
    releases no line is known; they are if they start from the same weights.

    Args:
        owner: the owner of the model.
        record: the version.
        packet: a change that it has not got.
        request_id: the present request.

    Returns:
        Their ids, the latest first; empty if the change may be added.
    """
    root, made = line_name(packet.sources[0]), packet.delta
    ids = {name for _, name in made_for(packet, request_id, {})}
    changes: dict[str, list[tuple[str, pb.AppliedDelta]]] = {}
    for entry in owner.store.made_by(record.id):
        for delta in pb.ModelResult.FromString(entry.result).deltas:
            if line_name(delta.root) == root:
                same = f"{delta.before}:{delta.after}" if delta.before else delta.packet
                changes.setdefault(same, []).append((entry.request_id, delta))
    found = []
    for some in changes.values():
        names = {id for request, delta in some for id in (request, *delta.repeats)}
        lines = [delta.line.requests for _, delta in some if delta.HasField("line")]
        follows = not names.isdisjoint(made.line.requests)
        if follows or any(not ids.isdisjoint(line) for line in lines):
            continue
        both_known = made.HasField("line") and len(lines) == len(some)
        if both_known or any(delta.before == made.before for _, delta in some):
            found.append(some[-1][0])
    return found


def missing_before(packet: pb.FisherPacket, had: Container[Made]) -> str:
    """Return the requests whose changes a packet takes the place of, and a version has not.

    Args:
        packet: the packet.
        had: changes that are in the version.

    Returns:
        Their ids, for people to read; empty if it has all.
    """
    root = line_name(packet.sources[0])
    return ", ".join(one for one in packet.delta.replaces if (root, one) not in had)
