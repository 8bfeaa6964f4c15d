"""The inheritance graph of a visitor: versions, edges, and versions folded into models."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx

from disinherit.common.errors import NotFoundError
from disinherit.ui.visitors import Visitor
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import graph_pb2

STATUSES = {
    graph_pb2.MODEL_STATUS_ACTIVE: "active",
    graph_pb2.MODEL_STATUS_SUPERSEDED: "superseded",
    graph_pb2.MODEL_STATUS_RETIRED: "retired",
}
_UNLEARNED = graph_pb2.INHERITANCE_KIND_UNLEARNED


@dataclass(frozen=True, slots=True)
class SeenLineage:
    """The whole graph.

    Attributes:
        records: id -> version, the oldest first.
        parents: id -> edges that lead to it.
        children: id -> edges that begin at it.
    """

    records: Mapping[str, graph_pb2.ModelRecord]
    parents: Mapping[str, Sequence[graph_pb2.Inheritance]]
    children: Mapping[str, Sequence[graph_pb2.Inheritance]]

    def record(self, model_id: str) -> graph_pb2.ModelRecord:
        """Return a version.

        Raises:
            NotFoundError: if there is none with this id.
        """
        found = self.records.get(model_id)
        if found is None:
            raise NotFoundError(f"Expected the id of a model, but got {model_id[:200]!r}.")
        return found

    def around(self, model_id: str, depth: int, direction: str) -> set[str]:
        """Return the versions within some steps of one.

        Args:
            model_id: the version.
            depth: number of steps.
            direction: `up` to its ancestors, `down` to its descendants, anything else for both.
        """
        self.record(model_id)
        found = {model_id}
        for steps, end, wanted in (
            (self.parents, "parent", direction != "down"),
            (self.children, "child", direction != "up"),
        ):
            level = {model_id}
            for _ in range(depth if wanted else 0):
                level = {getattr(e, end) for one in level for e in steps.get(one, ())} - found
                found |= level
        return found

    def versions(self, model_id: str) -> list[str]:
        """Return all versions of the model of one version, the first one first."""
        first = model_id
        while (before := self._before(first)) is not None:
            first = before
        found = [first]
        for one in found:
            found += [e.child for e in self.children.get(one, ()) if e.kind == _UNLEARNED]
        return found

    def _before(self, model_id: str) -> str | None:
        edges = (e.parent for e in self.parents.get(model_id, ()) if e.kind == _UNLEARNED)
        return next(edges, None)

    def folded(self) -> "FoldedVersions":
        """Return the graph of models: each has its versions, and the edges of all of them."""
        of: dict[str, str] = {}
        for model_id in self.records:  # a successor is younger than what it was made of
            before = self._before(model_id)
            of[model_id] = model_id if before is None else of.get(before, before)
        versions: dict[str, list[str]] = {}
        for model_id, model in of.items():
            versions.setdefault(model, []).append(model_id)
        edges = {
            (of[e.parent], of[e.child]): e
            for edges in self.children.values()
            for e in edges
            if e.kind != _UNLEARNED and e.parent in of and e.child in of
        }
        kept = {pair: e for pair, e in edges.items() if pair[0] != pair[1]}
        return FoldedVersions(of, versions, kept)


@dataclass(frozen=True, slots=True)
class FoldedVersions:
    """Models instead of versions.

    Attributes:
        of: version -> its model, named by its first version.
        versions: model -> its versions, the oldest first.
        edges: (parent, child) -> one of the edges between their versions.
    """

    of: Mapping[str, str]
    versions: Mapping[str, Sequence[str]]
    edges: Mapping[tuple[str, str], graph_pb2.Inheritance]


@dataclass(slots=True)
class _Reading:
    records: dict[str, graph_pb2.ModelRecord] = field(default_factory=dict)
    parents: dict[str, list[graph_pb2.Inheritance]] = field(default_factory=dict)
    children: dict[str, list[graph_pb2.Inheritance]] = field(default_factory=dict)


def read_lineage(visitor: Visitor) -> SeenLineage:
    """Return the graph that the coordinator shows a visitor.

    Raises:
        DisinheritError: if the call fails.
    """
    found = _Reading()
    for part in visitor.stream(lambda stub: stub.GetGraph, pb.GetGraphRequest()):
        found.records.update((one.id, one) for one in part.models)
        for edge in part.edges:
            found.parents.setdefault(edge.child, []).append(edge)
            found.children.setdefault(edge.parent, []).append(edge)
    return SeenLineage(found.records, found.parents, found.children)


def kind_of(edge: graph_pb2.Inheritance) -> str:
    """Return the name of an edge's kind.

    Example:
        >>> kind_of(graph_pb2.Inheritance(kind=1))
        'federated'
    """
    if edge.kind not in graph_pb2.InheritanceKind.values():
        return str(edge.kind)  # of a later release
    return graph_pb2.InheritanceKind.Name(edge.kind).removeprefix("INHERITANCE_KIND_").lower()


def generations(models: Collection[str], edges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Return model -> length of the longest way to it.

    Args:
        models: the models.
        edges: (parent, child), both of them among the models; without a circle.

    Example:
        >>> generations(["a", "b", "c"], [("a", "b"), ("b", "c"), ("a", "c")])
        {'a': 0, 'b': 1, 'c': 2}
    """
    graph = nx.DiGraph()
    graph.add_nodes_from(models)
    graph.add_edges_from(edges)
    return {one: i for i, some in enumerate(nx.topological_generations(graph)) for one in some}
