"""The content of `report.json`, as types; `check.check_report` checks a dict against them.

Accuracies are in percent, 0 to 100; times in seconds. `None` always means "could not be computed",
never zero.  One example: an untouched model has no forget set, so its forget accuracy is `None`.
"""

import sys
from typing import Annotated, Literal, NotRequired, TypedDict

from msgspec import Meta

from disinherit.server.campaign.result import Outcome

_MOST = sys.float_info.max
Number = Annotated[float, Meta(ge=-_MOST, le=_MOST, description="a finite number")]
"""JSON has no other numbers."""

Role = Literal["root", "affected", "untouched"]
ModelOutcome = Literal[
    "applied",
    "already_applied",
    "ineffective",
    "not_reached",
    "harmful",
    "failed",
    "pending",
    "untouched",
]


# `lambda` is a keyword of Python, so this one key cannot be written in a class body.
Lambda = TypedDict("Lambda", {"lambda": Number | None})


class Scenario(TypedDict):
    """The simulated fleet; `concentration` is the Dirichlet parameter, if that is the partition."""

    name: str
    dataset: str
    network: str
    clients: int
    partition: str
    concentration: Number | None
    seed: int


class RootRequest(TypedDict):
    """A root and the class names to forget there."""

    model: str
    classes: list[str]


class MethodFigures(Lambda):
    """How the request asked to unlearn; `None` leaves a value to the owner's tuning.

    `root_method` is there where descendants inherit the changes of roots; `alpha` to `row_scoped`
    mean nothing then.
    """

    scope: str
    reference: str
    merge: str
    alpha: Number | None
    gauge: Number | None
    exponent: Number
    bound: Number
    row_scoped: bool
    root_method: NotRequired[str]


class RequestFigures(TypedDict):
    """The unlearning request."""

    id: str
    reason: str
    roots: list[RootRequest]
    method: MethodFigures


class Node(TypedDict):
    """A model in the graph; `generation` is 0 for models without parents."""

    id: str
    owner: str
    role: Role
    labels: list[str]
    samples_per_class: dict[str, int]
    generation: int


class Edge(TypedDict):
    """`child` was derived from `parent` with aggregation coefficient `weight`."""

    parent: str
    child: str
    kind: str
    weight: Number


class Graph(TypedDict):
    """The inheritance graph, and which models the request concerns."""

    nodes: list[Node]
    edges: list[Edge]
    roots: list[str]
    affected: list[str]
    untouched: list[str]


class Split(TypedDict):
    """Number of samples and digest over their ids."""

    size: int
    digest: str


class SplitFigures(TypedDict):
    """The three splits and whether they were checked to share no sample."""

    train: Split
    tuning: Split
    evaluation: Split
    disjoint: bool


class Evaluation(TypedDict):
    """Held-out accuracies in percent; `confusion` `[C, C]` counts, row = true class."""

    forget_accuracy: Number | None
    retain_accuracy: Number | None
    confusion: list[list[int]]


class Certainty(TypedDict):
    """On how many samples an accuracy was counted, and Wilson's 95 % interval `[low, high]`."""

    samples: int
    interval: list[Number]


class Selection(TypedDict):
    """Dampened values per row of dimension 0, out of `total` values the parameter has."""

    parameter: str
    rows: list[int]
    total: int


class ModelFigures(Lambda):
    """What happened to one model; `published` is the plain published rule beside it, if run."""

    id: str
    owner: str
    role: Role
    upstream_roots: list[str]
    forgotten: list[str]
    digest_before: str
    digest_after: str
    outcome: ModelOutcome
    error: str | None
    before: Evaluation
    after: Evaluation
    retrained: Evaluation | None
    published: Evaluation | None
    selected_fraction: Number | None
    selections: list[Selection]
    alpha: Number | None
    gauge: Number | None
    tuned: bool
    scope: str | None
    fisher_seconds: Number | None
    tune_seconds: Number | None
    apply_seconds: Number | None


class Coverage(TypedDict):
    """How many affected models ended in which outcome; reports of 0.1.0 have four of them."""

    applied: int
    already_applied: int
    ineffective: NotRequired[int]
    not_reached: NotRequired[int]
    harmful: NotRequired[int]
    failed: int
    pending: int


class CampaignFigures(TypedDict):
    """The campaign as a whole."""

    outcome: Outcome
    coverage: Coverage
    notes: list[str]


class Repeat(TypedDict):
    """The same request sent a second time: exactly once means `changed == 0`."""

    changed: int
    already_applied: int


class TimingFigures(TypedDict):
    """Seconds; `total` is the unlearning alone, `retrain_all` the replay of the training."""

    train: Number | None
    fisher: Number | None
    merge: Number | None
    broadcast_and_apply: Number | None
    total: Number | None
    retrain_all: Number | None


class RunReport(TypedDict):
    """Everything in `report.json`.

    `certainty` is by model, by `before`, `after`, `retrained` and `published`, and by accuracy;
    reports of 0.1.0 have none.
    """

    schema_version: Literal[1]
    disinherit: str
    created: str
    scenario: Scenario
    request: RequestFigures
    graph: Graph
    splits: SplitFigures
    models: list[ModelFigures]
    campaign: CampaignFigures
    repeat: Repeat | None
    timing: TimingFigures
    environment: dict[str, str | int]
    certainty: NotRequired[dict[str, dict[str, dict[str, Certainty]]]]
