"""Which model is derived from which: the shape of a scenario, before anything is trained."""

import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from disinherit.common.errors import GraphError
from disinherit.common.records import Inheritance, InheritanceKind


@dataclass(frozen=True, slots=True)
class Derivation:
    """A model, and the models whose average its training starts from (none: from scratch)."""

    id: str
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Topology:
    """A scenario's derivations, parents before children.

    Attributes:
        name: of the scenario.
        kind: how children are derived.
        derivations: the models in an order in which parents come first.
        root: the model at which a request is made unless it names another.

    Raises:
        GraphError: if an id occurs twice, a parent does not come first, or the root is no model.
    """

    name: str
    kind: InheritanceKind
    derivations: tuple[Derivation, ...]
    root: str

    def __post_init__(self) -> None:
        earlier: set[str] = set()
        for derivation in self.derivations:
            if derivation.id in earlier:
                raise GraphError(f"Expected every model once, but got {derivation.id!r} twice.")
            late = [parent for parent in derivation.parents if parent not in earlier]
            if late:
                raise GraphError(
                    f"Expected the parents of {derivation.id!r} before it, but {late[0]!r} is not."
                )
            earlier.add(derivation.id)
        if self.root not in earlier:
            raise GraphError(f"Expected a model as the root, but got {self.root!r}.")

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
            >>> FEDERATED.never_learned("r1", {"r1": ["3"], "r2": ["5"]})
            ('5',)
        """
        return tuple(
            name
            for root, names in forget.items()
            if model not in self.descendants(root)
            for name in names
        )

    def edges(self, derivation: Derivation) -> list[Inheritance]:
        """Return the edges to a model: its start is the plain average of its parents."""
        share = 1.0 / len(derivation.parents) if derivation.parents else 1.0
        return [Inheritance(p, derivation.id, self.kind, share) for p in derivation.parents]

    def owner_of(self, model: str, owners: int) -> int:
        """Return the index of the client that holds a model: in turn, parents first."""
        return self.ids.index(model) % owners


FEDERATED = Topology(
    "federated",
    InheritanceKind.FEDERATED,
    (
        Derivation("d"),
        Derivation("s"),
        Derivation("r1", ("d", "s")),
        Derivation("r2", ("r1",)),
        Derivation("r3", ("d", "r2")),
        Derivation("r4", ("r1", "r2")),
        Derivation("r6", ("s", "r3")),
    ),
    root="r1",
)
"""The federated setting of arXiv 2408.08493: d and s know nothing of the sensitive classes."""


def model_seed(seed: int, model: str) -> int:
    """Return a model's own seed, the same in every process and in every replay."""
    return zlib.crc32(f"{seed}/{model}".encode())
