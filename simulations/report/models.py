"""The part of a report that is about one model."""

from collections.abc import Mapping

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import ModelRecord
from disinherit.server.campaign.result import CampaignResult
from disinherit.server.states import Task, TaskState
from disinherit.simulations.report.document import Evaluation, ModelFigures, ModelOutcome, Role
from disinherit.simulations.scenario.label_spaces import LabelSpaces
from disinherit.v1.unlearning_pb2 import ModelResult


def model_report(
    record: ModelRecord,
    role: Role,
    upstream: list[str],
    forgotten: list[str],
    outcome: ModelOutcome,
    task: Task | None,
    scope: str,
    error: str | None,
    evaluations: Mapping[str, Evaluation | None],
) -> ModelFigures:
    """Return what happened to one model.

    Args:
        record: the version before the campaign.
        role: its role in the request.
        upstream: roots among it and its ancestors.
        forgotten: classes it is to forget.
        outcome: how the work on it ended.
        task: the work on it; `None` for an untouched model.
        scope: the method's scope.
        error: why it could not be evaluated.
        evaluations: `before`, `after`, `retrained` and `published`.
    """
    reply = task.result if task is not None else None
    made = task.successor if task is not None else None
    before, after = evaluations["before"], evaluations["after"]
    dampened = reply if reply is not None and reply.alpha else None
    nothing: Evaluation = {"forget_accuracy": None, "retain_accuracy": None, "confusion": []}
    return {
        "id": record.id,
        "owner": record.owner,
        "role": role,
        "upstream_roots": upstream,
        "forgotten": forgotten,
        "digest_before": record.digest,
        "digest_after": made.digest if made is not None else record.digest,
        "outcome": outcome,
        "error": (task.reason if task is not None else "") or error,
        "before": before or nothing,
        "after": after or nothing,
        "retrained": evaluations["retrained"],
        "published": evaluations["published"],
        "selected_fraction": _selected(reply, outcome),
        "selections": [
            {"parameter": s.parameter, "rows": list(s.rows), "total": s.total}
            for s in (reply.selections if reply else ())
        ],
        "alpha": dampened.alpha if dampened else None,
        "lambda": dampened.lam if dampened else None,
        "gauge": dampened.gauge if dampened else None,
        "tuned": reply.tuned if reply else False,
        "scope": scope if reply else None,
        "fisher_seconds": reply.fisher_seconds if reply else None,
        "tune_seconds": reply.tune_seconds if reply else None,
        "apply_seconds": reply.apply_seconds if reply else None,
    }


def _selected(reply: ModelResult | None, outcome: ModelOutcome) -> float | None:
    """Return the share of the values in scope that was dampened; `None` if it is not known."""
    if reply is None:
        return 0.0 if outcome == "untouched" else None
    total = sum(s.total for s in reply.selections)
    return sum(sum(s.rows) for s in reply.selections) / total if total else None


def outcome_of(model: str, task: Task | None, result: CampaignResult) -> ModelOutcome:
    """Return how the work on a model ended; `None` stands for a model without work."""
    if task is None:
        return "untouched"
    if task.state in (TaskState.APPLIED, TaskState.VERIFIED):
        return "already_applied" if model in result.already_applied else "applied"
    unforgotten: Mapping[TaskState, ModelOutcome] = {
        TaskState.INEFFECTIVE: "ineffective",
        TaskState.NOT_REACHED: "not_reached",
        TaskState.HARMFUL: "harmful",
    }
    if task.state in unforgotten:
        return unforgotten[task.state]
    return "failed" if task.state is TaskState.FAILED else "pending"


def known_labels(graph: InheritanceGraph, spaces: LabelSpaces, model: str) -> list[str]:
    """Return the labels of the classes that a model or one of its ancestors was trained on."""
    everyone = [record.id for record in graph.models()]
    provenances = [graph.model(m).provenance for m in graph.upstream_roots(model, everyone)]
    known = {
        spaces.class_of(label)
        for provenance in provenances
        if provenance
        for label, count in provenance.samples_per_class.items()
        if count
    }
    return [label for label in spaces.labels[model] if spaces.class_of(label) in known]
