"""What sources say of models: models found, claims of parents, and findings.

A *claim* is one statement of one source about one child.  Sources are ordered by trust; their
confidence is a convention that says this order in numbers, not a measured probability.
"""

import enum
from dataclasses import dataclass, field
from pathlib import Path

from disinherit.common.graph.recipes import Recipe
from disinherit.common.text import one_line

_NAME = 300
"""Characters of a name or a text from outside that a finding repeats."""


class Source(enum.Enum):
    """What a claim was read from, the most trusted first; the value is its name and confidence."""

    EDGE_LIST = ("edge list", 1.0)
    MERGE_CONFIG = ("merge config", 0.95)
    ADAPTER_CONFIG = ("adapter config", 0.95)
    DVC = ("dvc", 0.9)
    MLFLOW = ("mlflow", 0.9)
    RELATION = ("relation", 0.85)
    BASES = ("bases", 0.7)
    TAGS = ("tags", 0.6)
    GGUF = ("gguf", 0.5)
    CONFIG = ("config", 0.2)

    @property
    def title(self) -> str:
        """Name of the source, as edges carry it."""
        return self.value[0]

    @property
    def confidence(self) -> float:
        """How far its claims are trusted, in (0, 1]."""
        return self.value[1]

    @property
    def rank(self) -> int:
        """Place in the order of trust, from 0."""
        return _ORDER.index(self)


_ORDER = tuple(Source)
_ELSEWHERE = (Source.EDGE_LIST, Source.DVC, Source.MLFLOW)
OF_FOLDERS = frozenset(one.title for one in Source if one not in _ELSEWHERE)
"""Names of the sources that are files in the folder of the model that they are about."""


class Relation(enum.StrEnum):
    """What a source says the child is to the parent."""

    FINETUNE = "finetune"
    ADAPTER = "adapter"
    MERGE = "merge"
    QUANTIZED = "quantized"
    COMPOSITION = "composition"
    UNKNOWN = "unknown"


class Kind(enum.StrEnum):
    """Kind of a finding."""

    UNKNOWN_PARENT = "unknown parent"
    UNKNOWN_CHILD = "unknown child"
    ALIAS = "unused alias"
    RENAMED_PARENT = "renamed parent?"
    AMBIGUOUS_PARENT = "ambiguous parent"
    CONFLICT = "conflict"
    CYCLE = "cycle"
    COMPOSITION = "composition"
    SHARES = "shares unknown"
    RELATION = "relation unknown"
    SELF = "names itself"
    NEW_VERSION = "new version"
    LABELS = "placeholder labels"
    SAME_WEIGHTS = "same weights"
    UNCOMPARED = "not compared"
    WEIGHTS = "weights"
    UNREADABLE = "unreadable"
    LINK = "link"
    STALE = "stale record"
    DOUBTED = "doubted"
    RECORDED = "recorded otherwise"
    ORDER = "order"


def shortened(name: str) -> str:
    """Return the name of a model or a file as findings have it."""
    return one_line(name, _NAME)


@dataclass(frozen=True, slots=True)
class FamilyFinding:
    """Something that the import lists and does not decide.

    Attributes:
        kind: its kind.
        model: the model or file concerned.
        text: one line for people.
    """

    kind: Kind
    model: str
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", shortened(self.model))
        object.__setattr__(self, "text", one_line(self.text))


@dataclass(frozen=True, slots=True)
class Weights:
    """Identity of the weights of a model.

    Attributes:
        digest: SHA-256 of the tensors as in the rest of the project; or, where the tensors cannot
            be read without running code, of the names and digests of the files.
        architecture: SHA-256 of names, shapes and dtypes; `""` if the tensors cannot be read.
    """

    digest: str = ""
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A model in a source.

    Attributes:
        key: unique within an import: its folder or file, or its place in a registry.
        name: name by which others refer to it, such as `acme/base`.
        revision: commit of the hub, if known.
        refs: branches and tags of the hub that mean this commit, as the cache recorded them.
        current: whether the name without a revision means this one.
        aliases: further names, such as ids in a registry.
        path: its folder or file; `None` if it is only recorded.
        files: its files of weights.
        weights: identity of its weights.
        labels: class names in the order of the head's rows.
        adapter: whether it is an adapter, which needs its base.
        fold: how it is folded into its base, if its config tells it fully.
    """

    key: str
    name: str
    revision: str = ""
    refs: tuple[str, ...] = ()
    current: bool = True
    aliases: tuple[str, ...] = ()
    path: Path | None = None
    files: tuple[Path, ...] = ()
    weights: Weights = field(default_factory=Weights)
    labels: tuple[str, ...] = ()
    adapter: bool = False
    fold: Recipe | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement of a source that a child was derived from a parent.

    Attributes:
        child: key of the child.
        parent: the parent as the source names it.
        source: the source.
        relation: what the child is to the parent.
        revision: revision of the parent, if the source names one.
        share: share of the parent in the child; `None` if the source does not say.
        recipe: how the child was computed from all its parents, if the source tells it fully.
        confidence: stated for this claim; `None` for that of the source.
    """

    child: str
    parent: str
    source: Source
    relation: Relation = Relation.UNKNOWN
    revision: str = ""
    share: float | None = None
    recipe: Recipe | None = None
    confidence: float | None = None


Said = tuple[list[Claim], list[FamilyFinding]]
"""What one file says."""


@dataclass(slots=True)
class Evidence:
    """All that the sources of an import say.

    Attributes:
        models: key -> model.
        claims: all claims, in the order in which they were read.
        findings: what could not be read or decided.
    """

    models: dict[str, Found] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    findings: list[FamilyFinding] = field(default_factory=list)

    def add(self, found: Found) -> None:
        """Add a model."""
        self.models[found.key] = found

    def note(self, kind: Kind, model: str, text: str) -> None:
        """Add a finding."""
        self.findings.append(FamilyFinding(kind, model, text))
