"""Changes of roots: checked when they arrive, and addressed to the owners of descendants.

One packet stands for one root.  Nothing is merged: each message names the packets of the roots
upstream of a model, and how much of each it inherits.
"""

import time
from collections.abc import Mapping

from disinherit.common import limits
from disinherit.common.deltas.packets import PackedDelta, relabelled
from disinherit.common.errors import FisherError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import InheritanceKind, ModelRecord
from disinherit.common.method import AUTO
from disinherit.server.campaign.dry_pass import Collected, DryPass
from disinherit.server.campaign.messages import Messages, leave_out, standing_for
from disinherit.server.now import now_us
from disinherit.server.store.audit_events import request_digest
from disinherit.server.store.packets import without_tensors
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
    limits.check_digest(made.after, f"the digest after unlearning of {record.id}", FisherError)
    present = _line(graph, record)
    if made.before not in {one.digest for one in present}:
        raise FisherError(
            f"Expected the change of {' or '.join(one.id for one in present)} with the weights "
            f"that were registered, but its owner sent that of digest {limits.shown(made.before)}. "
            "Register the owner's models again."
        )
    if made.request_digest != request_digest(request):
        raise FisherError(
            f"Expected the change of root {record.id} for this request, but its owner sent that "
            f"for another one, of digest {limits.shown(made.request_digest)}."
        )
    if made.after == made.before:
        raise FisherError(
            f"Expected root {record.id} to change, but its weights are the same after root method "
            f"{limits.shown(made.root_method)}. Choose another root method."
        )
    asked = request.method.root_method
    if asked not in ("", AUTO, made.root_method):
        raise FisherError(
            f"Expected root method {asked!r} at root {record.id}, but its owner used "
            f"{limits.shown(made.root_method)}."
        )
    too_many = root.samples and packet.samples > len(root.samples)
    unknown = root.samples and not root.ignore_unknown and packet.samples < len(root.samples)
    if packet.samples < 1 or too_many or unknown:
        raise FisherError(
            f"Expected the change of root {record.id} without {len(root.samples) or 'its'} "
            f"samples, but its owner sent one without {packet.samples}."
        )
    PackedDelta.from_packet(packet)


def address(one: DryPass) -> None:
    """Address the changes of roots to the owners of the affected models."""
    started = time.perf_counter()
    one.say("addressing the changes of roots to the owners of their descendants")
    prepared, collected = one.prepared, one.collected
    one.collected = Collected()
    messages = Messages(prepared.messages, one.graph, one.request, now_us())
    known: dict[tuple[str, tuple[tuple[str, str | None], ...]], pb.FisherPacket] = {}
    for group in one.groups:
        if leave_out(prepared, collected, one.graph, group, "change"):
            continue
        packets = []
        for root, renaming in zip(group.roots, group.renamings, strict=True):
            if (root, renaming) not in known:
                known[root, renaming] = _described(collected.deltas[root], dict(renaming))
                prepared.tensors[collected.deltas[root].digest] = collected.deltas[root].tensors
            packets.append(known[root, renaming])
        for model in map(one.graph.model, group.models):
            shares = zip(group.roots, packets, group.shares[model.id], strict=True)
            messages.add(
                model,
                shares=[
                    pb.Share(
                        packet=messages.place(packet, model.owner),
                        coefficient=coefficient,
                        own=packet.delta.before == model.digest
                        and standing_for(one.graph, model.id, [root]) == root,
                    )
                    for root, packet, coefficient in shares
                ],
            )
    prepared.merge_seconds = time.perf_counter() - started


def _line(graph: InheritanceGraph, record: ModelRecord) -> list[ModelRecord]:
    """Return a root and the versions that earlier requests made of it, one after the other."""
    line = [record]
    for version in line:  # grows during the loop
        line += [
            graph.model(edge.child)
            for edge in graph.children(version.id)
            if edge.kind is InheritanceKind.UNLEARNED
        ]
    return line


def _described(packet: pb.FisherPacket, names: Mapping[str, str | None]) -> pb.FisherPacket:
    """Return a packet for models that name classes otherwise, without its tensors."""
    described = without_tensors(packet)
    return relabelled(described, names) if names else described
