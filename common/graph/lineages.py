"""Models as people count them: all versions that unlearning made of one are one model."""

from collections.abc import Mapping
from dataclasses import dataclass

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord, ModelStatus


@dataclass(frozen=True, slots=True)
class Lineage:
    """A model with what unlearning made of it.

    Attributes:
        versions: its versions, the first one first.
        generation: length of the longest way from a model without parents.
        parents: edges that lead to its first version, from models by their first version.
    """

    versions: tuple[ModelRecord, ...]
    generation: int
    parents: tuple[Inheritance, ...]

    @property
    def id(self) -> str:
        """Id of the first version, by which people know the model."""
        return self.versions[0].id

    @property
    def owner(self) -> str:
        """Its owner."""
        return self.versions[0].owner

    @property
    def current(self) -> ModelRecord:
        """The version in use: the last that is active, or the last of all."""
        active = [one for one in self.versions if one.status is ModelStatus.ACTIVE]
        return (active or list(self.versions))[-1]

    @property
    def became(self) -> str:
        """What unlearning made of it, as `forgot by` the request; `""` if nothing."""
        place = self.versions.index(self.current)
        if not place:
            return ""
        before, now = self.versions[place - 1].id, self.current.id
        made = f"{before}~"
        return f"forgot by {now.removeprefix(made)}" if now.startswith(made) else f"became {now}"


def fold_versions(graph: InheritanceGraph) -> dict[str, Lineage]:
    """Return id of the first version -> model, parents first.

    Args:
        graph: with all versions.
    """
    first: dict[str, str] = {}
    versions: dict[str, list[ModelRecord]] = {}
    edges: dict[str, list[Inheritance]] = {}
    for id in (id for ids in graph.generations() for id in ids):
        parents = graph.parents(id)
        made_of = [one.parent for one in parents if one.kind is InheritanceKind.UNLEARNED]
        first[id] = first[made_of[0]] if made_of else id
        versions.setdefault(first[id], []).append(graph.model(id))
        if not made_of:
            edges[id] = list(parents)
    found: dict[str, Lineage] = {}
    for id, its in versions.items():
        over = [found[first[edge.parent]] for edge in edges[id]]
        level = 1 + max((one.generation for one in over), default=-1)
        its.sort(key=lambda record: record.created_us)
        found[id] = Lineage(tuple(its), level, tuple(edges[id]))
    return dict(sorted(found.items(), key=lambda item: item[1].generation))


def first_versions(models: Mapping[str, Lineage]) -> dict[str, str]:
    """Return id of each version -> id of the first version of its model.

    Args:
        models: of `fold_versions`.
    """
    return {version.id: id for id, model in models.items() for version in model.versions}


def children_of(models: Mapping[str, Lineage]) -> dict[str, list[str]]:
    """Return model -> models that were derived from one of its versions, by their first version.

    Args:
        models: of `fold_versions`.
    """
    first = first_versions(models)
    below: dict[str, list[str]] = {id: [] for id in models}
    for id, model in models.items():
        for edge in model.parents:
            if id not in below[first[edge.parent]]:
                below[first[edge.parent]].append(id)
    return below
