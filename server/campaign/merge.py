"""Merging of the roots' Fisher information per group of models, addressed to the owners.

Nothing here changes a model.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from disinherit.common.encodings import Encoding
from disinherit.common.errors import DisinheritError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.limits import clipped
from disinherit.common.method import Method
from disinherit.common.text import one_line
from disinherit.common.wire.packets import PackedFisher, renamed_labels
from disinherit.server.campaign.deltas import address
from disinherit.server.campaign.dry_pass import Collected, DryPass
from disinherit.server.campaign.group_merges import GroupMerges
from disinherit.server.campaign.messages import Messages, leave_out, rebuilding_of
from disinherit.server.now import now_us
from disinherit.server.planning.plan import Group
from disinherit.server.planning.recipes import birth
from disinherit.v1 import unlearning_pb2 as pb

_log = logging.getLogger(__name__)


def merge(one: DryPass) -> None:
    """Merge the roots' answers per group of models, and address them to the owners.

    Changes of roots are not merged, but only addressed.
    """
    if one.inherits_delta:
        address(one)
        return
    started = time.perf_counter()
    one.say("merging Fisher information per group of models")
    prepared, collected, graph = one.prepared, one.collected, one.graph
    one.collected = Collected()
    messages = Messages(prepared.messages, graph, one.request, now_us())
    method = Method.from_proto(one.request.method)
    merges = GroupMerges(method.merge, Encoding.named(method.encoding))
    known: dict[_Part, frozenset[str]] = {}
    for group in one.groups:
        if leave_out(one, collected, group):
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
        for model in map(graph.model, group.models):
            alike, recipe = merged.alike.get(model.id), group.computed.get(model.id)
            messages.add(
                model,
                rebuilding=None if recipe is None else rebuilding_of(recipe, collected),
                fisher=messages.place(merged.packet, model.owner),
                alike=messages.place(alike, model.owner) if alike is not None else None,
            )
    for message in prepared.messages.values():
        # Computed versions come after all others, in the order of their computation.  Others stay
        # by groups, whose packets are decoded once.
        ages = {
            model.model_id: birth(graph, model.model_id)
            for model in message.models
            if model.HasField("rebuilding")
        }
        if ages:
            first = (0, "")
            listed = sorted(message.models, key=lambda model: ages.get(model.model_id, first))
            del message.models[:]
            message.models.extend(listed)
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
