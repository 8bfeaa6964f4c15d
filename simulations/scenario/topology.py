"""Topology of a scenario: which model is derived from which, and how.

A topology does not know the data set.  Its choices of classes (`ClassChoice`) are resolved against
one by `disinherit.simulations.scenario.label_spaces`.
"""

import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from disinherit.common.errors import GraphError
from disinherit.common.graph.identifiers import check_id
from disinherit.common.graph.records import Inheritance, InheritanceKind

ClassChoice = str | tuple[str, ...] | None
"""Classes of a data set: by name or index, a range in percent (`"0-60%"`), or all (`None`)."""

Layers = Literal["all", "head"]


@dataclass(frozen=True, slots=True)
class ParentEdge:
    """An edge to a model.

    Attributes:
        parent: id of the model derived from.
        kind: how.
        weight: of the parent among the parents, > 0; only their proportion counts.
    """

    parent: str
    kind: InheritanceKind = InheritanceKind.FEDERATED
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Derivation:
    """A model: what its training starts from, and what it is trained on.

    Attributes:
        id: of the model.
        links: the models whose weighted average it starts from; without any, it starts from the
            initialisation that the whole scenario has in common.
        classes: its label space, in the order of the head's rows.
        data: the classes it is trained on, out of its label space; `None` for all of these.
        trains: whether training changes all layers, or only the head on frozen features.
        new_head: whether the head starts afresh, instead of inheriting the rows of the classes
            that a parent has, too.
        owner: index of the client that holds it, counted round where there are fewer clients;
            `None` to be dealt out in turn.
    """

    id: str
    links: tuple[ParentEdge, ...] = ()
    classes: ClassChoice = None
    data: ClassChoice = None
    trains: Layers = "all"
    new_head: bool = False
    owner: int | None = None

    @property
    def parents(self) -> tuple[str, ...]:
        """Ids of the models derived from."""
        return tuple(link.parent for link in self.links)

    @property
    def shares(self) -> dict[str, float]:
        """Parent -> aggregation coefficient; they sum to 1."""
        total = sum(link.weight for link in self.links)
        return {link.parent: link.weight / total for link in self.links}


@dataclass(frozen=True, slots=True)
class Topology:
    """A scenario's derivations, parents before children.

    Attributes:
        name: of the scenario.
        derivations: the models in an order in which parents come first.
        roots: the models at which a request is made unless it names another; several classes are
            dealt out to them in turn.
        aliases: name of a class in this scenario -> the data set's class, where they differ.

    Raises:
        GraphError: if an id occurs twice or is malformed, a parent does not come first or occurs
            twice, a weight is not positive, an owner is negative, or a root is no model.
    """

    name: str
    derivations: tuple[Derivation, ...]
    roots: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        earlier: set[str] = set()
        for derivation in self.derivations:
            if "~" in check_id(derivation.id):
                raise GraphError(
                    f"Expected a model id without '~', which marks versions, but got "
                    f"{derivation.id!r}."
                )
            if derivation.id in earlier:
                raise GraphError(f"Expected every model once, but got {derivation.id!r} twice.")
            _check_links(derivation, earlier)
            if derivation.owner is not None and derivation.owner < 0:
                raise GraphError(
                    f"Expected the owner of {derivation.id!r} to be 0 or more, but got "
                    f"{derivation.owner}."
                )
            earlier.add(derivation.id)
        if not self.roots:
            raise GraphError(f"Expected a root in scenario {self.name!r}, but got none.")
        for root in self.roots:
            if root not in earlier:
                raise GraphError(f"Expected a model as the root, but got {root!r}.")

    @property
    def ids(self) -> tuple[str, ...]:
        """Model ids, parents first."""
        return tuple(derivation.id for derivation in self.derivations)

    def descendants(self, root: str) -> set[str]:
        """Return a model and everything derived from it, directly or not."""
        reached = {root}
        for derivation in self.derivations:
            if reached.intersection(derivation.parents):
                reached.add(derivation.id)
        return reached

    def generations(self) -> Iterator[tuple[Derivation, ...]]:
        """Yield the models level by level; those of one level can be trained at the same time."""
        left = list(self.derivations)
        done: set[str] = set()
        while left:
            ready = tuple(d for d in left if done.issuperset(d.parents))
            yield ready
            done.update(d.id for d in ready)
            left = [d for d in left if d.id not in done]

    def never_learned(self, model: str, forget: Mapping[str, Collection[str]]) -> tuple[str, ...]:
        """Return the sensitive classes that a model must not be trained on.

        A sensitive class enters the network at its root: the root and its descendants are trained
        on it, everyone else is not (the setting of arXiv 2408.08493).

        Args:
            model: model id.
            forget: root -> classes that enter there.

        Example:
            >>> one, two = Derivation("one"), Derivation("two", (ParentEdge("one"),))
            >>> Topology("t", (one, two), ("one",)).never_learned("one", {"one": "3", "two": "5"})
            ('5',)
        """
        return tuple(
            name
            for root, names in forget.items()
            if model not in self.descendants(root)
            for name in names
        )

    def edges(self, derivation: Derivation) -> list[Inheritance]:
        """Return the edges to a model, as if every class had the same name in all models."""
        shares = derivation.shares
        return [
            Inheritance(link.parent, derivation.id, link.kind, shares[link.parent])
            for link in derivation.links
        ]

    def owner_of(self, model: str, owners: int) -> int:
        """Return the index of the client that holds a model: as given, or in turn."""
        index = self.ids.index(model)
        given = self.derivations[index].owner
        return (index if given is None else given) % owners


def _check_links(derivation: Derivation, earlier: Collection[str]) -> None:
    for link in derivation.links:
        if link.parent not in earlier:
            raise GraphError(
                f"Expected the parents of {derivation.id!r} before it, but {link.parent!r} is not."
            )
        if not 0 < link.weight < float("inf"):
            raise GraphError(
                f"Expected a weight > 0 from {link.parent!r} to {derivation.id!r}, but got "
                f"{link.weight:g}."
            )
        if link.kind is InheritanceKind.UNLEARNED:
            raise GraphError(
                f"Expected {derivation.id!r} to be trained from {link.parent!r}, but got kind "
                "'unlearned', which only a campaign makes."
            )
    if len({link.kind.merges for link in derivation.links}) > 1:
        raise GraphError(
            f"Expected either federated and distributed parents of {derivation.id!r}, which are "
            f"averaged, or others, but got {', '.join(link.kind for link in derivation.links)}."
        )
    if len(set(derivation.parents)) != len(derivation.parents):
        raise GraphError(
            f"Expected every parent of {derivation.id!r} once, but got "
            f"{', '.join(derivation.parents)}."
        )
    if derivation.trains not in ("all", "head"):
        raise GraphError(
            f"Expected {derivation.id!r} to train 'all' layers or its 'head', but got "
            f"{derivation.trains!r}."
        )
    if not derivation.links and (derivation.trains == "head" or derivation.new_head):
        raise GraphError(
            f"Expected a parent of {derivation.id!r}, whose features or head it is to take over, "
            "but it has none."
        )


def model_seed(seed: int, model: str) -> int:
    """Return a model's own seed, the same in every process and in every replay."""
    return zlib.crc32(f"{seed}/{model}".encode())
