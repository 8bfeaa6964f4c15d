"""Lines of versions of a root, and which models were made of versions that have forgotten."""

from collections.abc import Collection

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.identifiers import successor_id
from disinherit.common.graph.records import InheritanceKind, ModelRecord
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
