"""Follow class names from the roots of a request along the inheritance.

A class has a name at the root where it is to be forgotten, and perhaps another at a descendant.
"""

from collections.abc import Collection, Iterable, Mapping

from disinherit.common.graph import InheritanceGraph
from disinherit.common.records import InheritanceKind

Renaming = Mapping[str, str]
"""Class name at a root -> class name at a model."""

_Names = dict[str, dict[str, set[str]]]
"""Root -> class name there -> the names under which it arrives, of which there should be one."""


def follow_classes(
    graph: InheritanceGraph,
    roots: Collection[str],
    affected: Iterable[str],
    cleansed: Collection[str] = (),
) -> tuple[dict[str, dict[str, Renaming]], dict[str, str]]:
    """Return how every root's classes are called at every affected model.

    Args:
        graph: the inheritance graph.
        roots: ids of the roots.
        affected: ids of the roots and their descendants, in topological order.
        cleansed: versions that this very request already made; nothing reaches them through that.

    Returns:
        Model -> upstream root -> renaming, and model -> reason where names contradict each other.
        A class that is lost on the way is not in the renaming.
    """
    arrived: dict[str, _Names] = {}
    renamings: dict[str, dict[str, Renaming]] = {}
    failed: dict[str, str] = {}
    for model in affected:
        names = _arrivals(graph, model, arrived, cleansed)
        if model in roots:
            own = names.setdefault(model, {})
            for name in graph.model(model).labels:
                own.setdefault(name, set()).add(name)
        arrived[model] = names
        reason = _contradiction(names)
        if reason:
            failed[model] = reason
        renamings[model] = {
            root: {source: min(targets) for source, targets in classes.items()}
            for root, classes in names.items()
        }
    return renamings, failed


def packet_names(source: Collection[str], target: Collection[str], renaming: Renaming) -> Renaming:
    """Return what to rename in a root's Fisher packet before it is sent to a model.

    Classes correspond by name there.  So one that was lost on the way must not carry the name of a
    class that the model came to know by itself: it gets a name that no model has.

    Args:
        source: class names of the root.
        target: class names of the model.
        renaming: class name at the root -> class name at the model.

    Returns:
        Class name at the root -> name in the packet, where they differ.
    """
    names = {a: b for a, b in renaming.items() if a != b}
    names |= {a: f"{a} (not inherited)" for a in source if a not in renaming and a in target}
    return names


def _arrivals(
    graph: InheritanceGraph,
    model: str,
    arrived: Mapping[str, _Names],
    cleansed: Collection[str],
) -> _Names:
    labels = set(graph.model(model).labels)
    names: _Names = {}
    for edge in graph.parents(model):
        if edge.kind is InheritanceKind.UNLEARNED and model in cleansed:
            continue
        for root, classes in arrived.get(edge.parent, {}).items():
            own = names.setdefault(root, {})
            for source, before in classes.items():
                after = {edge.labels.get(name, name) for name in before} & labels
                if after:
                    own.setdefault(source, set()).update(after)
    return names


def _contradiction(names: _Names) -> str:
    for root, classes in names.items():
        origins: dict[str, str] = {}
        for source, targets in classes.items():
            if len(targets) > 1:
                both = " and as ".join(map(repr, sorted(targets)))
                return (
                    f"class {source!r} of root {root} arrives both as {both}: correct the label "
                    "mappings"
                )
            target = min(targets)
            other = origins.setdefault(target, source)
            if other != source:
                return (
                    f"classes {other!r} and {source!r} of root {root} both arrive as {target!r}: "
                    "correct the label mappings"
                )
    return ""
