"""The content of `report.json`, from what a run measured."""

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import flwr
import torch

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.labels import class_indices
from disinherit.common.method import Method
from disinherit.common.models.devices import described, pick_device
from disinherit.documents.intervals import Share
from disinherit.server.campaign.result import CampaignResult
from disinherit.server.planning.plan import Plan
from disinherit.simulations.data.splits import SplitName
from disinherit.simulations.report.document import (
    CampaignFigures,
    Certainty,
    Evaluation,
    MethodFigures,
    Repeat,
    Role,
    RunReport,
    Split,
)
from disinherit.simulations.report.document import Graph as GraphReport
from disinherit.simulations.report.models import known_labels, model_report, outcome_of
from disinherit.simulations.scenario.label_spaces import label_spaces
from disinherit.simulations.scenario.settings import OWNER_THREADS, Settings
from disinherit.simulations.scenario.shares import SharedData


def accuracy(confusion: Sequence[Sequence[int]], classes: Collection[int]) -> float | None:
    """Return the share of right answers on the samples of some classes.

    Args:
        confusion: counts `[C, C]`; row = true class, column = predicted class.
        classes: true classes to look at.

    Returns:
        Percent, 0 to 100; `None` if there is no sample of these classes.

    Example:
        >>> accuracy([[3, 1], [0, 4]], [0])
        75.0
    """
    samples = _samples(confusion, classes)
    return 100.0 * sum(confusion[c][c] for c in classes) / samples if samples else None


def evaluation(
    confusion: list[list[int]], forgotten: Collection[int], known: Collection[int]
) -> Evaluation:
    """Return forget and retain accuracy with the counts they come from.

    Args:
        confusion: counts `[C, C]`.
        forgotten: classes that the model is to forget.
        known: classes that the model or its ancestors were trained on; classes it never met count
            neither as forgotten nor as retained.
    """
    return {
        "forget_accuracy": accuracy(confusion, forgotten),
        "retain_accuracy": accuracy(confusion, [c for c in known if c not in forgotten]),
        "confusion": confusion,
    }


def certainty(
    confusion: Sequence[Sequence[int]], forgotten: Collection[int], known: Collection[int]
) -> dict[str, Certainty]:
    """Return how sure each accuracy of `evaluation` is; arguments as there."""
    retained = [c for c in known if c not in forgotten]
    found: dict[str, Certainty] = {}
    for key, classes in (("forget_accuracy", forgotten), ("retain_accuracy", retained)):
        percent, samples = accuracy(confusion, classes), _samples(confusion, classes)
        if percent is not None:
            interval = Share(percent, samples).interval or ()
            found[key] = {"samples": samples, "interval": [round(one, 2) for one in interval]}
    return found


def _samples(confusion: Sequence[Sequence[int]], classes: Collection[int]) -> int:
    return sum(sum(confusion[c]) for c in classes)


Confusions = dict[str, list[list[int]]]
"""Model id -> confusion counts `[C, C]`; a model is missing if it could not be evaluated."""


@dataclass(slots=True)
class RunMeasurements:
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
    data: SharedData,
    graph: InheritanceGraph,
    planned: Plan,
    result: CampaignResult,
    repeat: CampaignResult | None,
    measured: RunMeasurements,
) -> RunReport:
    """Put a report together.

    Args:
        settings: of the run.
        data: the data set and its splits.
        graph: the inheritance graph when the request was planned.
        planned: the plan.
        result: the campaign.
        repeat: the same request sent once more.
        measured: accuracies and times.

    Returns:
        What goes into `report.json`.
    """
    method = settings.method.settled(by_class=True)
    ids = [record.id for record in graph.models()]
    spaces = label_spaces(settings.scenario, data.dataset)
    known = {m: known_labels(graph, spaces, m) for m in ids}
    roots = list(settings.forget)
    upstream = {m: [r for r in roots if r in graph.upstream_roots(m, roots)] for m in ids}
    sensitive = spaces.sensitive(settings.forget)
    forgotten = {
        m: [
            label
            for root in upstream[m]
            for name in sensitive[root]
            if (label := spaces.label_of(m, name)) is not None
        ]
        for m in ids
    }
    roles: dict[str, Role] = {
        m: "root" if m in roots else "affected" if m in planned.affected else "untouched"
        for m in ids
    }

    def judged(model: str) -> tuple[Collection[int], Collection[int]]:
        labels = spaces.labels[model]
        return class_indices(labels, forgotten[model]), class_indices(labels, known[model])

    def evaluated(confusions: Confusions, model: str) -> Evaluation | None:
        if model not in confusions:
            return None
        return evaluation(confusions[model], *judged(model))

    stages = {
        "before": measured.before,
        "after": measured.after,
        "retrained": measured.retrained,
        "published": measured.published,
    }

    timing = result.timing
    return {
        "schema_version": 1,
        "disinherit": _version(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "scenario": {
            "name": settings.scenario.name,
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
            "method": _method(method),
        },
        "graph": _graph(graph, roles, roots, planned),
        "splits": {
            "train": _split(data, "train"),
            "tuning": _split(data, "tuning"),
            "evaluation": _split(data, "evaluation"),
            "disjoint": True,  # checked when the splits were made; overlapping ones are refused
        },
        "models": [
            model_report(
                graph.model(m),
                roles[m],
                upstream[m],
                forgotten[m],
                outcome_of(m, result.tasks.get(m), result),
                result.tasks.get(m),
                method.scope,
                measured.errors.get(m),
                {stage: evaluated(confusions, m) for stage, confusions in stages.items()},
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
        "certainty": {
            m: {
                stage: certainty(confusions[m], *judged(m))
                for stage, confusions in stages.items()
                if m in confusions
            }
            for m in ids
        },
    }


def environment(device: str) -> dict[str, str | int]:
    """Return what a figure depends on besides the code."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "flwr": flwr.__version__,
        "platform": platform.platform(),
        "cpus": os.cpu_count() or 1,
        "device": described(pick_device(device)),
        "threads": OWNER_THREADS,
    }


def _version() -> str:
    try:
        return importlib.metadata.version("disinherit")
    except importlib.metadata.PackageNotFoundError:  # a source tree on the path
        return "not installed"


def _campaign(result: CampaignResult, notes: list[str]) -> CampaignFigures:
    outcomes = [outcome_of(model, task, result) for model, task in result.tasks.items()]
    return {
        "outcome": result.outcome,
        "coverage": {
            "applied": outcomes.count("applied"),
            "already_applied": outcomes.count("already_applied"),
            "ineffective": outcomes.count("ineffective"),
            "not_reached": outcomes.count("not_reached"),
            "harmful": outcomes.count("harmful"),
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


def _method(method: Method) -> MethodFigures:
    figures: MethodFigures = {
        "scope": method.scope,
        "reference": method.reference,
        "merge": method.merge,
        "alpha": method.alpha,
        "lambda": method.lam,
        "gauge": method.gauge,
        "exponent": method.exponent,
        "bound": method.bound,
        "row_scoped": method.row_scoped,
    }
    if method.inherits_delta:
        figures["root_method"] = method.root_method
    return figures
