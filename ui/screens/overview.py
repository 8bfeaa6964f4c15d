"""Overview: what needs somebody above all else, then what runs, and the fleet."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from disinherit.documents.words import count
from disinherit.ui.screens.campaigns import read_campaigns
from disinherit.ui.screens.owners import read_owners
from disinherit.ui.screens.screen import Page
from disinherit.ui.words import CAMPAIGNS, listed
from disinherit.v1 import coordinator_pb2 as pb

_ENDED_SHOWN = 5
_UNANSWERED = ("pending", "sent", "unapproved")


def load(page: Page) -> Mapping[str, Any]:
    """Return what needs somebody, running and ended campaigns, and the fleet in numbers."""
    campaigns = read_campaigns(page)
    owners = read_owners(page)
    return {
        "needs": [
            *_of_campaigns(campaigns),
            *_without_summary(page, campaigns),
            *_of_owners(owners),
        ],
        "running": [one for one in campaigns if one["open"] and not one["needs"]],
        "ended": [one for one in campaigns if not one["open"] and not one["needs"]][:_ENDED_SHOWN],
        "campaigns": len(campaigns),
        "fleet": {
            "owners": len(owners),
            "online": sum(one["online"] for one in owners),
            "models": sum(one["models"] for one in owners),
            "active_models": sum(one["active_models"] for one in owners),
            "pending_tasks": sum(one["pending_tasks"] for one in owners),
        },
        "log": _log(page, campaigns),
    }


def command(page: Page) -> Sequence[str]:
    """Return the command that says what needs somebody."""
    return ("status",)


def _of_campaigns(campaigns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "tone": CAMPAIGNS[one["state"]].tone if one["state"] in CAMPAIGNS else "calm",
            "kind": "campaign",
            "id": one["id"],
            "state": one["state"],
            "title": one["sentence"],
            "text": one["needs"],
            "since": one["updated"],
        }
        for one in campaigns
        if one["needs"]
    ]


def _of_owners(owners: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    missing = [one for one in owners if one["missing"]]
    tasks = sum(one["pending_tasks"] for one in missing)
    away = [one for one in owners if one["away"] and not one["missing"]]
    models = count(sum(one["active_models"] for one in away), "model")
    return [
        {
            "tone": "warning",
            "kind": kind,
            "id": "",
            "state": "offline",
            "title": f"Not connected {_since(some)}: {listed([one['name'] for one in some])}",
            "text": text,
            "since": min((one["last_seen"] for one in some if one["last_seen"]), default=None),
        }
        for kind, some, text in (
            (
                "owners",
                missing,
                f"{tasks} of their models wait. They go on by themselves when they are back.",
            ),
            (
                "idle owners",
                away,
                f"Nothing waits for them now, but a request would not reach their {models}.",
            ),
        )
        if some
    ]


def _since(owners: Sequence[Mapping[str, Any]]) -> str:
    """Return for how long owners are not connected: not all of them ever were."""
    seen = sum(bool(one["last_seen"]) for one in owners)
    parts = ["yet"] * (seen < len(owners)) + ["for a day or more"] * bool(seen)
    return ", or ".join(parts)


def _without_summary(
    page: Page, campaigns: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield the campaigns with roots that have not answered and have no Fisher summary."""
    waiting = [
        one
        for one in campaigns
        if one["open"]
        and one["needs_summaries"]
        and any(one["counts"].get(state) for state in _UNANSWERED)
    ]
    if not waiting:
        return
    models = page.visitor.pages(lambda stub: stub.ListModels, pb.ListModelsRequest())
    bare = {one.id for part in models for one in part.models if not one.fisher_digest}
    for campaign in waiting:
        roots = bare.intersection(campaign["needs_summaries"])
        if not roots:
            continue
        request = pb.GetCoverageRequest(id=campaign["id"])
        left = [
            one
            for part in page.visitor.pages(lambda stub: stub.GetCoverage, request)
            for one in part.models
            if one.model_id in roots and one.state in _UNANSWERED
        ]
        if left:
            yield {
                "tone": "warning",
                "kind": "summary",
                "id": campaign["id"],
                "state": campaign["state"],
                "title": f"No Fisher summary: {listed([one.model_id for one in left])}",
                "text": "It answers from its training data, which has to be kept until then by "
                f"{listed(sorted({one.owner for one in left}))}.",
                "since": campaign["received"],
            }


def _log(page: Page, campaigns: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return where the audit log ends; `None` before the first request."""
    if not campaigns:
        return None
    request = pb.GetReportRequest(id=campaigns[0]["id"], page_size=1)
    summary = page.visitor.call(lambda stub: stub.GetReport, request).summary
    return {
        "entries": summary.log_sequence,
        "head": summary.log_head,
        "key_id": summary.key_id or None,
    }
