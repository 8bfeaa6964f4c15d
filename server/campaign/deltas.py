"""Changes of roots: checked when they arrive, and addressed to the owners of descendants.

One packet stands for one root.  Nothing is merged: each message names the packets of the roots
upstream of a model, and how much of each it inherits.
"""

import time
from collections.abc import Mapping
from dataclasses import replace

from disinherit.common import limits
from disinherit.common.deltas.origin import received_delta
from disinherit.common.deltas.packets import PackedDelta, relabelled
from disinherit.common.errors import FisherError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.method import AUTO, REPLAY
from disinherit.common.wire.messages import NO_PACKET, without_tensors
from disinherit.server.campaign.dry_pass import Collected, DryPass
from disinherit.server.campaign.messages import Messages, leave_out, rebuilding_of, standing_for
from disinherit.server.campaign.root_lines import FromParents, from_parents, root_line
from disinherit.server.now import now_us
from disinherit.server.planning.plan import Group
from disinherit.server.planning.recipes import birth
from disinherit.server.store.audit_events import request_digest
from disinherit.v1 import unlearning_pb2 as pb


def check_delta(
    root: pb.Root,
    graph: InheritanceGraph,
    request: pb.UnlearningRequest,
    packet: pb.FisherPacket,
) -> None:
    """Refuse a change that is damaged, or not that of this root for this request.

    Args:
        root: the root of the request.
        graph: its descendants.
        request: the request.
        packet: its owner's packet, with tensors.

    Raises:
        FisherError: if it is refused.
        CheckpointError: if its bytes are no safetensors.
    """
    record = graph.model(root.model_id)
    if not packet.HasField("delta"):
        raise FisherError(
            f"Expected the change of root {record.id}, but its owner sent Fisher information. It "
            "may have an older release of Disinherit."
        )
    made = packet.delta
    line = root_line(graph, record)
    present = [one for one in line if one.digest == made.before]
    if not present:
        raise FisherError(
            f"Expected the change of {' or '.join(one.id for one in line)} with the weights that "
            f"were registered, but its owner sent that of digest {limits.shown(made.before)}. "
            "Register the owner's models again."
        )
    asked = request.method.root_method
    if asked not in ("", AUTO, made.root_method):
        raise FisherError(
            f"Expected root method {asked!r} at root {record.id}, but its owner used "
            f"{limits.shown(made.root_method)}."
        )
    if made.exact and made.root_method != REPLAY:
        raise FisherError(
            f"Expected root method {REPLAY!r} where the new weights of {record.id} are exact, but "
            f"its owner used {limits.shown(made.root_method)}."
        )
    received_delta(packet, root, replace(record, digest=made.before), request_digest(request))


def check_withheld(
    root: pb.Root,
    graph: InheritanceGraph,
    request: pb.UnlearningRequest,
    packet: pb.FisherPacket,
) -> None:
    """Refuse what stands for a withheld change if it is malformed, or has values.

    The arguments and errors are those of `check_delta`.
    """
    check_delta(root, graph, request, packet)
    if PackedDelta.from_packet(packet).values:
        raise FisherError(
            f"Expected no values of the change of {root.model_id}, which its owner withholds, but "
            "got some. Ask its owner."
        )


def address(one: DryPass) -> None:
    """Address the changes of roots to the owners of the affected models."""
    started = time.perf_counter()
    one.say("addressing the changes of roots to the owners of their descendants")
    prepared, collected = one.prepared, one.collected
    one.collected = Collected()
    messages = Messages(prepared.messages, one.graph, one.request, now_us())
    known: dict[tuple[str, tuple[tuple[str, str | None], ...]], pb.FisherPacket] = {}
    inherited: dict[str, FromParents] = {}
    for group in one.groups:
        models = _alone(one, collected, group)
        if not leave_out(one, collected, group, spared=models):
            models = group.models
        if not models:
            continue
        packets = []
        for root, renaming in zip(group.roots, group.renamings, strict=True):
            if (root, renaming) not in known:
                sent = collected.deltas.get(root) or collected.alone[root]
                known[root, renaming] = _described(sent, dict(renaming))
                prepared.tensors[sent.digest] = sent.tensors
            packets.append(known[root, renaming])
            if root not in inherited:
                inherited[root] = from_parents(one, root, known[root, renaming])
            refused = inherited[root].refused
            prepared.failed |= {model: refused[model] for model in models if model in refused}
        for model in map(one.graph.model, models):
            if model.id in prepared.failed:
                continue
            shares = zip(group.roots, packets, group.shares[model.id], strict=True)
            recipe = group.computed.get(model.id)
            messages.add(
                model,
                fisher=NO_PACKET,
                rebuilding=None if recipe is None else rebuilding_of(recipe, collected),
                shares=[
                    pb.Share(
                        packet=messages.place(packet, model.owner),
                        coefficient=coefficient
                        if packet.delta.replaces and not packet.delta.repeats
                        else inherited[root].shares.get(model.id, coefficient),
                        owner=one.graph.model(root).owner,
                        parents_had=inherited[root].shares.get(model.id) == 0,
                        own=packet.delta.before == model.digest
                        and standing_for(one.graph, model.id, [root]) == root,
                    )
                    for root, packet, coefficient in shares
                ],
            )
    for message in prepared.messages.values():  # parents first, so that children find them
        listed = sorted(message.models, key=lambda model: birth(one.graph, model.model_id))
        del message.models[:]
        message.models.extend(listed)
    prepared.merge_seconds = time.perf_counter() - started


def _alone(one: DryPass, collected: Collected, group: Group) -> tuple[str, ...]:
    """Return the models of a group that forget without what is missing of their roots.

    Those are the models of an owner that withholds the changes of its own roots from others: it has
    their new weights, and so what descendants of its own need.
    """
    missing = [root for root in group.roots if root in collected.errors]
    if not missing or not collected.alone.keys() >= set(missing):
        return ()
    owners = {one.graph.model(root).owner for root in missing}
    return tuple(model for model in group.models if owners == {one.graph.model(model).owner})


def _described(packet: pb.FisherPacket, names: Mapping[str, str | None]) -> pb.FisherPacket:
    """Return a packet for models that name classes otherwise, without its tensors."""
    described = without_tensors(packet)
    return relabelled(described, names) if names else described
