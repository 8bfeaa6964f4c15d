"""Collection of Fisher information from roots, merged per group (MFIM) and addressed to owners.

Answers are stored before anything else, and roots with stored answers are not asked again.  Nothing
here changes a model.
"""

import logging
import time
from collections.abc import Mapping, Sequence, Set

from disinherit.common.errors import CheckpointError, DisinheritError, StoreError
from disinherit.common.graph.records import InheritanceKind
from disinherit.common.limits import ANSWER, FISHER, clipped
from disinherit.common.text import one_line
from disinherit.common.wire.packets import PackedFisher
from disinherit.server.campaign.dry_pass import Collected, DryPass, Prepared
from disinherit.server.campaign.fisher_checks import check_scale
from disinherit.server.store.audit_events import request_digest
from disinherit.server.transport.answers import reply_of, root_packets, unhandled
from disinherit.server.transport.base import Answer, Ask
from disinherit.server.transport.sizes import fisher_bytes
from disinherit.v1 import unlearning_pb2 as pb

_UNLEARNED = InheritanceKind.UNLEARNED

_log = logging.getLogger(__name__)


def collect(one: DryPass) -> None:
    """Ask the owners of roots without stored answers for Fisher information of the forget set."""
    started = time.perf_counter()
    one.say("Fisher information of the data to forget, from the roots")
    wanted = {root for group in one.groups for root in group.roots}
    known = _known(one, wanted)
    needed = wanted - known.keys()
    by_owner: dict[str, dict[str, pb.Root]] = {}
    for root in one.request.roots:
        if root.model_id in needed:
            owner = one.graph.model(root.model_id).owner
            by_owner.setdefault(owner, {})[root.model_id] = root
    one.collected = Collected(
        fishers=known,
        errors=dict.fromkeys(sorted(needed), "its owner sent no Fisher information for it"),
    )
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
    )
    bounds = [(root, one.bound_by(id)) for id, root in roots.items()]
    most = fisher_bytes(bounds, one.request.method.scope)
    return Ask(owner, "query.fisher", task, most_bytes=most)


def _take(one: DryPass, answer: Answer, roots: dict[str, pb.Root]) -> bool:
    """Check and keep an owner's answer, and return whether to ask for the roots it left out."""
    collected, owner = one.collected, answer.ask.owner
    reply, error = reply_of(answer, pb.FisherReply)
    if reply is None:
        collected.errors.update(dict.fromkeys(roots, error))
        collected.unreachable.update(roots if answer.unreachable else ())
        return False
    before = len(roots)
    sound: dict[str, Sequence[pb.FisherPacket]] = {}
    fishers: dict[str, Sequence[PackedFisher]] = {}
    for fisher in reply.roots:
        if fisher.model_id not in roots:
            continue
        root = roots.pop(fisher.model_id)
        try:
            packets = root_packets(root, one.graph.model(root.model_id), fisher)
            decoded = [PackedFisher.from_packet(packet) for packet in packets]
            check_scale(root, one.bound_by(root.model_id), one.request.method.scope, decoded)
        except Exception as refused:  # one answer must not stop the others
            foreseen = isinstance(refused, DisinheritError)
            reason = one_line(str(refused)) if foreseen else unhandled(answer, refused)
            collected.errors[root.model_id] = reason
            collected.withheld.update([root.model_id] if fisher.withheld else [])
            _log.warning(
                "Refused what owner %s sent for root %s: %s",
                owner,
                root.model_id,
                clipped(collected.errors[root.model_id]),
            )
        else:
            sound[root.model_id], fishers[root.model_id] = packets, decoded
    try:
        one.keep(owner, sound)
    except StoreError:
        raise
    except Exception as error:
        collected.errors.update(dict.fromkeys(sound, unhandled(answer, error)))
    else:
        collected.fishers.update(fishers)
        for taken in fishers:
            del collected.errors[taken]
    return reply.more and 0 < len(roots) < before


def _known(one: DryPass, wanted: Set[str]) -> dict[str, Sequence[PackedFisher]]:
    """Return roots' earlier answers; a root with an unusable answer is asked again."""
    known: dict[str, Sequence[PackedFisher]] = {}
    for root in sorted(wanted & one.packets.keys()):
        try:
            known[root] = [PackedFisher.from_packet(packet) for packet in one.known_packets(root)]
        except StoreError:
            raise
        except CheckpointError:  # its files are missing or damaged
            continue
        except Exception:  # whatever the cause, the root is asked again
            _log.exception("cannot read what root %s answered before; it is asked again", root)
            one.discard([root])
    return known
