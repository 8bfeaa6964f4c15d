"""Versions that roots were unlearned from: a request at such a root is about their heirs, too."""

from collections.abc import Iterable

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import InheritanceKind


def find_origins(graph: InheritanceGraph, roots: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return root -> the versions that it was unlearned from, of roots that were.

    A successor knows what its origin knew, save what one request forgot; and so do all that
    inherited from the origin.  So a successor named as root stands for its origin, too.
    """
    found: dict[str, tuple[str, ...]] = {}
    for root in roots:
        chain = [root]
        for model in chain:  # which grows
            edges = graph.parents(model)
            before = [edge.parent for edge in edges if edge.kind is InheritanceKind.UNLEARNED]
            chain += [origin for origin in before if origin not in chain]
        if len(chain) > 1:
            found[root] = tuple(chain[1:])
    return found


def find_starts(graph: InheritanceGraph, roots: Iterable[str]) -> tuple[str, ...]:
    """Return roots and the versions that they were unlearned from, each once: all derive thence."""
    roots = list(roots)
    origins = find_origins(graph, roots).values()
    return tuple(dict.fromkeys([*roots, *(one for some in origins for one in some)]))
