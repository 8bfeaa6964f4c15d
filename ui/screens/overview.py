"""Overview: what needs somebody above all else, then what runs, and the fleet."""

from collections.abc import Mapping, Sequence
from typing import Any

from disinherit.ui.screens.campaigns import read_campaigns
from disinherit.ui.screens.owners import read_owners
from disinherit.ui.screens.screen import Page
from disinherit.ui.words import CAMPAIGNS, listed
from disinherit.v1 import coordinator_pb2 as pb

_ENDED_SHOWN = 5


def load(page: Page) -> Mapping[str, Any]:
    """Return what needs somebody, running and ended campaigns, and the fleet in numbers."""
    campaigns = read_campaigns(page)
    owners = read_owners(page)
    return {
        "needs": [*_of_campaigns(campaigns), *_of_owners(owners)],
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
    if not missing:
        return []
    tasks = sum(one["pending_tasks"] for one in missing)
    return [
        {
            "tone": "warning",
            "kind": "owners",
            "id": "",
            "state": "offline",
            "title": f"Not connected for a day or more: {listed([one['name'] for one in missing])}",
            "text": f"{tasks} of their models wait. They go on by themselves when they are back.",
            "since": min((one["last_seen"] for one in missing if one["last_seen"]), default=None),
        }
    ]


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
