"""Coefficients: how much of a root's change each model inherits.

To first order a child that starts from Σ_p w_p θ_p changes by Σ_p w_p δ_p. So for a model m::

    δ_m = Σ_r C(r, m) δ_r        C(r, m) = Σ over paths from r to m of Π of the edges' weights

A root that descends from another root adds up like every model: its own change is made from the
start of its training as it was, and does not contain the other's.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import InheritanceKind
from disinherit.common.graph.rules import passes_taint

KEPT_OF_CLIENT = 0.9
"""What a model that trained on still has of the change that all training of a client made.

That change is far larger than that of some samples, and training on overwrites part of it.  With
0.8 too little is forgotten of texts after repair; with 1, accuracy on other data is lost
(docs/method.md, section 12).
"""

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
        for edge in graph.parents(model):
            if edge.parent in found and passes_taint(edge, stops):
                computed = edge.recipe or edge.kind is InheritanceKind.UNLEARNED
                share = edge.weight * (1.0 if computed else kept)
                for root, coefficient in found[edge.parent].items():
                    sums[root] = sums.get(root, 0.0) + share * coefficient
        sums.update(dict.fromkeys(starts.get(model, ()), 1.0))
        found[model] = sums
    return found
