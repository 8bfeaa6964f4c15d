"""Recipes: affected versions that were computed from their parents, and can be computed again.

A version that unlearning made was computed as the version that it was made of, from what became of
the parents.  So its recipe is that of its origin.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.recipes import Recipe
from disinherit.common.graph.records import InheritanceKind
from disinherit.common.graph.rules import computed_from


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
        start: where a client leaves, the version that all parents which inherit from it or are its
            contributions were trained from; empty if there is not one.
        kept: how much of what becomes of the start the other parents have, together.
    """

    recipe: Recipe
    ingredients: tuple[Ingredient, ...]
    needs: frozenset[str] | None
    start: str = ""
    kept: float = 0.0


def find_computed(
    graph: InheritanceGraph,
    roots: Sequence[str],
    upstream: Mapping[str, Collection[str]],
    leaving: Collection[str] = (),
    kept: float = 1.0,
) -> dict[str, Computed]:
    """Return the affected models that were computed from parents with the same class names.

    Args:
        graph: the inheritance graph.
        roots: ids of the roots, which are trained again and not computed.
        upstream: affected model -> the roots whose changes it inherits, as its coefficients have.
        leaving: roots that are all that a leaving client contributed.
        kept: what is left of a change in a model that trained on.

    Returns:
        Model -> how it is computed.
    """
    gone = {one for root in leaving for one in (root, *graph.origins(root))}
    found: dict[str, Computed] = {}
    needs: dict[str, frozenset[str] | None] = {}
    for model in sorted(upstream, key=partial(birth, graph)):
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
            recipe, start, share = edges[0].recipe or Recipe.AVERAGE, "", 0.0
            if gone and recipe == Recipe.AVERAGE:
                start, share = _start(graph, model, parts, roots)
            found[model] = Computed(recipe, parts, known, start, kept * share)
        elif known is not None and len(known) > 1:
            known = None  # the changes of other roots are added to it
        needs |= dict.fromkeys(line, known)
    return found


def _start(
    graph: InheritanceGraph, model: str, parts: Sequence[Ingredient], roots: Sequence[str]
) -> tuple[str, float]:
    """Return what contributions that leave were trained from, and the weight of others from there.

    What is left of an average after an earlier request has other weights, so it has no start.
    """
    leaving = [part for part in parts if part.leaves]
    others = [part for part in parts if part.affected and not part.leaves]
    known = model == origin(graph, model) and {part.model for part in leaving} <= {*roots}
    starts = {_trained_from(graph, part.model) for part in (*leaving, *others)}
    if not known or len(starts) != 1 or "" in starts:
        return "", 0.0
    staying = math.fsum(part.weight for part in parts if not part.leaves)
    share = math.fsum(part.weight for part in others) / staying if staying else 0.0
    return starts.pop(), share


def _trained_from(graph: InheritanceGraph, model: str) -> str:
    """Return the one version that a version was trained from; empty if there is no such."""
    edges = graph.parents(model)
    if len(edges) != 1 or edges[0].recipe or edges[0].kind is InheritanceKind.UNLEARNED:
        return ""
    return edges[0].parent if edges[0].weight == 1 else ""


def birth(graph: InheritanceGraph, model: str) -> tuple[int, str]:
    """Return what puts versions after all that they were computed from, also after unlearning."""
    first = graph.model(origin(graph, model))
    return first.created_us, first.id


def origin(graph: InheritanceGraph, model: str) -> str:
    """Return the version that a line of unlearned versions began with."""
    return (model, *graph.origins(model))[-1]
