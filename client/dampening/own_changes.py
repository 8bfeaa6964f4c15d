"""Changes that requests made of an owner's own root, as far as its store has both weights.

A policy may keep such a change from others, not from the owner's own models.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from disinherit.client.owner.owner import Owner
from disinherit.client.store.ledger import LedgerEntry
from disinherit.common.deltas.changes import Ties, difference
from disinherit.common.deltas.packets import encode_delta
from disinherit.v1 import unlearning_pb2 as pb


def change_again(owner: Owner, entries: Sequence[LedgerEntry], ties: Ties) -> dict[str, Tensor]:
    """Return the change that earlier requests made of a root, if its owner still has the weights.

    Those of other roots, which the requests added to it, are not in it.

    Args:
        owner: the owner of the root.
        entries: of these requests.
        ties: names of tied parameters.

    Returns:
        Name -> change; empty if weights are gone.
    """
    total: dict[str, Tensor] = {}
    for entry in entries:
        if owner.store.destroyed(entry.model_id):
            return {}
        after = _own_weights(owner, entry)
        if after is None:
            return {}
        before = owner.store.weights(entry.model_id)
        for name, value in difference(before, after, ties).items():
            total[name] = total[name] + value if name in total else value
    return total


def own_change(owner: Owner, request_id: str, packet: pb.FisherPacket) -> pb.FisherPacket | None:
    """Return a packet with the values that were withheld, from the owner's own store.

    Args:
        owner: the owner of a descendant.
        request_id: the request.
        packet: the packet without values, as the owner of the root sent it; the owner holds a
            version of that name.

    Returns:
        The packet, in full.  `None` if the owner does not hold the root as it was and as it was
        announced: it is another's of that name, or the weights are gone by now.

    Raises:
        StoreError: if the owner does not hold the root.
        CheckpointError: if stored weights are missing or damaged.
    """
    store, made = owner.store, packet.delta
    root = packet.sources[0]
    before = store.present(root, request_id)
    structure = store.structure(before.id)
    ties = structure.ties if structure is not None else ()
    values: Mapping[str, Tensor] = {}
    if made.repeats:
        entries = [one for one in store.made_by(before.id) if one.request_id in made.repeats]
        if len(entries) == len(made.repeats) and entries[-1].digest_before == made.before:
            values = change_again(owner, entries, ties)
    elif before.digest == made.before:
        entry = store.applied(request_id, before.digest, before.id)
        kept = store.prepared(request_id, before.id)
        after = None
        if kept is not None and pb.Delta.FromString(kept[1]).after == made.after:
            after = kept[0]
        elif entry is not None and entry.digest_after == made.after:
            after = store.weights(entry.successor_id)
        if after is not None:
            values = difference(store.weights(before.id), after, ties)
    if not values:
        return None
    full = encode_delta(
        values,
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


def _own_weights(owner: Owner, entry: LedgerEntry) -> Mapping[str, Tensor] | None:
    """Return a root's weights after a request, without the changes of other roots in it.

    `None` if they are gone.
    """
    store = owner.store
    added = [one for one in pb.ModelResult.FromString(entry.result).deltas if one.applied]
    if len(added) > 1:
        kept = store.prepared(entry.request_id, entry.model_id)
        return None if kept is None else kept[0]
    return None if store.destroyed(entry.successor_id) else store.weights(entry.successor_id)
