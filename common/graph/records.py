"""The nodes and edges of the Unified Model Inheritance Graph as plain immutable values."""

import enum
import math
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from msgspec import Meta

from disinherit.common import limits
from disinherit.common.errors import GraphError
from disinherit.common.fields import settle
from disinherit.common.graph.identifiers import check_id
from disinherit.common.graph.recipes import Recipe

_SOURCE = re.compile(r"(?=.{1,64}$)[a-z0-9._-]+( [a-z0-9._-]+)*")
_HEX = re.compile(r"[0-9a-f]*")
_END = 2**63  # the first number beyond int64, on the wire and in a database


class ModelStatus(enum.StrEnum):
    """Status of a model version in its life."""

    ACTIVE = "active"
    SUPERSEDED = "superseded"
    RETIRED = "retired"


class InheritanceKind(enum.StrEnum):
    """Kind of a derivation from a parent."""

    FEDERATED = "federated"
    DISTRIBUTED = "distributed"
    INCREMENTAL = "incremental"
    TRANSFER = "transfer"
    UNLEARNED = "unlearned"

    @property
    def merges(self) -> bool:
        """Whether several parents of this kind are averaged, with weights that sum to 1."""
        return self in (InheritanceKind.FEDERATED, InheritanceKind.DISTRIBUTED)


def as_kind(value: str) -> InheritanceKind:
    """Return the kind with this name.

    Raises:
        GraphError: if the name is unknown.

    Example:
        >>> as_kind("transfer")
        <InheritanceKind.TRANSFER: 'transfer'>
    """
    try:
        return InheritanceKind(value)
    except ValueError:
        known = ", ".join(kind.value for kind in InheritanceKind)
        raise GraphError(
            f"Expected a kind of inheritance among {known}, but got {value!r}."
        ) from None


def _check_digest(value: str, what: str) -> None:
    limits.DIGEST.check_text(value, what, GraphError)
    if not _HEX.fullmatch(value):
        raise GraphError(
            f"Expected {what} to be lower-case hexadecimal digits or empty, but got {value!r}."
        )


def _check_names(names: Collection[str], what: str) -> None:
    limits.CLASSES.check_items(names, what, GraphError)
    longest = max(names, key=len, default="")
    if len(longest) > limits.NAME.most:
        limits.check_names([longest], f"{what}: the name", error=GraphError)


def _check_int64(value: int, what: str) -> None:
    if not 0 <= value < _END:
        raise GraphError(f"Expected {what} to be from 0 to 2**63 - 1, but got {value!r}.")


@dataclass(frozen=True, slots=True)
class Provenance:
    """The data on which a model was trained *directly*, without what it inherited.

    Attributes:
        dataset: name of the data set.
        samples_per_class: class name -> number of training samples, each less than 2**63.
        sample_set_digest: SHA-256 over the sorted sample ids as lower-case hexadecimal digits, or
            `""` when not disclosed.

    Raises:
        GraphError: if a value has another type, a count is no int64 >= 0, the digest is malformed,
            or a name is too long.
    """

    dataset: str
    samples_per_class: Mapping[str, int] = field(default_factory=dict, hash=False)
    sample_set_digest: str = ""

    def __post_init__(self) -> None:
        settle(self, "a provenance", GraphError)
        limits.NAME.check_text(self.dataset, "the name of a data set", GraphError)
        _check_names(self.samples_per_class, "the classes of a data set")
        counts = self.samples_per_class
        if not 0 <= min(counts.values(), default=0) <= max(counts.values(), default=0) < _END:
            for name, count in counts.items():
                _check_int64(count, f"the sample count of class {name!r}")
        _check_digest(self.sample_set_digest, f"the sample set digest of {self.dataset!r}")

    def __reduce__(self) -> tuple[object, ...]:
        return Provenance, (self.dataset, dict(self.samples_per_class), self.sample_set_digest)


@dataclass(frozen=True, slots=True)
class FisherScale:
    """The size of the registered Fisher summary of a version.

    Attributes:
        scope: scope of the summary.
        sums: per class, in the order of the labels: sum of squared gradients over its samples and
            all parameters in scope, `[C]`.
        head_values: number of values of the parameters that make the logits, as reported by its
            owner; 0 if unknown.
        values: number of values of all parameters, as reported by its owner; 0 if unknown.

    Raises:
        GraphError: if a value has another type, a sum is not finite, or negative, or a number of
            values is out of range.
    """

    scope: str
    sums: tuple[float, ...]
    head_values: int = 0
    values: int = 0

    def __post_init__(self) -> None:
        settle(self, "a Fisher scale", GraphError)
        limits.SCOPE.check_text(self.scope, "the scope of a Fisher scale", GraphError)
        for value in self.sums:
            if not 0 <= value <= sys.float_info.max:
                raise GraphError(f"Expected finite sums >= 0 as Fisher scale, but got {value!r}.")
        for count in (self.head_values, self.values):
            _check_int64(count, "the number of values in a Fisher scale")

    def counted_as(self, other: "FisherScale | None") -> "FisherScale":
        """Return this scale with unknown numbers of values taken from another.

        Args:
            other: the registered scale of the same version.
        """
        if other is None or self.values:
            return self
        return replace(self, head_values=other.head_values, values=other.values)


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """One *version* of one model: a node of the graph.

    Attributes:
        id: unique identifier, safe as a file name.
        owner: the owner of the model.
        architecture: SHA-256 over the ordered parameter names, shapes and dtypes.
        labels: class names in the order of the head's rows, `[C]`.
        digest: SHA-256 of the weights as lower-case hexadecimal digits, or `""`.
        created_us: microseconds since the epoch, less than 2**63, assigned by the coordinator, so
            that devices' clocks do not matter.
        provenance: the data of its direct training; `None` if it was not trained (a mere average)
            or if it is unknown.
        fisher_digest: SHA-256 of the registered per-class Fisher summary, or `""`.
        status: status of the version.
        fisher_scale: size of that summary; `None` without one, or if its owner does not report it.

    Raises:
        GraphError: if a value has another type or is malformed.
    """

    id: str
    owner: str
    architecture: str
    labels: tuple[str, ...]
    digest: str
    created_us: int
    provenance: Provenance | None = None
    fisher_digest: str = ""
    status: ModelStatus = ModelStatus.ACTIVE
    fisher_scale: FisherScale | None = None

    def __post_init__(self) -> None:
        settle(self, f"the record of model {limits.shown(str(self.id))}", GraphError)
        check_id(self.id)
        check_id(self.owner, "owner name")
        limits.NAME.check_text(self.architecture, f"the architecture of {self.id!r}", GraphError)
        _check_names(self.labels, f"the classes of model {self.id!r}")
        if len(set(self.labels)) != len(self.labels):
            names = limits.shown(str(list(self.labels)))
            raise GraphError(
                f"Expected distinct class names in model {self.id!r}, but got {names}."
            )
        _check_int64(self.created_us, f"created_us of model {self.id!r}")
        _check_digest(self.digest, f"digest of model {self.id!r}")
        _check_digest(self.fisher_digest, f"fisher_digest of model {self.id!r}")
        if self.fisher_scale is not None and len(self.fisher_scale.sums) != len(self.labels):
            raise GraphError(
                f"Expected the Fisher scale of the {len(self.labels)} classes of model {self.id!r},"
                f" but got that of {len(self.fisher_scale.sums)}."
            )


@dataclass(frozen=True, slots=True)
class Inheritance:
    """An edge: `child` was derived from `parent`.

    Attributes:
        parent: id of the parent.
        child: id of the derived version.
        kind: kind of the derivation.
        weight: aggregation coefficient in (0, 1].
        labels: parent class name -> child class name where they differ; classes with the same name
            correspond without being listed.
        recipe: how the child was computed from all its parents; `None` if it was trained, or if
            that is unknown.
        place: place of the parent in that computation, from 1; 0 without a recipe.
        source: what an import read the edge from, such as `adapter config`; `""` if it was
            recorded.
        confidence: how far that source is trusted, in (0, 1]; 0 without one.

    Raises:
        GraphError: if a value has another type, an id is malformed, the kind is unknown, a number
            is out of range, a name is too long, or the edge joins a version with itself.
    """

    parent: str
    child: str
    kind: InheritanceKind
    weight: Annotated[float, Meta(description="a finite weight")] = 1.0
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    recipe: Recipe | None = None
    place: int = 0
    source: str = ""
    confidence: Annotated[float, Meta(description="a finite confidence")] = 0.0

    def __post_init__(self) -> None:
        name = f"inheritance {limits.shown(str(self.parent))} -> {limits.shown(str(self.child))}"
        object.__setattr__(self, "kind", as_kind(self.kind))
        settle(self, name, GraphError)
        check_id(self.parent, "id of a parent")
        check_id(self.child, "id of a child")
        _check_names(self.labels, f"the label mapping of {name}")
        _check_names(self.labels.values(), f"the label mapping of {name}")
        if not math.isfinite(self.weight):
            raise GraphError(f"Expected a finite weight in {name}, but got {self.weight!r}.")
        if not 0 < self.weight <= 1:
            raise GraphError(
                f"Expected a weight in (0, 1] for {name}, but got {self.weight}; a parent that "
                f"contributed nothing has no edge."
            )
        first, last = (0, 0) if self.recipe is None else (1, limits.PARENTS.most)
        if not first <= self.place <= last:
            raise GraphError(
                f"Expected a place from {first} to {last} in {name}, with recipe "
                f"{self.recipe or 'unknown'}, but got {self.place}."
            )
        if self.source and not _SOURCE.fullmatch(self.source):
            raise GraphError(
                f"Expected words of a-z, 0-9 and . _ - as the source of {name}, at most 64 "
                f"characters, but got {limits.shown(self.source)}."
            )
        if not (0 < self.confidence <= 1 if self.source else self.confidence == 0):
            raise GraphError(
                f"Expected {'a confidence in (0, 1]' if self.source else 'no confidence'} in "
                f"{name}, which has {'a' if self.source else 'no'} source, but got "
                f"{self.confidence!r}."
            )
        if self.parent == self.child:
            raise GraphError(
                f"Expected a parent other than the child, but got {name}; a changed model is a "
                f"new version with a new id."
            )

    def __reduce__(self) -> tuple[object, ...]:
        labels = dict(self.labels)
        given = (self.parent, self.child, self.kind, self.weight, labels, self.recipe, self.place)
        return Inheritance, (*given, self.source, self.confidence)
