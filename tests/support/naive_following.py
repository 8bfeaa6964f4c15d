"""Class names followed from roots the plain way, root by root and class by class: an oracle."""

from collections.abc import Collection, Sequence

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import InheritanceKind
from disinherit.server.planning.class_names import packet_names

Names = dict[str, dict[str, set[str]]]
"""Root -> class name there -> the names under which it arrives."""

Pairs = tuple[tuple[str, str | None], ...]
"""What to rename for a root."""


def follow_naively(
    graph: InheritanceGraph,
    roots: Sequence[str],
    affected: Sequence[str],
    cleansed: Collection[str] = (),
) -> tuple[dict[str, Names], dict[str, str]]:
    """Return the names at every model, and model -> why they contradict each other."""
    arrived: dict[str, Names] = {}
    failed: dict[str, str] = {}
    for model in affected:
        labels = set(graph.model(model).labels)
        names: Names = {}
        for edge in graph.parents(model):
            if edge.kind is InheritanceKind.UNLEARNED and model in cleansed:
                continue
            for root, classes in arrived.get(edge.parent, {}).items():
                own = names.setdefault(root, {})
                for source, before in classes.items():
                    after = {edge.labels.get(name, name) for name in before} & labels
                    if after:
                        own.setdefault(source, set()).update(after)
        if model in roots:
            own = names.setdefault(model, {})
            for name in graph.model(model).labels:
                own.setdefault(name, set()).add(name)
        arrived[model] = names
        reason = _contradiction(graph, roots, names)
        if reason:
            failed[model] = reason
    return arrived, failed


def group_naively(
    graph: InheritanceGraph, roots: Sequence[str], arrived: dict[str, Names], models: Sequence[str]
) -> list[tuple[tuple[str, ...], tuple[Pairs, ...], tuple[str, ...]]]:
    """Return upstream roots, what to rename for each, and models, of every group."""
    groups: dict[tuple[tuple[str, ...], tuple[Pairs, ...]], list[str]] = {}
    for model in models:
        own = tuple(root for root in roots if root in arrived[model])
        changed = []
        for root in own:
            renaming = {a: min(names) for a, names in arrived[model][root].items()}
            labels = graph.model(root).labels
            found = packet_names(labels, graph.model(model).labels, renaming)
            changed.append(tuple(sorted(found.items())))
        groups.setdefault((own, tuple(changed)), []).append(model)
    return [(own, changed, tuple(models)) for (own, changed), models in groups.items()]


def _contradiction(graph: InheritanceGraph, roots: Sequence[str], names: Names) -> str:
    """Return the first contradiction, in the order of the request and of each root's labels."""
    for root in (root for root in roots if root in names):
        origins: dict[str, str] = {}
        for source in (name for name in graph.model(root).labels if name in names[root]):
            targets = names[root][source]
            if len(targets) > 1:
                both = " and as ".join(map(repr, sorted(targets)))
                return (
                    f"class {source!r} of root {root} arrives both as {both}: correct the label "
                    "mappings"
                )
            other = origins.setdefault(min(targets), source)
            if other != source:
                return (
                    f"classes {other!r} and {source!r} of root {root} both arrive as "
                    f"{min(targets)!r}: correct the label mappings"
                )
    return ""
