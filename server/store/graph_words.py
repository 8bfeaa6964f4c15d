"""Description of a request's part of the graph, for the audit log and attestations."""

from collections.abc import Collection

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.graph_digest import lineage_digest


def graph_words(graph: InheritanceGraph, models: Collection[str]) -> dict[str, str | int]:
    """Return the digest of some versions with the edges that lead to them, and how many there are.

    Args:
        graph: holds the versions and their parents.
        models: ids of the versions.

    Raises:
        GraphError: if a version is unknown.
    """
    return {
        "sha256": lineage_digest(graph, models),
        "models": len(models),
        "edges": sum(len(graph.parents(model)) for model in models),
    }
