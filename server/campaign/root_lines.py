"""Lines of versions of a root, and which models were made of versions that have forgotten."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from disinherit.common.deltas.alternatives import alternatives_to, is_same
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.identifiers import line_name, successor_id
from disinherit.common.graph.records import InheritanceKind, ModelRecord
from disinherit.server.campaign.dry_pass import DryPass
from disinherit.server.planning.coefficients import find_coefficients, kept_of_change
from disinherit.server.planning.targets import find_starts
from disinherit.v1 import unlearning_pb2 as pb


def root_line(graph: InheritanceGraph, record: ModelRecord) -> list[ModelRecord]:
    """Return the first version of a root, and those that requests made of it, one by one.

    Args:
        graph: the inheritance graph.
        record: a version of the root.
    """
    line = [graph.model((record.id, *graph.origins(record.id))[-1])]
    for version in line:  # grows during the loop
        line += map(graph.model, graph.successors(version.id))
    return line


def still_missing(
    graph: InheritanceGraph,
    request: pb.UnlearningRequest,
    root: str,
    repeated: Collection[str],
) -> dict[str, float]:
    """Return how much of a change that is sent again models do not have from their parents.

    A model that was made of a version which one of the requests has changed has that change by it.
    Whether a version has been changed itself its owner knows.

    Args:
        graph: the descendants of the root.
        request: the present request.
        root: the root.
        repeated: the earlier requests.

    Returns:
        Model -> its share of the change, of models that have less to get than their coefficients
        say; 0 if nothing.
    """
    affected = graph.affected(find_starts(graph, [root]))
    changed = {
        edge.child
        for model in affected
        for edge in graph.parents(model)
        if edge.kind is InheritanceKind.UNLEARNED
        and edge.child in {successor_id(edge.parent, one) for one in (request.id, *repeated)}
    }
    first = root_line(graph, graph.model(root))[0].id  # later versions inherit from it
    kept = kept_of_change(request)
    found = find_coefficients(graph, [first], affected, changed, kept=kept)
    return {
        model: min(found[model].get(first, 0.0), 1.0)
        for model in affected
        if changed.isdisjoint((model, *graph.origins(model)))
    }


@dataclass(frozen=True, slots=True)
class FromParents:
    """What models have of a root's change by the versions that they were made of.

    Attributes:
        shares: model -> its share of the change, of models that have less to get than their
            coefficients say; 0 if nothing.
        refused: model -> why it cannot take the change.
    """

    shares: Mapping[str, float]
    refused: Mapping[str, str]


def from_parents(one: DryPass, root: str, packet: pb.FisherPacket) -> FromParents:
    """Return what models have of a root's change, or in its place, by what they were made of.

    Args:
        one: the pass.
        root: the root.
        packet: its change.
    """
    graph, made = one.graph, packet.delta
    got = _built_upon(one, root)
    same = {id for changes in got.values() for id, delta in changes if is_same(packet, delta)}
    repeated = {*made.repeats, *made.replaces, *made.again, *same}
    shares = still_missing(graph, one.request, root, repeated) if repeated else {}
    refused: dict[str, str] = {}
    for version, changes in got.items():
        if any(is_same(packet, delta) for _, delta in changes):
            continue
        if not (others := alternatives_to(packet, one.request.id, changes)):
            continue
        reason = (
            f"it was made of {version}, which has the change of root {root} for "
            f"{', '.join(others)}: that root did not take it before it made this one, and both are "
            "too much. Make it again of another version, or retire it"
        )
        line = line_name(version)
        below = graph.affected([version])
        refused |= {model: reason for model in below if line_name(model) != line}
    return FromParents(shares, refused)


def _built_upon(one: DryPass, root: str) -> dict[str, list[tuple[str, pb.AppliedDelta]]]:
    """Return the changes of a root in versions of its descendants that other models were made of.

    Whether a line of versions has a change itself its owner knows.

    Returns:
        Version -> (request, change) of its line, the latest first.
    """
    graph = one.graph
    made: dict[str, str] = {}
    for model in graph.affected(find_starts(graph, [root])):
        line = line_name(model)
        if line == line_name(root) or all(
            line_name(edge.child) == line for edge in graph.children(model)
        ):
            continue
        for version in (model, *graph.origins(model)):
            made |= {
                edge.child: edge.parent
                for edge in graph.parents(version)
                if edge.kind is InheritanceKind.UNLEARNED
            }
    results = {
        task.successor.id: (id, task.result)
        for id, task in one.made_of([*made.values()])
        if task.successor
    }
    found: dict[str, list[tuple[str, pb.AppliedDelta]]] = {}
    for version in made:
        for origin in (version, *graph.origins(version)):
            id, result = results.get(origin, ("", None))
            if result is not None:
                found.setdefault(version, []).extend((id, delta) for delta in result.deltas)
    return found
