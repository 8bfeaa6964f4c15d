"""The content of `report.json`, from what a run measured."""

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field

import flwr
import torch

from disinherit.common.devices import pick_device
from disinherit.common.graph import InheritanceGraph
from disinherit.common.labels import class_indices
from disinherit.common.records import ModelRecord
from disinherit.server.coordinator import CampaignResult
from disinherit.server.planning import Plan
from disinherit.server.store import Task, TaskState
from disinherit.simulations.accuracy import evaluation
from disinherit.simulations.engine import OWNER_THREADS
from disinherit.simulations.owners import SharedData
from disinherit.simulations.report_schema import (
    Campaign,
    Evaluation,
    ModelOutcome,
    ModelReport,
    Repeat,
    Report,
    Role,
    Split,
)
from disinherit.simulations.report_schema import Graph as GraphReport
from disinherit.simulations.settings import Settings
from disinherit.simulations.splits import SplitName
from disinherit.simulations.topology import Topology
from disinherit.v1.unlearning_pb2 import ModelResult

Confusions = dict[str, list[list[int]]]
"""Model id -> confusion counts `[C, C]`; a model is missing if it could not be evaluated."""


@dataclass(slots=True)
class Measured:
    """What a run measures, and why something is missing.

    Attributes:
        before: confusion of every model before the campaign.
        after: confusion of every model after it.
        retrained: confusion of every affected model retrained exactly.
        published: confusion under the plain published rule, if it was compared.
        errors: model id -> why it could not be evaluated.
        notes: what else a reader should know.
        train_seconds: training of all models.
        retrain_seconds: replay of all affected models, measured in the same way.
    """

    before: Confusions = field(default_factory=dict)
    after: Confusions = field(default_factory=dict)
    retrained: Confusions = field(default_factory=dict)
    published: Confusions = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    train_seconds: float | None = None
    retrain_seconds: float | None = None


def build_report(
    settings: Settings,
    topology: Topology,
    data: SharedData,
    graph: InheritanceGraph,
    planned: Plan,
    result: CampaignResult,
    repeat: CampaignResult | None,
    measured: Measured,
) -> Report:
    """Put a report together.

    Args:
        settings: of the run.
        topology: of the run.
        data: the data set and its splits.
        graph: the inheritance graph when the request was planned.
        planned: the plan.
        result: the campaign.
        repeat: the same request sent once more.
        measured: accuracies and times.

    Returns:
        What goes into `report.json`.
    """
    ids = [record.id for record in graph.models()]
    known = {m: _known(graph, m, data) for m in ids}
    roots = list(settings.forget)
    upstream = {m: [r for r in roots if r in graph.upstream_roots(m, roots)] for m in ids}
    forgotten = {m: [c for root in upstream[m] for c in settings.forget[root]] for m in ids}
    roles: dict[str, Role] = {
        m: "root" if m in roots else "affected" if m in planned.affected else "untouched"
        for m in ids
    }

    def evaluated(confusions: Confusions, model: str) -> Evaluation | None:
        if model not in confusions:
            return None
        indices = class_indices(data.dataset.classes, forgotten[model])
        return evaluation(confusions[model], indices, known[model])

    timing = result.timing
    return {
        "schema_version": 1,
        "disinherit": importlib.metadata.version("disinherit"),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "scenario": {
            "name": topology.name,
            "dataset": data.dataset.name,
            "network": settings.network,
            "clients": settings.clients,
            "partition": settings.partition,
            "concentration": settings.concentration if settings.partition == "dirichlet" else None,
            "seed": settings.seed,
        },
        "request": {
            "id": result.request_id,
            "reason": settings.request().reason,
            "roots": [{"model": r, "classes": list(c)} for r, c in settings.forget.items()],
            "method": {
                "scope": settings.method.scope,
                "reference": settings.method.reference,
                "merge": settings.method.merge,
                "alpha": settings.method.alpha,
                "lambda": settings.method.lam,
                "gauge": settings.method.gauge,
                "exponent": settings.method.exponent,
                "bound": settings.method.bound,
                "row_scoped": settings.method.row_scoped,
            },
        },
        "graph": _graph(graph, roles, roots, planned),
        "splits": {
            "train": _split(data, "train"),
            "tuning": _split(data, "tuning"),
            "evaluation": _split(data, "evaluation"),
            "disjoint": True,  # checked when the splits were made; overlapping ones are refused
        },
        "models": [
            _model(
                graph.model(m),
                roles[m],
                upstream[m],
                forgotten[m],
                _outcome(m, result.tasks.get(m), result),
                result.tasks.get(m),
                settings.method.scope,
                measured.errors.get(m),
                {
                    "before": evaluated(measured.before, m),
                    "after": evaluated(measured.after, m),
                    "retrained": evaluated(measured.retrained, m),
                    "published": evaluated(measured.published, m),
                },
            )
            for m in ids
        ],
        "campaign": _campaign(result, [*planned.notes, *measured.notes]),
        "repeat": _repeat(repeat),
        "timing": {
            "train": measured.train_seconds,
            "fisher": timing.fisher,
            "merge": timing.merge,
            "broadcast_and_apply": timing.broadcast_and_apply,
            "total": timing.total,
            "retrain_all": measured.retrain_seconds,
        },
        "environment": environment(settings.device),
    }


def environment(device: str) -> dict[str, str | int]:
    """Return what a figure depends on besides the code."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "flwr": flwr.__version__,
        "platform": platform.platform(),
        "cpus": os.cpu_count() or 1,
        "device": str(pick_device(device)),
        "threads": OWNER_THREADS,
    }


def _model(
    record: ModelRecord,
    role: Role,
    upstream: list[str],
    forgotten: list[str],
    outcome: ModelOutcome,
    task: Task | None,
    scope: str,
    error: str | None,
    evaluations: Mapping[str, Evaluation | None],
) -> ModelReport:
    reply = task.result if task is not None else None
    before, after = evaluations["before"], evaluations["after"]
    nothing: Evaluation = {"forget_accuracy": None, "retain_accuracy": None, "confusion": []}
    return {
        "id": record.id,
        "owner": record.owner,
        "role": role,
        "upstream_roots": upstream,
        "forgotten": forgotten,
        "digest_before": record.digest,
        "digest_after": reply.successor.digest if reply else record.digest,
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
        "alpha": reply.alpha if reply else None,
        "lambda": reply.lam if reply else None,
        "gauge": reply.gauge if reply else None,
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


def _outcome(model: str, task: Task | None, result: CampaignResult) -> ModelOutcome:
    if task is None:
        return "untouched"
    if task.state in (TaskState.APPLIED, TaskState.VERIFIED):
        return "already_applied" if model in result.already_applied else "applied"
    return "failed" if task.state is TaskState.FAILED else "pending"


def _campaign(result: CampaignResult, notes: list[str]) -> Campaign:
    outcomes = [_outcome(model, task, result) for model, task in result.tasks.items()]
    return {
        "outcome": result.outcome,
        "coverage": {
            "applied": outcomes.count("applied"),
            "already_applied": outcomes.count("already_applied"),
            "failed": outcomes.count("failed"),
            "pending": outcomes.count("pending"),
        },
        "notes": notes,
    }


def _repeat(repeat: CampaignResult | None) -> Repeat | None:
    if repeat is None:
        return None
    return {"changed": len(repeat.changed), "already_applied": len(repeat.already_applied)}


def _graph(
    graph: InheritanceGraph, roles: Mapping[str, Role], roots: list[str], planned: Plan
) -> GraphReport:
    generation = {m: i for i, level in enumerate(graph.generations()) for m in level}
    return {
        "nodes": [
            {
                "id": record.id,
                "owner": record.owner,
                "role": roles[record.id],
                "labels": list(record.labels),
                "samples_per_class": dict(record.provenance.samples_per_class)
                if record.provenance
                else {},
                "generation": generation[record.id],
            }
            for record in graph.models()
        ],
        "edges": [
            {"parent": e.parent, "child": e.child, "kind": e.kind.value, "weight": e.weight}
            for e in graph.edges()
        ],
        "roots": roots,
        "affected": list(planned.affected),
        "untouched": [m for m, role in roles.items() if role == "untouched"],
    }


def _split(data: SharedData, name: SplitName) -> Split:
    return {"size": len(getattr(data.splits, name)), "digest": data.splits.digest(name)}


def _known(graph: InheritanceGraph, model: str, data: SharedData) -> list[int]:
    """Return the classes that a model or one of its ancestors was trained on."""
    names: set[str] = set()
    waiting, seen = [model], {model}
    while waiting:
        record = graph.model(waiting.pop())
        if record.provenance:
            names |= {c for c, n in record.provenance.samples_per_class.items() if n}
        for edge in graph.parents(record.id):
            if edge.parent not in seen:
                seen.add(edge.parent)
                waiting.append(edge.parent)
    return [i for i, name in enumerate(data.dataset.classes) if name in names]
