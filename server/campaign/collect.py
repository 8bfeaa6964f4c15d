"""Collection of what descendants inherit from roots: Fisher information, or the root's own change.

Answers are stored before anything else, and roots with stored answers are not asked again.  Nothing
here changes a model.
"""

import logging
import time
from collections.abc import Mapping, Sequence, Set

from disinherit.common.deltas.packets import PackedDelta
from disinherit.common.errors import CheckpointError, DisinheritError, StoreError
from disinherit.common.limits import ANSWER, FISHER, clipped
from disinherit.common.text import one_line
from disinherit.common.wire.packets import PackedFisher
from disinherit.server.campaign.deltas import check_delta, check_withheld
from disinherit.server.campaign.dry_pass import Collected, DryPass, Prepared
from disinherit.server.campaign.fisher_checks import check_scale
from disinherit.server.campaign.messages import standing_for
from disinherit.server.store.audit_events import request_digest
from disinherit.server.transport.answers import is_older, reply_of, root_packets, unhandled
from disinherit.server.transport.base import Answer, Ask
from disinherit.server.transport.sizes import fisher_bytes
from disinherit.v1 import unlearning_pb2 as pb

_ASKED_FOR = {
    False: "Fisher information of the data to forget, from the roots",
    True: "unlearning the roots, for the change that their descendants inherit",
}

_log = logging.getLogger(__name__)


def collect(one: DryPass) -> None:
    """Ask the owners of roots without stored answers for what their descendants inherit."""
    started = time.perf_counter()
    one.say(_ASKED_FOR[one.inherits_delta])
    wanted = {root for group in one.groups for root in group.roots}
    one.collected = Collected()
    needed = wanted - _known(one, wanted)
    by_owner: dict[str, dict[str, pb.Root]] = {}
    for root in one.request.roots:
        if root.model_id in needed:
            owner = one.graph.model(root.model_id).owner
            by_owner.setdefault(owner, {})[root.model_id] = root
    what = "change" if one.inherits_delta else "Fisher information"
    one.collected.errors = dict.fromkeys(sorted(needed), f"its owner sent no {what} for it")
    asked = list(by_owner)
    while asked and one.goes_on():
        asks = [_fisher_ask(one, owner, by_owner[owner]) for owner in asked]
        asked = []
        for answer in one.ask(asks):
            if _take(one, answer, by_owner[answer.ask.owner]):
                asked.append(answer.ask.owner)
    one.prepared = Prepared(fisher_seconds=time.perf_counter() - started)


def _fisher_ask(one: DryPass, owner: str, roots: Mapping[str, pb.Root]) -> Ask:
    """Return the query for some roots; the owner answers as many as fit into one message."""
    task = pb.FisherTask(
        request_id=one.request.id,
        roots=roots.values(),
        method=one.request.method,
        request_digest=request_digest(one.request),
        enough_bytes=FISHER.most,
        most_bytes=ANSWER.most - FISHER.most,
        inherited_by_own=_inherited_by_own(one, owner, roots.keys()) if one.inherits_delta else (),
    )
    bounds = [(root, one.bound_by(id)) for id, root in roots.items()]
    most = fisher_bytes(bounds, one.request.method.scope)
    action = "query.delta" if one.inherits_delta else "query.fisher"
    return Ask(owner, action, task, most_bytes=most)


def _inherited_by_own(one: DryPass, owner: str, roots: Set[str]) -> list[str]:
    """Return the roots of an owner of which descendants of the same owner are to be unlearned."""
    found = set()
    for group in one.groups:
        own = [model for model in group.models if one.graph.model(model).owner == owner]
        for root in roots & {*group.roots}:
            if any(standing_for(one.graph, model, [root]) != root for model in own):
                found.add(root)
    return sorted(found)


def _take(one: DryPass, answer: Answer, roots: dict[str, pb.Root]) -> bool:
    """Check and keep an owner's answer, and return whether to ask for the roots it left out."""
    collected, owner = one.collected, answer.ask.owner
    reply, error = reply_of(answer, pb.FisherReply)
    if reply is None:
        if is_older(answer):
            error = (
                f"owner {owner} has an older release of Disinherit, which does not know "
                f"{answer.ask.action}: update it"
            )
        collected.errors.update(dict.fromkeys(roots, error))
        collected.unreachable.update(roots if answer.unreachable else ())
        return False
    before = len(roots)
    sound: dict[str, Sequence[pb.FisherPacket]] = {}
    taken = Collected()
    for fisher in reply.roots:
        if fisher.model_id not in roots:
            continue
        root = roots.pop(fisher.model_id)
        try:
            packets = root_packets(root, one.graph.model(root.model_id), fisher)
            _take_packets(one, root, packets, taken)
        except Exception as refused:  # one answer must not stop the others
            foreseen = isinstance(refused, DisinheritError)
            reason = one_line(str(refused)) if foreseen else unhandled(answer, refused)
            collected.errors[root.model_id] = reason
            if fisher.withheld:
                collected.withheld.add(root.model_id)
                _take_alone(one, root, fisher)
            _log.warning(
                "Refused what owner %s sent for root %s: %s",
                owner,
                root.model_id,
                clipped(collected.errors[root.model_id]),
            )
        else:
            sound[root.model_id] = packets
    try:
        one.keep(owner, sound)
    except StoreError:
        raise
    except Exception as error:
        collected.errors.update(dict.fromkeys(sound, unhandled(answer, error)))
    else:
        collected.fishers |= taken.fishers
        collected.deltas |= taken.deltas
        for model in sound:
            del collected.errors[model]
    return reply.more and 0 < len(roots) < before


def _take_packets(
    one: DryPass, root: pb.Root, packets: Sequence[pb.FisherPacket], into: Collected
) -> None:
    """Check the packets of a root, and take them.

    Raises:
        FisherError: if they are implausible.
        CheckpointError: if their bytes are no safetensors.
    """
    if one.inherits_delta:
        check_delta(root, one.graph, one.request, packets[0])
        into.deltas[root.model_id] = packets[0]
    else:
        decoded = [PackedFisher.from_packet(packet) for packet in packets]
        check_scale(root, one.bound_by(root.model_id), one.request.method.scope, decoded)
        into.fishers[root.model_id] = decoded


def _take_alone(one: DryPass, root: pb.Root, withheld: pb.RootFisher) -> None:
    """Take the digests of a root whose change is withheld: it is to forget all the same."""
    if not one.inherits_delta or not withheld.packets:
        return
    try:
        check_withheld(root, one.graph, one.request, withheld.packets[0])
    except DisinheritError as refused:
        reason = one_line(str(refused))
        one.collected.errors[root.model_id] += f" What it sent in its place was refused: {reason}"
    else:
        one.collected.alone[root.model_id] = withheld.packets[0]


def _known(one: DryPass, wanted: Set[str]) -> set[str]:
    """Take roots' earlier answers, and return these roots; for an unusable one, ask again."""
    known = set()
    for root in sorted(wanted & one.packets.keys()):
        try:
            packets = one.known_packets(root)
            # Checked when they came; what bounds them may have been registered anew since.
            if one.inherits_delta:
                if not one.is_current(root, packets[0]):
                    one.discard([root])
                    continue
                PackedDelta.from_packet(packets[0])
                one.collected.deltas[root] = packets[0]
            else:
                fishers = [PackedFisher.from_packet(packet) for packet in packets]
                one.collected.fishers[root] = fishers
        except StoreError:
            raise
        except CheckpointError:  # its files are missing or damaged
            continue
        except Exception:  # whatever the cause, the root is asked again
            _log.exception("cannot read what root %s answered before; it is asked again", root)
            one.discard([root])
        else:
            known.add(root)
    return known
