"""Coefficients: how much of a root's change each model inherits.

To first order a child that starts from Σ_p w_p θ_p changes by Σ_p w_p δ_p. So for a model m::

    δ_m = Σ_r C(r, m) δ_r        C(r, m) = Σ over paths from r to m of Π of the edges' weights

A root that descends from another root adds up like every model: its own change is made from the
start of its training as it was, and does not contain the other's.

An aggregate that a server's optimiser made of a round's updates has an edge from the global model
of before, too, which these were trained from.  Both ways bring the same change: the larger counts.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import InheritanceKind
from disinherit.common.graph.rules import passes_taint
from disinherit.v1.unlearning_pb2 import UnlearningRequest

KEPT_OF_CLIENT = 0.9
"""What a model that trained on still has of the change that all training of a client made.

That change is far larger than that of some samples, and training on overwrites part of it.  With
0.8 too little is forgotten of texts after repair; with 1, accuracy on other data is lost
(docs/method.md, section 12).
"""


def kept_of_change(request: UnlearningRequest) -> float:
    """Return what a model that trained on still has of a change, as far as that is assumed.

    Where a client leaves and rounds of calibration follow, it is all: what is taken too much of,
    those rounds restore, and what is left they would not take (docs/method.md, section 12).
    """
    attenuated = request.client and not request.method.calibration_rounds
    return KEPT_OF_CLIENT if attenuated else 1.0


Coefficients = Mapping[str, float]
"""Root -> how much of its change a model inherits, for its upstream roots."""


def find_coefficients(
    graph: InheritanceGraph,
    roots: Sequence[str],
    affected: Iterable[str],
    cleansed: Collection[str] = (),
    origins: Mapping[str, Collection[str]] | None = None,
    kept: float = 1.0,
) -> dict[str, Coefficients]:
    """Return the coefficients of every affected model.

    Args:
        graph: the inheritance graph.
        roots: ids of the roots, each once.
        affected: ids of the roots and their descendants, in topological order.
        cleansed: successors made by this request; nothing passes along their `unlearned` edges.
        origins: root -> versions that it was unlearned from, which stand for it.
        kept: what is left of a change in a model that trained on; averages and successors did not.

    Returns:
        Model -> root -> coefficient, above 0, for the upstream roots of the model.
    """
    stops = frozenset(cleansed)
    starts: dict[str, list[str]] = {}
    for root in roots:
        for model in {root, *(origins or {}).get(root, ())}:
            starts.setdefault(model, []).append(root)
    found: dict[str, Coefficients] = {}
    for model in affected:
        sums: dict[str, float] = {}
        again: dict[str, float] = {}
        before = _global_before(graph, model)
        for edge in graph.parents(model):
            if edge.parent in found and passes_taint(edge, stops):
                computed = edge.recipe or edge.kind is InheritanceKind.UNLEARNED
                share = edge.weight * (1.0 if computed else kept)
                way = again if edge.parent == before else sums
                for root, coefficient in found[edge.parent].items():
                    way[root] = way.get(root, 0.0) + share * coefficient
        for root, coefficient in again.items():
            sums[root] = max(sums.get(root, 0.0), coefficient)
        sums.update(dict.fromkeys(starts.get(model, ()), 1.0))
        found[model] = sums
    return found


def _global_before(graph: InheritanceGraph, model: str) -> str:
    """Return the parent of an aggregate that its merged parents were trained from; else nothing."""
    edges = graph.parents(model)
    merged = [edge.parent for edge in edges if edge.kind.merges]
    others = [edge.parent for edge in edges if not edge.kind.merges]
    if not merged or len(others) != 1 or any(edge.recipe for edge in edges):
        return ""
    trained = all(others[0] in {up.parent for up in graph.parents(one)} for one in merged)
    return others[0] if trained else ""
