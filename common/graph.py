"""The Unified Model Inheritance Graph (UMIG): who was derived from whom, and who is affected.

Children are strictly younger than their parents, so the graph is acyclic by construction and
`(created_us, id)` is a topological order of it: every sequence returned here is in that order.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import compress

import networkx as nx

from disinherit.common.errors import GraphError, LabelError
from disinherit.common.labels import check_label_mapping
from disinherit.common.records import Inheritance, InheritanceKind, ModelRecord

_TOLERANCE = 1e-6  # of a sum of aggregation weights
_IDENTITY = ("owner", "architecture", "labels", "digest", "created_us")


class InheritanceGraph:
    """Model versions and the inheritance between them, checked at every change.

    A refused change leaves the graph as it was. The questions about a request (`affected`,
    `tainted`, `groups`, `upstream_roots`) share two arguments:

    - `roots`: ids of the models trained directly on the data to forget.
    - `cleansed`: ids of the successors that *this request's* campaign made. An `unlearned` edge
      into one of them passes no taint on. Every other `unlearned` edge is ordinary derivation,
      because a successor keeps all its parent knew except what *its* request forgot. A cleansed
      version that inherits from an affected one along another edge is affected again.

    Status does not matter to them: a superseded or retired version may still be deployed.

    Args:
        models: the versions to start with, in any order.
        edges: the inheritance between them, in any order; complete as `validate` demands.

    Raises:
        GraphError: if a model or an edge is refused.
        LabelError: if an edge's label mapping does not fit its two label spaces.

    Example:
        >>> def version(id: str, created_us: int) -> ModelRecord:
        ...     return ModelRecord(id, "owner", "arch", ("cat", "dog"), f"sha-{id}", created_us)
        >>> graph = InheritanceGraph([version("r", 1), version("s", 2)])
        >>> merged = InheritanceKind.FEDERATED
        >>> graph.add(
        ...     version("m", 3),
        ...     [Inheritance("r", "m", merged, 0.5), Inheritance("s", "m", merged, 0.5)],
        ... )
        >>> graph.affected(["r"])
        ('r', 'm')
        >>> [(sorted(roots), members) for roots, members in graph.groups(["r", "s"]).items()]
        [(['r'], ('r',)), (['s'], ('s',)), (['r', 's'], ('m',))]

        The campaign unlearns `m`; its successor is clean as far as this request goes:

        >>> graph.add(version("m2", 4), [Inheritance("m", "m2", InheritanceKind.UNLEARNED)])
        >>> graph.tainted(["r"], cleansed=["m2"])
        ('r',)
        >>> graph.affected(["r"])  # as seen by another request
        ('r', 'm', 'm2')
    """

    def __init__(
        self, models: Iterable[ModelRecord] = (), edges: Iterable[Inheritance] = ()
    ) -> None:
        self._graph = nx.DiGraph()
        for record in models:
            self.add_model(record)
        by_child: dict[str, list[Inheritance]] = {}
        for edge in edges:
            by_child.setdefault(edge.child, []).append(edge)
        for child, parents in by_child.items():
            self._check_edges(self.model(child), parents)
            self._insert(parents)
        self.validate()

    def __len__(self) -> int:
        return len(self._graph)

    def __contains__(self, id: object) -> bool:
        return id in self._graph

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, InheritanceGraph):
            return NotImplemented
        return self.models() == other.models() and self.edges() == other.edges()

    __hash__ = None  # type: ignore[assignment]  # the graph is mutable

    def __repr__(self) -> str:
        return f"InheritanceGraph({len(self)} models, {self._graph.number_of_edges()} edges)"

    def add_model(self, record: ModelRecord) -> None:
        """Add a version that has no parents yet.

        Raises:
            GraphError: if its id is taken.
        """
        self.add(record, ())

    def add_inheritance(
        self,
        parent: str,
        child: str,
        kind: InheritanceKind = InheritanceKind.FEDERATED,
        weight: float = 1.0,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Add one edge between two versions that are there.

        A merge of several parents is incomplete until all are there: prefer `add`, which takes
        them at once; `validate` finds what was left incomplete.

        Args:
            parent: id of the version derived from.
            child: id of the version derived.
            kind: how.
            weight: aggregation coefficient in (0, 1].
            labels: parent class name -> child class name where they differ.

        Raises:
            GraphError: if an id is unknown, the edge is there already, the child is not younger
                than the parent, or the weight (or the sum of the child's weights) is out of range.
            LabelError: if the label mapping does not fit the two label spaces.
        """
        edges = [Inheritance(parent, child, kind, weight, labels or {})]
        self._check_edges(self.model(child), edges)
        self._insert(edges)

    def add(self, record: ModelRecord, parents: Iterable[Inheritance]) -> None:
        """Add a version with all its parents, or nothing at all.

        Raises:
            GraphError: if the id is taken, an edge is refused as in `add_inheritance`, leads to
                another child, or the weights of a merge do not sum to 1.
            LabelError: if a label mapping does not fit the two label spaces.
        """
        edges = tuple(parents)
        if record.id in self:
            raise GraphError(
                f"Expected a model id that is not taken, but got {record.id!r}; a new version "
                f"needs a new id, and a new status is set with replace()."
            )
        self._check_edges(record, edges)
        _check_complete(record.id, edges)
        self._graph.add_node(record.id, record=record)
        self._insert(edges)

    def replace(self, record: ModelRecord) -> None:
        """Put `record` in the place of the version with the same id.

        Status, Fisher digest and provenance may change; what the version *is* may not.

        Raises:
            GraphError: if the id is unknown or owner, architecture, labels, digest or creation
                time differ.
        """
        present = self.model(record.id)
        for name in _IDENTITY:
            old, new = getattr(present, name), getattr(record, name)
            if old != new:
                raise GraphError(
                    f"Expected {name} of model {record.id!r} to stay {old!r}, but got {new!r}; "
                    f"add a new version instead."
                )
        self._graph.nodes[record.id]["record"] = record

    def model(self, id: str) -> ModelRecord:
        """The version with this id.

        Raises:
            GraphError: if there is none.
        """
        if id not in self:
            raise GraphError(
                f"Expected the id of a model in the graph, but got {id!r}; add the model first or "
                f"correct the id."
            )
        return self._record(id)

    def models(self) -> tuple[ModelRecord, ...]:
        """All versions in topological order."""
        return tuple(map(self._record, self._ordered(self._graph)))

    def edges(self) -> tuple[Inheritance, ...]:
        """All edges, ordered by child, then by parent."""
        return tuple(edge for id in self._ordered(self._graph) for edge in self.parents(id))

    def parents(self, id: str) -> tuple[Inheritance, ...]:
        """The edges that lead to this version.

        Raises:
            GraphError: if the id is unknown.
        """
        self.model(id)
        return tuple(sorted(self._incoming(id), key=lambda edge: self._age(edge.parent)))

    def children(self, id: str) -> tuple[Inheritance, ...]:
        """The edges that start at this version.

        Raises:
            GraphError: if the id is unknown.
        """
        self.model(id)
        return tuple(sorted(self._outgoing(id), key=lambda edge: self._age(edge.child)))

    def generations(self) -> list[tuple[str, ...]]:
        """The versions by length of the longest path that leads to them."""
        return [self._ordered(ids) for ids in nx.topological_generations(self._graph)]

    def validate(self) -> None:
        """Check that no merge was left incomplete.

        The federated and distributed parents' weights of each child must sum to 1, within 1e-6.
        All else is checked at every change. Reading a stored graph validates it; the questions
        about a request do not, since weights do not decide who is affected.

        Raises:
            GraphError: if a sum is not 1.
        """
        for id in self._ordered(self._graph):
            _check_complete(id, self._incoming(id))

    def affected(self, roots: Iterable[str], *, cleansed: Iterable[str] = ()) -> tuple[str, ...]:
        """The roots and all that inherited from them, in topological order.

        Args:
            roots: ids of the models trained directly on the data to forget; always affected.
            cleansed: ids of the successors this request's campaign made.

        Raises:
            GraphError: if there are no roots, a root or a cleansed version is unknown, or a
                cleansed version has no `unlearned` edge that leads to it.
        """
        pending = list(self._check_roots(roots))
        stops = self._check_cleansed(cleansed)
        seen = set(pending)
        while pending:
            for edge in self._outgoing(pending.pop()):
                if edge.child not in seen and _passes(edge, stops):
                    seen.add(edge.child)
                    pending.append(edge.child)
        return self._ordered(seen)

    def tainted(self, roots: Iterable[str], *, cleansed: Iterable[str] = ()) -> tuple[str, ...]:
        """The affected versions that this request's campaign made no successor of.

        Takes and raises the same as `affected`.
        """
        stops = self._check_cleansed(cleansed)
        return tuple(
            id
            for id in self.affected(roots, cleansed=stops)
            if all(_passes(edge, stops) for edge in self._outgoing(id))
        )

    def upstream_roots(
        self, model: str, roots: Iterable[str], *, cleansed: Iterable[str] = ()
    ) -> frozenset[str]:
        """U(m): the roots among `model` and its ancestors; empty if it is not affected.

        Raises:
            GraphError: if the model is unknown, or for the reasons of `affected`.
        """
        wanted = self._check_roots(roots)
        stops = self._check_cleansed(cleansed)
        pending = [self.model(model).id]
        seen = set(pending)
        while pending:
            for edge in self._incoming(pending.pop()):
                if edge.parent not in seen and _passes(edge, stops):
                    seen.add(edge.parent)
                    pending.append(edge.parent)
        return frozenset(seen.intersection(wanted))

    def groups(
        self, roots: Iterable[str], *, cleansed: Iterable[str] = ()
    ) -> dict[frozenset[str], tuple[str, ...]]:
        """The affected versions by upstream roots: one merged Fisher serves one group.

        One sweep over the affected versions and the edges between them. Groups are ordered by
        their first member, members topologically. Takes and raises the same as `affected`.
        """
        wanted = self._check_roots(roots)
        stops = self._check_cleansed(cleansed)
        bits = {root: 1 << position for position, root in enumerate(wanted)}
        masks: dict[str, int] = {}  # id -> its upstream roots as bits: unions of ints are cheap
        members: dict[int, list[str]] = {}
        shared: dict[int, int] = {}  # equal masks are one object, or many roots fill the memory
        for id in self.affected(wanted, cleansed=stops):
            mask = bits.get(id, 0)
            for edge in self._incoming(id):
                if edge.parent in masks and _passes(edge, stops):
                    mask |= masks[edge.parent]
            masks[id] = shared.setdefault(mask, mask)
            members.setdefault(mask, []).append(id)
        return {
            frozenset(compress(wanted, map(int, reversed(f"{mask:b}")))): tuple(ids)
            for mask, ids in members.items()
        }

    def _record(self, id: str) -> ModelRecord:
        record: ModelRecord = self._graph.nodes[id]["record"]
        return record

    def _outgoing(self, id: str) -> Iterator[Inheritance]:
        return (data["edge"] for data in self._graph.succ[id].values())

    def _incoming(self, id: str) -> Iterator[Inheritance]:
        return (data["edge"] for data in self._graph.pred[id].values())

    def _age(self, id: str) -> tuple[int, str]:
        return self._record(id).created_us, id

    def _ordered(self, ids: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(ids, key=self._age))

    def _insert(self, edges: Iterable[Inheritance]) -> None:
        self._graph.add_edges_from((edge.parent, edge.child, {"edge": edge}) for edge in edges)

    def _check_roots(self, roots: Iterable[str]) -> tuple[str, ...]:
        wanted = tuple(dict.fromkeys(roots))
        if not wanted:
            raise GraphError(
                "Expected at least one root, but got none; name the models that were trained "
                "directly on the data to forget."
            )
        for root in wanted:
            if root not in self:
                raise GraphError(
                    f"Expected roots that are models in the graph, but got {root!r}; add the model "
                    f"first or correct the id."
                )
        return wanted

    def _check_cleansed(self, cleansed: Iterable[str]) -> Collection[str]:
        stops = frozenset(cleansed)
        for id in sorted(stops):
            self.model(id)
            if all(edge.kind is not InheritanceKind.UNLEARNED for edge in self._incoming(id)):
                raise GraphError(
                    f"Expected cleansed versions to be made by unlearning, but no unlearned edge "
                    f"leads to {id!r}; name the successors the campaign made."
                )
        return stops

    def _check_edges(self, child: ModelRecord, edges: Sequence[Inheritance]) -> None:
        """Refuse `edges` as further parents of `child`, which need not be in the graph yet."""
        present = list(self._incoming(child.id)) if child.id in self else []
        taken = {edge.parent for edge in present}
        for edge in edges:
            self._check_edge(edge, child)
            if edge.parent in taken:
                raise GraphError(
                    f"Expected one edge from {edge.parent!r} to {child.id!r}, but got another; "
                    f"leave it out."
                )
            taken.add(edge.parent)
        total = _merged_weight([*present, *edges])
        if total is not None and total > 1 + _TOLERANCE:
            raise GraphError(
                f"Expected the weights of the parents of {child.id!r} to sum to at most 1, but "
                f"got {total:.9g}; give each parent its share of the merge."
            )

    def _check_edge(self, edge: Inheritance, child: ModelRecord) -> None:
        name = f"inheritance {edge.parent!r} -> {edge.child!r}"
        if edge.child != child.id:
            raise GraphError(f"Expected edges that lead to {child.id!r}, but got {name}.")
        if edge.parent == edge.child:
            raise GraphError(
                f"Expected a parent other than the child, but got {name}; a changed model is a "
                f"new version with a new id."
            )
        parent = self.model(edge.parent)
        if child.created_us <= parent.created_us:
            raise GraphError(
                f"Expected the child of {name} to be younger than its parent, created at "
                f"{parent.created_us} us, but got {child.created_us} us; correct created_us or "
                f"the direction."
            )
        if not 0 < edge.weight <= 1:
            raise GraphError(
                f"Expected a weight in (0, 1] for {name}, but got {edge.weight}; a parent that "
                f"contributed nothing has no edge."
            )
        try:
            check_label_mapping(parent.labels, child.labels, edge.labels)
        except LabelError as error:
            raise LabelError(f"For {name}: {error}") from error


def _passes(edge: Inheritance, stops: Collection[str]) -> bool:
    """Whether an edge passes taint on: all do but those the request's own campaign made."""
    return edge.kind is not InheritanceKind.UNLEARNED or edge.child not in stops


def _merged_weight(edges: Iterable[Inheritance]) -> float | None:
    """Sum of the merging edges' weights; `None` without such edges."""
    weights = [edge.weight for edge in edges if edge.kind.merges]
    return math.fsum(weights) if weights else None


def _check_complete(child: str, parents: Iterable[Inheritance]) -> None:
    total = _merged_weight(parents)
    if total is not None and abs(total - 1) > _TOLERANCE:
        raise GraphError(
            f"Expected the weights of the federated and distributed parents of {child!r} to sum "
            f"to 1, but got {total:.9g}; add the parents that are missing or correct the weights."
        )
