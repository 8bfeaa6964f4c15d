"""Coefficients: how much of a root's change each model inherits.

To first order a child that starts from Σ_p w_p θ_p changes by Σ_p w_p δ_p. So for a model m::

    δ_m = Σ_r C(r, m) δ_r        C(r, m) = Σ over paths from r to m of Π of the edges' weights

A root that descends from another root adds up like every model: its own change is made from the
start of its training as it was, and does not contain the other's.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.rules import passes_taint

Coefficients = Mapping[str, float]
"""Root -> how much of its change a model inherits, for its upstream roots."""


def find_coefficients(
    graph: InheritanceGraph,
    roots: Sequence[str],
    affected: Iterable[str],
    cleansed: Collection[str] = (),
    origins: Mapping[str, Collection[str]] | None = None,
) -> dict[str, Coefficients]:
    """Return the coefficients of every affected model.

    Args:
        graph: the inheritance graph.
        roots: ids of the roots, each once.
        affected: ids of the roots and their descendants, in topological order.
        cleansed: successors made by this request; nothing passes along their `unlearned` edges.
        origins: root -> versions that it was unlearned from, which stand for it.

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
                for root, coefficient in found[edge.parent].items():
                    sums[root] = sums.get(root, 0.0) + edge.weight * coefficient
        sums.update(dict.fromkeys(starts.get(model, ()), 1.0))
        found[model] = sums
    return found
