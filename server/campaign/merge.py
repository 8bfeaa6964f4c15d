"""Merging of the roots' Fisher information per group of models, addressed to the owners.

Nothing here changes a model.
"""

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from disinherit.common.encodings import Encoding
from disinherit.common.errors import DisinheritError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import InheritanceKind, ModelStatus
from disinherit.common.limits import clipped
from disinherit.common.method import Method
from disinherit.common.text import one_line
from disinherit.common.wire.packets import PackedFisher, renamed_labels
from disinherit.server.campaign.dry_pass import Collected, DryPass
from disinherit.server.campaign.group_merges import GroupMerges
from disinherit.server.now import now_us
from disinherit.server.planning.plan import Group
from disinherit.server.store.audit_events import request_digest
from disinherit.v1 import unlearning_pb2 as pb

_UNLEARNED = InheritanceKind.UNLEARNED

_log = logging.getLogger(__name__)


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
