"""Propagation of class names from the roots of a request along edges.

A class to forget may have one name at the root and another at a descendant.  Roots are grouped if
their classes arrive at a model under the same names: the cost per model grows with the number of
different namings, not with the number of roots or classes.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import Inheritance, InheritanceKind

Renaming = Mapping[str, str]
"""Class name at a root -> class name at a model."""

Labels = tuple[str, ...]
Arrivals = Mapping["Naming", int]
"""Naming at a model -> its roots as bits: bit i is the request's root i.

Every root has at most one naming.
"""


@dataclass(eq=False)
class Naming:
    """The names under which the classes of roots of one label space arrive at a model.

    Equal namings are the same object, made by one `_Namings`.

    Attributes:
        source: class names of the roots, `[C]`.
        names: class name at the root -> names at the model, normally one; in the order of
            `source`, without lost classes.
    """

    source: Labels
    names: Mapping[str, frozenset[str]]

    @cached_property
    def renaming(self) -> Renaming:
        """Class name at the root -> class name at the model."""
        return {source: min(targets) for source, targets in self.names.items()}

    @cached_property
    def targets(self) -> frozenset[str]:
        """The class names at the model that correspond to a class of the root."""
        return frozenset().union(*self.names.values())

    @cached_property
    def contradiction(self) -> tuple[str, str] | None:
        """The classes with contradictory names, and the reason, if any."""
        origins: dict[str, str] = {}
        for source, targets in self.names.items():
            if len(targets) > 1:
                both = " and as ".join(map(repr, sorted(targets)))
                return f"class {source!r}", f"arrives both as {both}"
            target = min(targets)
            other = origins.setdefault(target, source)
            if other != source:
                return f"classes {other!r} and {source!r}", f"both arrive as {target!r}"
        return None


@dataclass(frozen=True, slots=True)
class Followed:
    """The names of every root's classes at every affected model.

    Attributes:
        roots: ids of the roots; bit i of an arrival is root i.
        arrivals: model -> its arrivals; equal ones are the same object.
        failed: model -> reason, where names contradict each other.
    """

    roots: tuple[str, ...]
    arrivals: Mapping[str, Arrivals]
    failed: Mapping[str, str]


def follow_classes(
    graph: InheritanceGraph,
    roots: Sequence[str],
    affected: Iterable[str],
    cleansed: Collection[str] = (),
    origins: Mapping[str, Collection[str]] | None = None,
) -> Followed:
    """Return the names of every root's classes at every affected model.

    Args:
        graph: the inheritance graph.
        roots: ids of the roots, each once.
        affected: ids of the roots and their descendants, in topological order.
        cleansed: successors made by this request; no class passes along their `unlearned` edges.
        origins: root -> versions that it was unlearned from; its classes start there, too.
    """
    starts: dict[str, int] = {}
    for position, root in enumerate(roots):
        for model in {root, *(origins or {}).get(root, ())}:
            starts[model] = starts.get(model, 0) | 1 << position
    namings = _Namings()
    arrived: dict[str, Arrivals] = {}
    failed: dict[str, str] = {}
    for model in affected:
        labels = namings.intern_labels(graph.model(model).labels)
        arrivals: Arrivals = {}
        for edge in graph.parents(model):
            if edge.parent in arrived and not _is_clean(edge, cleansed):
                passed = namings.pass_on(arrived[edge.parent], edge, labels)
                arrivals = namings.unite(arrivals, passed)
        if model in starts:
            own = {namings.identity(labels): starts[model]}
            arrivals = namings.unite(arrivals, own)
        arrived[model] = arrivals = namings.intern_arrivals(arrivals)
        reason = _contradiction(arrivals, roots)
        if reason:
            failed[model] = reason
    return Followed(tuple(roots), arrived, failed)


def bits(number: int) -> Iterator[int]:
    """Yield the positions of the bits that are set, the lowest first.

    Example:
        >>> list(bits(0b1101))
        [0, 2, 3]
    """
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


def packet_names(
    source: Collection[str], target: Collection[str], renaming: Renaming
) -> dict[str, str | None]:
    """Return the changes of class names in a root's Fisher packet for a model.

    Packets match classes by name.  A lost class must not have the name of a class that the model
    learned independently, so the packet omits it.

    Args:
        source: class names of the root.
        target: class names of the model.
        renaming: class name at the root -> class name at the model.

    Returns:
        Class name at the root -> name in the packet, where they differ; `None` for an omitted one.
    """
    names: dict[str, str | None] = {a: b for a, b in renaming.items() if a != b}
    known = set(target)
    names |= dict.fromkeys((a for a in source if a not in renaming and a in known), None)
    return names


@dataclass(slots=True)
class _Namings:
    """The namings of one plan, interned, with cached results."""

    _labels: dict[Labels, Labels] = field(default_factory=dict)
    _sets: dict[int, frozenset[str]] = field(default_factory=dict)
    _known: dict[tuple[Labels, frozenset[tuple[str, frozenset[str]]]], Naming] = field(
        default_factory=dict
    )
    _identities: dict[int, Naming] = field(default_factory=dict)
    _passed: dict[tuple[Naming, int, frozenset[tuple[str, str]]], Naming] = field(
        default_factory=dict
    )
    _joined: dict[tuple[Naming, Naming], Naming] = field(default_factory=dict)
    _arrivals: dict[frozenset[tuple[Naming, int]], Arrivals] = field(default_factory=dict)

    def intern_labels(self, labels: Labels) -> Labels:
        """Return the shared object of equal label spaces, so that its `id` identifies it."""
        one = self._labels.setdefault(labels, labels)
        if one is labels:
            self._sets[id(one)] = frozenset(one)
        return one

    def intern_arrivals(self, arrivals: Arrivals) -> Arrivals:
        """Return the shared object of equal arrivals."""
        return self._arrivals.setdefault(frozenset(arrivals.items()), arrivals)

    def identity(self, labels: Labels) -> Naming:
        """Return the naming of a root's classes at the root itself."""
        if id(labels) not in self._identities:
            names = {name: frozenset((name,)) for name in labels}
            self._identities[id(labels)] = self._make(labels, names)
        return self._identities[id(labels)]

    def pass_on(self, arrivals: Arrivals, edge: Inheritance, labels: Labels) -> Arrivals:
        """Return the arrivals at a child along one edge.

        Args:
            arrivals: arrivals at the parent.
            edge: the edge to the child.
            labels: class names of the child, interned.
        """
        mapping = frozenset(edge.labels.items())
        changed: dict[Naming, int] = {}
        for naming, roots in arrivals.items():
            key = (naming, id(labels), mapping)
            if key not in self._passed:
                self._passed[key] = self._step(naming, edge.labels, labels)
            after = self._passed[key]
            changed[after] = changed.get(after, 0) | roots
        return arrivals if changed == arrivals else changed

    def unite(self, one: Arrivals, other: Arrivals) -> Arrivals:
        """Merge arrivals along several edges: a class may arrive under several names."""
        if not one or one is other:
            return other
        if not other:
            return one
        all_one, all_other = _any(one), _any(other)
        united: dict[Naming, int] = {}

        def put(naming: Naming, roots: int) -> None:
            if roots:
                united[naming] = united.get(naming, 0) | roots

        for naming, roots in one.items():
            differing = roots & all_other & ~other.get(naming, 0)
            put(naming, roots & ~differing)
            for second, others in other.items() if differing else ():
                if both := differing & others:
                    put(self._join(naming, second), both)
        for naming, roots in other.items():
            put(naming, roots & ~all_one)
        return united

    def _step(self, naming: Naming, mapping: Mapping[str, str], labels: Labels) -> Naming:
        known = self._sets[id(labels)]
        if not mapping and naming.targets <= known:
            return naming
        names = {
            source: after
            for source, before in naming.names.items()
            if (after := frozenset(mapping.get(name, name) for name in before) & known)
        }
        return self._make(naming.source, names)

    def _join(self, one: Naming, other: Naming) -> Naming:
        if (one, other) not in self._joined:
            none: frozenset[str] = frozenset()
            names = {
                source: both
                for source in one.source
                if (both := one.names.get(source, none) | other.names.get(source, none))
            }
            self._joined[one, other] = self._make(one.source, names)
        return self._joined[one, other]

    def _make(self, source: Labels, names: Mapping[str, frozenset[str]]) -> Naming:
        key = (source, frozenset(names.items()))
        if key not in self._known:
            self._known[key] = Naming(source, names)
        return self._known[key]


def _is_clean(edge: Inheritance, cleansed: Collection[str]) -> bool:
    return edge.kind is InheritanceKind.UNLEARNED and edge.child in cleansed


def _any(arrivals: Arrivals) -> int:
    roots = 0
    for some in arrivals.values():
        roots |= some
    return roots


def _contradiction(arrivals: Arrivals, roots: Sequence[str]) -> str:
    """Return the contradiction at the first root with one, or `""`."""
    wrong = [
        (next(bits(some)), naming.contradiction)
        for naming, some in arrivals.items()
        if naming.contradiction is not None
    ]
    if not wrong:
        return ""
    position, (classes, arrive) = min(wrong)
    return f"{classes} of root {roots[position]} {arrive}: correct the label mappings"
