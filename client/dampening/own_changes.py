"""The change of an owner's own root, which a policy keeps from others, not from its own models."""

from disinherit.client.owner.owner import Owner
from disinherit.common.deltas.changes import difference
from disinherit.common.deltas.packets import encode_delta
from disinherit.v1 import unlearning_pb2 as pb


def own_change(owner: Owner, request_id: str, packet: pb.FisherPacket) -> pb.FisherPacket | None:
    """Return a packet with the values that were withheld, from the owner's own store.

    Args:
        owner: the owner of a descendant.
        request_id: the request.
        packet: the packet without values, as the owner of the root sent it; the owner holds a
            version of that name.

    Returns:
        The packet, in full.  `None` if the owner does not hold the root as it was and as it was
        announced: it is another's of that name, or has the changes of other roots by now.

    Raises:
        StoreError: if the owner does not hold the root.
        CheckpointError: if stored weights are missing or damaged.
    """
    store, made = owner.store, packet.delta
    root = packet.sources[0]
    before = store.present(root, request_id)
    if before.digest != made.before:
        return None
    entry = store.applied(request_id, before.digest, before.id)
    kept = store.prepared(request_id, before.id)
    if entry is not None and entry.digest_after == made.after:
        after = store.weights(entry.successor_id)
    elif kept is not None and pb.Delta.FromString(kept[1]).after == made.after:
        after = kept[0]
    else:
        return None
    structure = store.structure(before.id)
    ties = structure.ties if structure is not None else ()
    full = encode_delta(
        difference(store.weights(before.id), after, ties),
        labels=before.labels,
        head_weight=packet.head_weight,
        head_bias=packet.head_bias,
        further_heads=packet.further_heads,
        source=root,
        samples=packet.samples,
        delta=made,
    )
    full.labels[:] = packet.labels
    return full
