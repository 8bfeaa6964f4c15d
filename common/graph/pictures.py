"""What a drawing of the inheritance graph shows: every version, or each model once.

A request affects versions; a model is drawn as affected if one of its versions is.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.lineages import Lineage, first_versions, fold_versions
from disinherit.common.graph.records import Inheritance
from disinherit.common.graph.rules import passes_taint

Role = Literal["root", "affected", "untouched"]


@dataclass(frozen=True, slots=True)
class DrawnModel:
    """A version, or a model with all its versions.

    Attributes:
        id: id of the version, or of the first one.
        owner: its owner.
        role: its role in the request.
        became: what unlearning made of it; `""` if nothing, and for a version.
    """

    id: str
    owner: str
    role: Role
    became: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """What is drawn.

    Attributes:
        models: in the order of the graph.
        edges: between them.
        tainted: the edges that pass the request on, as (parent, child).
        generations: ids by generation.
    """

    models: Sequence[DrawnModel]
    edges: Sequence[Inheritance]
    tainted: Collection[tuple[str, str]]
    generations: Sequence[Sequence[str]]


def find_picture(
    graph: InheritanceGraph, roots: Collection[str], cleansed: Collection[str], *, folded: bool
) -> Picture:
    """Return what a drawing shows.

    Args:
        graph: the graph.
        roots: roots of a request; without them all is untouched.
        cleansed: successors that the request's campaign made, as in `InheritanceGraph.affected`.
        folded: whether all versions of a model are one.

    Raises:
        GraphError: if the graph refuses the roots or the cleansed versions.
    """
    roles = _roles(graph, roots, cleansed)
    if folded:
        return _folded(fold_versions(graph), roles, cleansed)
    models = [DrawnModel(one.id, one.owner, roles[one.id]) for one in graph.models()]
    edges = graph.edges()
    tainted = {(e.parent, e.child) for e in edges if _passes(e, roles, cleansed)}
    return Picture(models, edges, tainted, graph.generations())


def _folded(
    found: Mapping[str, Lineage], roles: Mapping[str, Role], cleansed: Collection[str]
) -> Picture:
    first = first_versions(found)
    models, tainted = [], set()
    edges: dict[tuple[str, str], Inheritance] = {}
    generations: list[list[str]] = []
    for id, model in found.items():
        held = {roles[version.id] for version in model.versions}
        role: Role = "root" if "root" in held else "affected" if "affected" in held else "untouched"
        models.append(DrawnModel(id, model.owner, role, model.became))
        generations.extend([] for _ in range(model.generation + 1 - len(generations)))
        generations[model.generation].append(id)
        for edge in model.parents:
            ends = first[edge.parent], id
            weight = edge.weight + (edges[ends].weight if ends in edges else 0.0)
            edges[ends] = replace(edge, parent=ends[0], weight=weight)
            if _passes(edge, roles, cleansed):
                tainted.add(ends)
    return Picture(models, list(edges.values()), tainted, generations)


def _passes(edge: Inheritance, roles: Mapping[str, Role], cleansed: Collection[str]) -> bool:
    return "untouched" not in (roles[edge.parent], roles[edge.child]) and passes_taint(
        edge, cleansed
    )


def _roles(
    graph: InheritanceGraph, roots: Collection[str], cleansed: Collection[str]
) -> dict[str, Role]:
    affected = graph.affected(roots, cleansed=cleansed) if roots else ()
    roles: dict[str, Role] = {record.id: "untouched" for record in graph.models()}
    roles.update((id, "affected") for id in affected)
    roles.update((id, "root") for id in roots)
    return roles
