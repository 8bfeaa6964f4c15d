"""Models: all of them with their owners, and everything that the graph knows of one."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from disinherit.common.graph.identifiers import successor_id
from disinherit.documents.words import as_time
from disinherit.ui.lineage import STATUSES, SeenLineage, kind_of, read_lineage
from disinherit.ui.screens.campaign import model_values
from disinherit.ui.screens.campaigns import read_campaigns
from disinherit.ui.screens.screen import Page
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import graph_pb2

MOST_SHOWN = 200
_MOST_CAMPAIGNS = 20


def load(page: Page) -> Mapping[str, Any]:
    """Return the versions that fit the filter, the newest first."""
    pages = page.visitor.pages(lambda stub: stub.ListModels, pb.ListModelsRequest())
    records = [one for part in pages for one in part.models]
    text, status = page.text("q").lower(), page.text("status")
    shown = [
        record_values(one)
        for one in reversed(records)
        if text in f"{one.id} {one.owner}".lower()
        and (not status or STATUSES.get(one.status) == status)
    ]
    return {
        "models": shown[:MOST_SHOWN],
        "found": len(shown),
        "total": len(records),
        "q": page.text("q"),
        "status": status,
        "statuses": tuple(STATUSES.values()),
    }


def command(page: Page) -> Sequence[str]:
    """Return the command that lists models."""
    return ("model", "list")


def load_one(page: Page) -> Mapping[str, Any]:
    """Return everything about one version."""
    model_id = page.needed("id", "?id=r1")
    lineage = read_lineage(page.visitor)
    record = lineage.record(model_id)
    versions = lineage.versions(model_id)
    of = lineage.folded().of
    return {
        "model": record_values(record),
        "versions": [record_values(lineage.records[one]) for one in versions],
        "parents": _edges(lineage.parents.get(model_id, ()), lineage, "parent", versions),
        "children": _edges(lineage.children.get(model_id, ()), lineage, "child", versions),
        **{
            name: len({of[one] for one in lineage.around(model_id, len(of), way)}) - 1
            for name, way in (("descendants", "down"), ("ancestors", "up"))
        },
        "campaigns": _campaigns(page, lineage, versions),
    }


def command_one(page: Page) -> Sequence[str]:
    """Return the command that shows a model."""
    return ("model", "show", page.text("id"))


def record_values(record: graph_pb2.ModelRecord) -> dict[str, Any]:
    """Return the record of a version as values of JSON."""
    trained = record.provenance
    scale = record.fisher_scale
    return {
        "id": record.id,
        "owner": record.owner,
        "status": STATUSES.get(record.status, "unknown"),
        "created": as_time(record.created_us),
        "digest": record.digest or None,
        "architecture": record.architecture or None,
        "labels": list(record.labels),
        "dataset": trained.dataset or None,
        "samples": dict(sorted(trained.samples_per_class.items())),
        "sample_set": trained.sample_set_digest or None,
        "summary": record.fisher_digest or None,
        "summary_scope": scale.scope or None,
        "summary_sum": sum(scale.sums) if scale.sums else None,
    }


def _edges(
    edges: Iterable[graph_pb2.Inheritance], lineage: SeenLineage, end: str, own: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the edges to other models: `own` are versions of this one."""
    return [
        {
            "model": getattr(edge, end),
            "owner": lineage.records[getattr(edge, end)].owner,
            "kind": kind_of(edge),
            "weight": edge.weight,
            "recipe": edge.recipe or None,
            "source": edge.source or None,
            "confidence": edge.confidence or None,
            "labels": dict(edge.labels),
        }
        for edge in edges
        if getattr(edge, end) not in own
    ]


def _campaigns(page: Page, lineage: SeenLineage, versions: Sequence[str]) -> list[dict[str, Any]]:
    """Return what campaigns did to the versions of a model, the newest first.

    A campaign names what it makes of a version after both; those that made none count while they
    are open or need somebody.
    """
    campaigns = read_campaigns(page)
    known = set(versions)
    asked = [
        one
        for one in campaigns
        if one["open"]
        or one["needs"]
        or not known.isdisjoint(successor_id(version, one["id"]) for version in versions)
    ]
    found = []
    for campaign in asked[:_MOST_CAMPAIGNS]:
        request = pb.GetReportRequest(id=campaign["id"])
        for part in page.visitor.pages(lambda stub: stub.GetReport, request):
            found += [
                {"campaign": campaign, **model_values(one)}
                for one in part.models
                if one.coverage.model_id in versions
            ]
    return found
