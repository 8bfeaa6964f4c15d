"""Collection of Fisher information from roots, merged per group (MFIM) and addressed to owners.

Answers are stored before anything else, and roots with stored answers are not asked again.  Nothing
here changes a model.
"""

import logging
import time
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass

from disinherit.common.encodings import Encoding
from disinherit.common.errors import CheckpointError, DisinheritError, StoreError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import InheritanceKind, ModelStatus
from disinherit.common.limits import ANSWER, FISHER, clipped
from disinherit.common.method import Method
from disinherit.common.text import one_line
from disinherit.common.wire.packets import PackedFisher, renamed_labels
from disinherit.server.campaign.dry_pass import Collected, DryPass, Prepared
from disinherit.server.campaign.fisher_checks import check_scale
from disinherit.server.campaign.group_merges import GroupMerges
from disinherit.server.now import now_us
from disinherit.server.planning.plan import Group
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


def merge(one: DryPass) -> None:
    """Merge the roots' answers per group of models, and address them to the owners."""
    started = time.perf_counter()
    one.say("merging Fisher information per group of models")
    prepared, collected, graph = one.prepared, one.collected, one.graph
    one.collected = Collected()
    created = now_us()
    method = Method.from_proto(one.request.method)
    merges = GroupMerges(method.merge, Encoding.named(method.encoding))
    known: dict[_Part, frozenset[str]] = {}
    for group in one.groups:
        missing = [root for root in group.roots if root in collected.errors]
        if missing:
            later = collected.unreachable.issuperset(missing)
            for model in map(graph.model, group.models):
                reasons = "; ".join(
                    f"{root}: {collected.reason(graph.model(root), model.owner)}"
                    for root in missing
                )
                reason = f"no Fisher information from upstream root {reasons}"
                (prepared.waiting if later else prepared.failed)[model.id] = reason
            continue
        try:
            merged = _merge(merges, graph, group, collected.fishers, known)
        except Exception as error:  # one group must not stop the others
            # The message may name classes and shapes of one root, which other owners must not see.
            roots = ", ".join(group.roots)
            foreseen = isinstance(error, DisinheritError)
            why = clipped(one_line(str(error))) if foreseen else type(error).__name__
            _log.warning(
                "Cannot merge the Fisher information of %s: %s", roots, why, exc_info=not foreseen
            )
            owners = {graph.model(root).owner for root in group.roots}
            for model in map(graph.model, group.models):
                cause = why if owners == {model.owner} else "names or shapes differ, see the log"
                prepared.failed[model.id] = (
                    f"the Fisher information of {roots} cannot be merged: {cause}"
                )
            one.discard(group.roots)
            continue
        prepared.tensors.update(merged.tensors)
        _address(prepared.messages, graph, one.request, group, merged, created)
    prepared.merge_seconds = time.perf_counter() - started


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


_Part = tuple[str, tuple[tuple[str, str | None], ...], int]
"""Root, renaming of classes in its packets, and index of the packet."""


@dataclass(frozen=True, slots=True)
class _Merged:
    """The packets for the models of a group.

    Attributes:
        packet: the merged Fisher of all that is to be forgotten, without its tensors.
        alike: model -> the merged Fisher of only the classes that it was trained on directly, if
            these are not all; it compares its own Fisher with that.
        tensors: SHA-256 -> tensors of all packets.
    """

    packet: pb.FisherPacket
    alike: Mapping[str, pb.FisherPacket]
    tensors: Mapping[str, bytes]


def _merge(
    merges: GroupMerges,
    graph: InheritanceGraph,
    group: Group,
    fishers: Mapping[str, Sequence[PackedFisher]],
    known: dict[_Part, frozenset[str]],
) -> _Merged:
    """Merge the Fishers of a group; `known` caches the classes of each part for all groups."""

    def find(part: _Part) -> PackedFisher:
        root, renaming, place = part
        return fishers[root][place].renamed(dict(renaming))

    classes: dict[_Part, frozenset[str]] = {}
    for root, renaming in zip(group.roots, group.renamings, strict=True):
        for place, fisher in enumerate(fishers[root]):
            part = root, renaming, place
            if part not in known:
                names = renamed_labels(fisher.labels, dict(renaming))
                known[part] = frozenset(names[name] for name in fisher.classes if name in names)
            classes[part] = known[part]
    packet, data = merges.merge(list(classes), find)
    tensors = {packet.digest: data}
    alike: dict[str, pb.FisherPacket] = {}
    made: dict[tuple[_Part, ...], pb.FisherPacket] = {}
    distinct = set(classes.values())
    for model in map(graph.model, group.models):
        counts = model.provenance.samples_per_class if model.provenance is not None else {}
        held = {name for name, count in counts.items() if count}
        if any(names & held for names in distinct) and not all(names & held for names in distinct):
            some = tuple(part for part, names in classes.items() if names & held)
            if some not in made:
                made[some], data = merges.merge(some, find)
                tensors[made[some].digest] = data
            alike[model.id] = made[some]
    return _Merged(packet, alike, tensors)


def _address(
    messages: dict[str, pb.UnlearnTask],
    graph: InheritanceGraph,
    request: pb.UnlearningRequest,
    group: Group,
    merged: _Merged,
    created_us: int,
) -> None:
    """Add a group's models and their packets to the messages of the models' owners."""
    # Not shared between groups by digest, which does not cover the names of classes.
    positions: dict[tuple[str, int], int] = {}

    def place(packet: pb.FisherPacket, owner: str, message: pb.UnlearnTask) -> int:
        key = owner, id(packet)
        if key not in positions:
            positions[key] = len(message.fishers)
            message.fishers.append(packet)
        return positions[key]

    roots = {root.model_id: root for root in request.roots}
    for model in map(graph.model, group.models):
        message = messages.setdefault(
            model.owner,
            pb.UnlearnTask(
                request_id=request.id,
                method=request.method,
                created_us=created_us,
                measure_retain=request.roll_out.HasField("max_retain_drop"),
                max_retain_drop=(
                    request.roll_out.max_retain_drop
                    if request.roll_out.HasField("max_retain_drop")
                    else None
                ),
                request_digest=request_digest(request),
                roots=[
                    root
                    for root in request.roots
                    if root.samples and graph.model(root.model_id).owner == model.owner
                ],
            ),
        )
        alike = merged.alike.get(model.id)
        root = roots.get(_standing_for(graph, model.id, roots), pb.Root())
        message.models.append(
            pb.ModelTask(
                model_id=model.id,
                fisher=place(merged.packet, model.owner, message),
                alike=place(alike, model.owner, message) if alike is not None else None,
                digest=model.digest,
                samples=root.samples,
                sample_salt=root.sample_salt,
                ignore_unknown=root.ignore_unknown,
                created_us=_made_us(graph, model.id),
            )
        )


def _made_us(graph: InheritanceGraph, model: str) -> int:
    """Return when a model's present successor was made, to be made again; 0 without one.

    Models with a successor of another request are not dampened.
    """
    made = (graph.model(e.child) for e in graph.children(model) if e.kind is _UNLEARNED)
    return next((one.created_us for one in made if one.status is not ModelStatus.RETIRED), 0)


def _standing_for(graph: InheritanceGraph, model: str, roots: Collection[str]) -> str:
    """Return the root that a version is a successor of; else the version's own id."""
    while model not in roots:
        before = [e for e in graph.parents(model) if e.kind is InheritanceKind.UNLEARNED]
        if not before:
            break
        model = before[0].parent
    return model
