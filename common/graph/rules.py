"""Rules of the inheritance graph for edges, replaced records and requests.

Pure checks of records and edges; the graph itself stores them.
"""

import math
from collections.abc import Callable, Collection, Iterable

from disinherit.common.errors import GraphError, LabelError
from disinherit.common.graph.labels import check_label_mapping
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.common.text import did_you_mean

_TOLERANCE = 1e-6  # for a sum of aggregation weights
_IDENTITY = ("owner", "architecture", "labels", "digest", "created_us")


def check_parents(
    child: ModelRecord,
    edges: Iterable[Inheritance],
    present: Iterable[Inheritance],
    find: Callable[[str], ModelRecord],
) -> None:
    """Check that `edges` can become further parents of `child`.

    Args:
        child: the derived version; it need not be in the graph yet.
        edges: the edges to add.
        present: the edges that lead to it already.
        find: returns the version with an id, or raises `GraphError`.

    Raises:
        GraphError: if an edge leads to another child, exists already or starts at a version that is
            not older, or the weights of the merge sum to more than 1.
        LabelError: if a label mapping does not fit the two label spaces.
    """
    known = list(present)
    taken = {edge.parent for edge in known}
    for edge in edges:
        check_edge(edge, child, find)
        if edge.parent in taken:
            raise GraphError(
                f"Expected one edge from {edge.parent!r} to {child.id!r}, but got another; "
                f"leave it out."
            )
        taken.add(edge.parent)
        known.append(edge)
    total = merged_weight(known)
    if total is not None and total > 1 + _TOLERANCE:
        raise GraphError(
            f"Expected the weights of the parents of {child.id!r} to sum to at most 1, but "
            f"got {total:.9g}; give each parent its share of the merge."
        )


def check_edge(edge: Inheritance, child: ModelRecord, find: Callable[[str], ModelRecord]) -> None:
    """Check one edge into `child`, independent of others; arguments and errors as above."""
    name = f"inheritance {edge.parent!r} -> {edge.child!r}"
    if edge.child != child.id:
        raise GraphError(f"Expected edges that lead to {child.id!r}, but got {name}.")
    parent = find(edge.parent)
    if child.created_us <= parent.created_us:
        raise GraphError(
            f"Expected the child of {name} to be younger than its parent, created at "
            f"{parent.created_us} us, but got {child.created_us} us; correct created_us or "
            f"the direction."
        )
    try:
        check_label_mapping(parent.labels, child.labels, edge.labels)
    except LabelError as error:
        raise LabelError(f"For {name}: {error}") from error


def merged_weight(edges: Iterable[Inheritance]) -> float | None:
    """Return the sum of the weights of merging edges; `None` without such edges.

    Example:
        >>> merged_weight([Inheritance("r", "m", InheritanceKind.FEDERATED, 0.25)])
        0.25
        >>> merged_weight([Inheritance("r", "t", InheritanceKind.TRANSFER)])
    """
    weights = [edge.weight for edge in edges if edge.kind.merges]
    return math.fsum(weights) if weights else None


def check_complete(child: str, parents: Iterable[Inheritance]) -> None:
    """Check that a merge has all its parents.

    Raises:
        GraphError: if the weights of the merging parents do not sum to 1, within 1e-6.
    """
    total = merged_weight(parents)
    if total is not None and abs(total - 1) > _TOLERANCE:
        raise GraphError(
            f"Expected the weights of the federated and distributed parents of {child!r} to sum "
            f"to 1, but got {total:.9g}; add the parents that are missing or correct the weights."
        )


def check_same_version(present: ModelRecord, record: ModelRecord) -> None:
    """Check that two records describe the same version.

    Raises:
        GraphError: if owner, architecture, labels, digest or creation time differ.
    """
    for name in _IDENTITY:
        old, new = getattr(present, name), getattr(record, name)
        if old != new:
            raise GraphError(
                f"Expected {name} of model {record.id!r} to stay {old!r}, but got {new!r}; "
                f"add a new version instead."
            )


def is_same_version(present: ModelRecord, record: ModelRecord) -> bool:
    """Whether two records describe the same version; fields that may change are ignored."""
    return all(getattr(present, name) == getattr(record, name) for name in _IDENTITY)


def check_roots(roots: Iterable[str], known: Collection[str]) -> None:
    """Check the roots of a request against the ids of all `known` models.

    Raises:
        GraphError: if there are no roots, or one is unknown.
    """
    wanted = list(roots)
    if not wanted:
        raise GraphError(
            "Expected at least one root, but got none; name the models that were trained "
            "directly on the data to forget."
        )
    for root in wanted:
        if root not in known:
            raise GraphError(
                f"Expected roots that are models in the graph, but got {root!r}; add the model "
                f"first or correct the id.{did_you_mean(root, known)}"
            )


def check_cleansed(record: ModelRecord, parents: Iterable[Inheritance]) -> None:
    """Check that a cleansed version was made by unlearning.

    Raises:
        GraphError: if it has no `unlearned` edge into it.
    """
    if all(edge.kind is not InheritanceKind.UNLEARNED for edge in parents):
        raise GraphError(
            f"Expected cleansed versions to be made by unlearning, but no unlearned edge "
            f"leads to {record.id!r}; name the successors the campaign made."
        )


def passes_taint(edge: Inheritance, cleansed: Collection[str]) -> bool:
    """Return whether taint passes along an edge: always, unless it cleansed its child."""
    return edge.kind is not InheritanceKind.UNLEARNED or edge.child not in cleansed


def computed_from(edges: Iterable[Inheritance]) -> tuple[Inheritance, ...]:
    """Return the edges to a version that was computed from its parents, in the order of places.

    Returns:
        The edges, or nothing if it was trained, or its recipe is unknown or not complete.
    """
    ordered = sorted(edges, key=lambda edge: edge.place)
    recipes = {edge.recipe for edge in ordered}
    places = [edge.place for edge in ordered]
    if len(recipes) != 1 or None in recipes or places != list(range(1, len(ordered) + 1)):
        return ()
    return tuple(ordered)
