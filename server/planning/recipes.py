"""Recipes: affected versions that were computed from their parents, and can be computed again.

A version that unlearning made was computed as the version that it was made of, from what became of
the parents.  So its recipe is that of its origin.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.recipes import Recipe
from disinherit.common.graph.rules import computed_from
from disinherit.server.planning.coefficients import find_coefficients
from disinherit.server.planning.targets import find_origins, find_starts


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A parent of a computed version.

    Attributes:
        model: its id, in the version that the recipe was recorded with.
        weight: weight of the edge.
        affected: whether another version takes its place by the request.
        leaves: whether it is the contribution of a client that leaves.
    """

    model: str
    weight: float
    affected: bool
    leaves: bool


@dataclass(frozen=True, slots=True)
class Computed:
    """How a version is computed from its parents.

    Attributes:
        recipe: the computation.
        ingredients: the parents, in the order of their places.
        needs: roots that must all be trained again exactly for it to be exact; `None` if it cannot
            be, since a parent can only be approximated.
    """

    recipe: Recipe
    ingredients: tuple[Ingredient, ...]
    needs: frozenset[str] | None


def find_computed(
    graph: InheritanceGraph, roots: Sequence[str], leaving: Collection[str] = ()
) -> dict[str, Computed]:
    """Return the affected models that were computed from parents with the same class names.

    Args:
        graph: the inheritance graph.
        roots: ids of the roots, which are trained again and not computed.
        leaving: roots that are all that a leaving client contributed.

    Returns:
        Model -> how it is computed.
    """
    affected = graph.affected(find_starts(graph, roots))
    upstream = find_coefficients(graph, roots, affected, (), find_origins(graph, roots))
    gone = {one for root in leaving for one in (root, *graph.origins(root))}
    found: dict[str, Computed] = {}
    needs: dict[str, frozenset[str] | None] = {}
    for model in sorted(affected, key=partial(birth, graph)):
        line = {model, *graph.origins(model)}
        known = frozenset(upstream[model]) if line & set(roots) else None
        edges = () if known else computed_from(graph.parents(origin(graph, model)))
        labels = graph.model(model).labels
        if edges and all(graph.model(e.parent).labels == labels and not e.labels for e in edges):
            parts = tuple(
                Ingredient(e.parent, e.weight, e.parent in upstream, e.parent in gone)
                for e in edges
            )
            above = [needs.get(p.model) for p in parts if p.affected and not p.leaves]
            known = None if None in above else frozenset().union(*filter(None, above))
            found[model] = Computed(edges[0].recipe or Recipe.AVERAGE, parts, known)
        elif known is not None and len(known) > 1:
            known = None  # the changes of other roots are added to it
        needs |= dict.fromkeys(line, known)
    return found


def birth(graph: InheritanceGraph, model: str) -> tuple[int, str]:
    """Return what puts versions after all that they were computed from, also after unlearning."""
    first = graph.model(origin(graph, model))
    return first.created_us, first.id


def origin(graph: InheritanceGraph, model: str) -> str:
    """Return the version that a line of unlearned versions began with."""
    return (model, *graph.origins(model))[-1]
