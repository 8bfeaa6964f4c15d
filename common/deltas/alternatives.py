"""Alternatives: changes of a root of which it can take one only, where a model has got another one.

Each starts from the root as it was before the other.  Where its owner did not carry out a request,
the root of the next one is the same again, and so may the samples be.  Added to what the model got
by the first request, they would be taken out twice.
"""

import hashlib
from collections.abc import Iterable, Iterator

from disinherit.common.graph.identifiers import line_name
from disinherit.v1 import unlearning_pb2 as pb

_NO_VALUES = hashlib.sha256(b"\x08\0\0\0\0\0\0\0{}      ").hexdigest()
"""Digest of safetensors without a tensor, as of every change that is withheld: it tells nothing."""


def alternatives_to(
    packet: pb.FisherPacket, request_id: str, got: Iterable[tuple[str, pb.AppliedDelta]]
) -> list[str]:
    """Return the requests whose changes a model has got in the place of that in a packet.

    One change follows another if a version that the other's request made is in the line that it
    starts from.  Two changes of which none follows the other are alternatives.  Of packets of older
    releases no line is known; they are if they start from the same weights.

    Args:
        packet: a change that the model has not got.
        request_id: the present request.
        got: (request, change) of all that it has got, of any roots, the latest first.

    Returns:
        Their ids, the latest first; empty if the change may be added.
    """
    root, made = line_name(packet.sources[0]), packet.delta
    ids = {*(made.repeats or [request_id])}
    changes: dict[str, list[tuple[str, pb.AppliedDelta]]] = {}
    for request, delta in got:
        if line_name(delta.root) == root:
            same = f"{delta.before}:{delta.after}" if delta.before else delta.packet
            changes.setdefault(same, []).append((request, delta))
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


def is_same(packet: pb.FisherPacket, delta: pb.AppliedDelta) -> bool:
    """Return whether a change that a model has got is the one in a packet.

    The same tensors of the same root, or the same weights before and after, are the same change,
    whichever request they come with: its root did not take it then, or it would send another one
    now.

    Args:
        packet: the packet.
        delta: the change that the model has got.
    """
    if line_name(delta.root) != line_name(packet.sources[0]):
        return False
    names = {*by_digests(packet.digest, packet.delta.before, packet.delta.after)}
    return not names.isdisjoint(by_digests(delta.packet, delta.before, delta.after))


def by_digests(packet: str, before: str, after: str) -> Iterator[str]:
    """Yield what tells a change from others, whichever request it is for.

    Args:
        packet: SHA-256 of its tensors.
        before: digest of the root's weights before.
        after: digest of the root's weights after.
    """
    if packet != _NO_VALUES:
        yield f"tensors:{packet}"
    if before != after:
        yield f"{before}:{after}"
