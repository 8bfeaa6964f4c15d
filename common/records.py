"""The nodes and edges of the Unified Model Inheritance Graph as plain immutable values."""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from disinherit.common.errors import GraphError

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}")


class ModelStatus(enum.StrEnum):
    """Where a model version stands in its life."""

    ACTIVE = "active"
    SUPERSEDED = "superseded"
    RETIRED = "retired"


class InheritanceKind(enum.StrEnum):
    """How a child was derived from its parent."""

    FEDERATED = "federated"
    DISTRIBUTED = "distributed"
    INCREMENTAL = "incremental"
    TRANSFER = "transfer"
    UNLEARNED = "unlearned"

    @property
    def merges(self) -> bool:
        """Whether several parents of this kind are averaged, with weights that sum to 1."""
        return self in (InheritanceKind.FEDERATED, InheritanceKind.DISTRIBUTED)


def check_id(value: str, what: str = "model id") -> str:
    """Return `value` if it is a well-formed identifier, safe as a file name.

    Raises:
        GraphError: if it is not.
    """
    if not _ID.fullmatch(value):
        raise GraphError(
            f"Expected a {what} of 1 to 128 letters, digits and . _ ~ - that starts with a "
            f"letter or digit, but got {value!r}."
        )
    return value


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a model was trained on *directly*, not what it inherited.

    Attributes:
        dataset: name of the data set.
        samples_per_class: class name -> number of training samples.
        sample_set_digest: SHA-256 over the sorted sample ids, or `""` when not disclosed.
    """

    dataset: str
    samples_per_class: Mapping[str, int] = field(default_factory=dict)
    sample_set_digest: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "samples_per_class", MappingProxyType(dict(self.samples_per_class))
        )
        for name, count in self.samples_per_class.items():
            if count < 0:
                raise GraphError(
                    f"Expected a sample count >= 0 for class {name!r}, but got {count}."
                )

    def __reduce__(self) -> tuple[object, ...]:
        return Provenance, (self.dataset, dict(self.samples_per_class), self.sample_set_digest)


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """One *version* of one model: a node of the graph.

    Attributes:
        id: unique identifier, safe as a file name.
        owner: the client that holds the model.
        architecture: SHA-256 over the ordered parameter names, shapes and dtypes.
        labels: class names in the order of the head's rows, `[C]`.
        digest: SHA-256 of the weights.
        created_us: microseconds since the epoch, given out by the coordinator so that a device's
            clock does not matter.
        provenance: what the model was trained on directly; `None` if it was not trained (a mere
            average) or if it is unknown.
        fisher_digest: SHA-256 of the registered per-class Fisher summary, or `""`.
        status: where the version stands in its life.

    Raises:
        GraphError: if a value is malformed.
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

    def __post_init__(self) -> None:
        check_id(self.id)
        check_id(self.owner, "owner name")
        object.__setattr__(self, "labels", tuple(self.labels))
        if len(set(self.labels)) != len(self.labels):
            raise GraphError(
                f"Expected distinct class names in model {self.id!r}, but got {list(self.labels)}."
            )
        if self.created_us < 0:
            raise GraphError(
                f"Expected created_us >= 0 for model {self.id!r}, but got {self.created_us}."
            )


@dataclass(frozen=True, slots=True)
class Inheritance:
    """An edge: `child` was derived from `parent`.

    Attributes:
        parent: id of the version derived from.
        child: id of the version derived.
        kind: how.
        weight: aggregation coefficient in (0, 1].
        labels: parent class name -> child class name where they differ; classes with the same name
            correspond without being listed.
    """

    parent: str
    child: str
    kind: InheritanceKind
    weight: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))

    def __reduce__(self) -> tuple[object, ...]:
        return Inheritance, (self.parent, self.child, self.kind, self.weight, dict(self.labels))
