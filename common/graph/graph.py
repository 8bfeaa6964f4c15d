"""The Unified Model Inheritance Graph (UMIG): derivation of versions, and affected versions.

Children are strictly younger than their parents, so the graph is acyclic by construction and
`(created_us, id)` is a topological order.  Every sequence returned here is in that order.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Set

from disinherit.common.errors import GraphError
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord, as_kind
from disinherit.common.graph.rules import (
    check_cleansed,
    check_complete,
    check_parents,
    check_roots,
    check_same_version,
    passes_taint,
)

Step = Callable[[str], Iterable[str]]
"""Function from an id to the ids one edge away."""


def reach(starts: Iterable[str], step: Step) -> set[str]:
    """Return `starts` and all ids that repeated steps reach.

    Args:
        starts: ids to start from.
        step: function from an id to the ids one edge away.

    Returns:
        The ids reached; `step` is called once for each.

    Example:
        >>> sorted(reach("a", {"a": "bc", "b": "c", "c": "", "d": "a"}.__getitem__))
        ['a', 'b', 'c']
    """
    pending = list(starts)
    seen = set(pending)
    while pending:
        for id in step(pending.pop()):
            if id not in seen:
                seen.add(id)
                pending.append(id)
    return seen


_Barrier = tuple[str, str]
"""Parent and child of an edge that does not pass taint on."""
_FEW = 8


class InheritanceGraph:
    """Model versions and the inheritance between them, checked at every change.

    A refused change leaves the graph unchanged. The questions about a request (`affected`,
    `upstream_roots`) share two arguments:

    - `roots`: ids of the models trained directly on the data to forget.
    - `cleansed`: ids of the successors made by *this request's* campaign. An `unlearned` edge
      into one of them does not pass taint on. Every other `unlearned` edge is ordinary derivation:
      a successor keeps all its parent knew except what *its* request forgot. A cleansed version
      that inherits from an affected one along another edge is affected again.

    Status is ignored: a superseded or retired version may still be deployed.

    Args:
        models: the versions to start with, in any order.
        edges: the inheritance between them, in any order; complete as for `validate`.

    Raises:
        GraphError: if a model or an edge is refused.
        LabelError: if an edge's label mapping does not fit its two label spaces.

    Example:
        >>> def version(id: str, created_us: int) -> ModelRecord:
        ...     return ModelRecord(id, "owner", "arch", ("cat", "dog"), "", created_us)
        >>> graph = InheritanceGraph([version("r", 1), version("s", 2)])
        >>> merged = InheritanceKind.FEDERATED
        >>> graph.add(version("m", 3), [Inheritance(id, "m", merged, 0.5) for id in "rs"])
        >>> graph.affected(["r"])
        ('r', 'm')
        >>> sorted(graph.upstream_roots("m", ["r", "s"]))
        ['r', 's']

        The campaign unlearns `m`; its successor is clean for this request:

        >>> graph.add(version("m2", 4), [Inheritance("m", "m2", InheritanceKind.UNLEARNED)])
        >>> graph.affected(["r"], cleansed=["m2"])
        ('r', 'm')
        >>> graph.affected(["r"])  # for another request
        ('r', 'm', 'm2')
    """

    def __init__(
        self, models: Iterable[ModelRecord] = (), edges: Iterable[Inheritance] = ()
    ) -> None:
        self._records: dict[str, ModelRecord] = {}
        # Of every version: parent -> the edge from it, and child -> the edge to it.
        self._parents: dict[str, dict[str, Inheritance]] = {}
        self._children: dict[str, dict[str, Inheritance]] = {}
        self._by_age: tuple[str, ...] | None = None  # all ids, until a version is added
        for record in models:
            self._insert(record, ())
        by_child: dict[str, list[Inheritance]] = {}
        for edge in edges:
            by_child.setdefault(edge.child, []).append(edge)
        for child, parents in by_child.items():
            self._attach(self.model(child), parents)
        self.validate()

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and id in self._records

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, InheritanceGraph):
            return NotImplemented
        return self.models() == other.models() and self.edges() == other.edges()

    __hash__ = None  # type: ignore[assignment]  # the graph is mutable

    def __repr__(self) -> str:
        edges = sum(map(len, self._parents.values()))
        return f"InheritanceGraph({len(self)} models, {edges} edges)"

    def __copy__(self) -> "InheritanceGraph":
        # The same versions and edges, which are not checked again.
        other = InheritanceGraph()
        other._records = self._records.copy()
        other._parents = {id: edges.copy() for id, edges in self._parents.items()}
        other._children = {id: edges.copy() for id, edges in self._children.items()}
        other._by_age = self._all()
        return other

    def add_model(self, record: ModelRecord) -> None:
        """Add a version without parents.

        Raises:
            GraphError: if its id is taken.
        """
        self.add(record, ())

    def add_inheritance(
        self,
        parent: str,
        child: str,
        kind: InheritanceKind | str = InheritanceKind.FEDERATED,
        weight: float = 1.0,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Add one edge between two versions of the graph.

        A merge is incomplete until it has all its parents: prefer `add`; `validate` finds
        incomplete merges.

        Args:
            parent: id of the parent.
            child: id of the derived version.
            kind: kind of inheritance, as an `InheritanceKind` or its name.
            weight: aggregation coefficient in (0, 1].
            labels: parent class name -> child class name where they differ.

        Raises:
            GraphError: if an id is unknown, the edge exists, the parent is not older, or the weight
                is not in (0, 1] or brings the sum of a merge above 1.
            LabelError: if the label mapping does not fit the two label spaces.
        """
        edge = Inheritance(parent, child, as_kind(kind), weight, labels or {})
        self._attach(self.model(child), [edge])

    def add(self, record: ModelRecord, parents: Iterable[Inheritance]) -> None:
        """Add a version with all its parents, or nothing.

        Args:
            record: the version.
            parents: the edges into it.

        Raises:
            GraphError: if the id is taken, an edge is refused as in `add_inheritance`, leads to
                another child, or the weights of a merge do not sum to 1.
            LabelError: if a label mapping does not fit the two label spaces.
        """
        edges = tuple(parents)
        check_parents(record, edges, (), self.model)
        check_complete(record.id, edges)
        self._insert(record, edges)

    def replace(self, record: ModelRecord) -> None:
        """Replace the record of a version, by its id.

        Status, Fisher digest and provenance may change; the identity of the version may not.

        Raises:
            GraphError: if the id is unknown or another field differs.
        """
        check_same_version(self.model(record.id), record)
        self._records[record.id] = record

    def model(self, id: str) -> ModelRecord:
        """Return the version with this id.

        Raises:
            GraphError: if the id is unknown.
        """
        record = self._records.get(id) if isinstance(id, str) else None
        if record is None:
            raise GraphError(
                f"Expected the id of a model in the graph, but got {id!r}; add the model first or "
                f"correct the id."
            )
        return record

    def models(self) -> tuple[ModelRecord, ...]:
        """All versions in topological order."""
        return tuple(map(self._records.__getitem__, self._all()))

    def edges(self) -> tuple[Inheritance, ...]:
        """All edges, ordered by child, then by parent."""
        return tuple(edge for id in self._all() for edge in self.parents(id))

    def parents(self, id: str) -> tuple[Inheritance, ...]:
        """The edges that lead to this version.

        Raises:
            GraphError: if the id is unknown.
        """
        self.model(id)
        return self._in_order(self._parents[id])

    def children(self, id: str) -> tuple[Inheritance, ...]:
        """The edges that start at this version.

        Raises:
            GraphError: if the id is unknown.
        """
        self.model(id)
        return self._in_order(self._children[id])

    def origins(self, id: str) -> tuple[str, ...]:
        """Return the versions that this one was unlearned from, the nearest first.

        Raises:
            GraphError: if the id is unknown.
        """
        line = [id]
        for version in line:  # grows during the loop
            before = (e.parent for e in self.parents(version) if _unlearns(e))
            line += [origin for origin in before if origin not in line]
        return tuple(line[1:])

    def successors(self, id: str) -> tuple[str, ...]:
        """Return the versions that unlearning made of this one, the oldest first.

        Raises:
            GraphError: if the id is unknown.
        """
        return tuple(edge.child for edge in self.children(id) if _unlearns(edge))

    def generations(self) -> list[tuple[str, ...]]:
        """Return the versions by length of the longest path to them."""
        found: list[list[str]] = []
        depth: dict[str, int] = {}
        for id in self._all():
            depth[id] = max((depth[parent] + 1 for parent in self._parents[id]), default=0)
            if depth[id] == len(found):
                found.append([])
            found[depth[id]].append(id)
        return list(map(tuple, found))

    def validate(self) -> None:
        """Check that every merge is complete.

        The federated and distributed parents' weights of each child must sum to 1, within 1e-6.
        The questions about a request do not need this: weights do not decide who is affected.

        Raises:
            GraphError: if a sum is not 1.
        """
        for id in self._all():
            check_complete(id, self._incoming(id))

    def affected(self, roots: Iterable[str], *, cleansed: Iterable[str] = ()) -> tuple[str, ...]:
        """Return the roots and all that inherited from them, in topological order.

        Args:
            roots: ids of the models trained directly on the data to forget; always affected.
            cleansed: ids of the successors made by this request's campaign.

        Raises:
            GraphError: if there are no roots, a root or a cleansed version is unknown, or a
                cleansed version has no `unlearned` edge into it.
        """
        return self._affected(*self._check_question(roots, cleansed))

    def upstream_roots(
        self, model: str, roots: Iterable[str], *, cleansed: Iterable[str] = ()
    ) -> frozenset[str]:
        """Return U(m): the roots among `model` and its ancestors; empty if it is not affected.

        Args:
            model: id of the version.
            roots: ids of the models trained directly on the data to forget.
            cleansed: ids of the successors made by this request's campaign.

        Raises:
            GraphError: if the model is unknown, or as in `affected`.
        """
        wanted, barriers = self._check_question(roots, cleansed)
        known = reach([self.model(model).id], self._donors(barriers))
        return frozenset(known.intersection(wanted))

    def _incoming(self, id: str) -> Collection[Inheritance]:
        return self._parents[id].values()

    def _in_order(self, edges: Mapping[str, Inheritance]) -> tuple[Inheritance, ...]:
        """Return the edges of a version, ordered by the version at their other end."""
        if len(edges) > 1:
            return tuple(edges[id] for id in sorted(edges, key=self._age))
        return tuple(edges.values())

    def _age(self, id: str) -> tuple[int, str]:
        return self._records[id].created_us, id

    def _all(self) -> tuple[str, ...]:
        if self._by_age is None:
            self._by_age = tuple(sorted(self._records, key=self._age))
        return self._by_age

    def _ordered(self, ids: Set[str]) -> tuple[str, ...]:
        # Picking many ids from the sorted whole is faster than sorting them.
        if len(ids) * _FEW > len(self):
            return tuple(id for id in self._all() if id in ids)
        return tuple(sorted(ids, key=self._age))

    def _attach(self, child: ModelRecord, edges: Collection[Inheritance]) -> None:
        check_parents(child, edges, self._incoming(child.id), self.model)
        self._connect(edges)

    def _insert(self, record: ModelRecord, edges: Iterable[Inheritance]) -> None:
        if record.id in self:
            raise GraphError(
                f"Expected a model id that is not taken, but got {record.id!r}; a new version "
                f"needs a new id, and a new status is set with replace()."
            )
        self._records[record.id] = record
        self._parents[record.id], self._children[record.id] = {}, {}
        self._by_age = None
        self._connect(edges)

    def _connect(self, edges: Iterable[Inheritance]) -> None:
        for edge in edges:
            self._parents[edge.child][edge.parent] = edge
            self._children[edge.parent][edge.child] = edge

    def _check_question(
        self, roots: Iterable[str], cleansed: Iterable[str]
    ) -> tuple[tuple[str, ...], frozenset[_Barrier]]:
        """Return the distinct roots, and the edges that do not pass taint on."""
        wanted, stops = tuple(dict.fromkeys(roots)), frozenset(cleansed)
        check_roots(wanted, self._records)
        for id in sorted(stops):
            check_cleansed(self.model(id), self._incoming(id))
        return wanted, frozenset(
            (edge.parent, edge.child)
            for id in stops
            for edge in self._incoming(id)
            if not passes_taint(edge, stops)
        )

    def _affected(self, roots: Iterable[str], barriers: Collection[_Barrier]) -> tuple[str, ...]:
        return self._ordered(reach(roots, self._heirs(barriers)))

    def _heirs(self, barriers: Collection[_Barrier]) -> Step:
        heirs: Step = self._children.__getitem__
        if not barriers:
            return heirs
        return lambda id: (heir for heir in heirs(id) if (id, heir) not in barriers)

    def _donors(self, barriers: Collection[_Barrier]) -> Step:
        donors: Step = self._parents.__getitem__
        if not barriers:
            return donors
        return lambda id: (donor for donor in donors(id) if (donor, id) not in barriers)


def _unlearns(edge: Inheritance) -> bool:
    return edge.kind is InheritanceKind.UNLEARNED
