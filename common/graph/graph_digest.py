"""One digest for what a request found in the inheritance graph."""

import hashlib
from collections.abc import Collection

from disinherit.common.audit.chain import Json, canonical
from disinherit.common.graph.graph import InheritanceGraph


def lineage_digest(graph: InheritanceGraph, models: Collection[str]) -> str:
    """Return the SHA-256 of some versions and all edges that lead to them.

    Hashed is canonical JSON `{"edges": [[parent, child, kind, weight, labels], ...], "models":
    [[id, owner, architecture, digest], ...]}`, both sorted, with the weight as text.  What may
    change later without changing where a version came from (its status, its Fisher summary) is
    not in it.

    Args:
        graph: holds the versions and their parents.
        models: ids of the versions.

    Returns:
        64 hexadecimal digits.

    Raises:
        GraphError: if a version is unknown.
    """
    records = [graph.model(model) for model in sorted(models)]
    edges: list[Json] = [
        [edge.parent, edge.child, edge.kind.value, repr(float(edge.weight)), dict(edge.labels)]
        for record in records
        for edge in sorted(graph.parents(record.id), key=lambda edge: edge.parent)
    ]
    versions: list[Json] = [
        [record.id, record.owner, record.architecture, record.digest] for record in records
    ]
    return hashlib.sha256(canonical({"edges": edges, "models": versions})).hexdigest()
