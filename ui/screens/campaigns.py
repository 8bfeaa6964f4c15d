"""Campaigns: all requests with their states, the ones that need somebody first."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from disinherit.documents.campaign.values import campaign_state
from disinherit.documents.words import as_time, count
from disinherit.ui.screens.screen import Page
from disinherit.ui.words import OPEN, TASKS, listed, now
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import unlearning_pb2

NEAR = timedelta(days=3)
"""How long before its deadline a campaign is shown as urgent."""

_NO_WORK = ("exempt",)
_SHOWN_NAMES = 4


def load(page: Page) -> Mapping[str, Any]:
    """Return the campaigns that fit the filter, the newest first."""
    owner = page.text("owner")
    campaigns = read_campaigns(page, owner)
    state, text, mine = page.text("state"), page.text("q").lower(), page.text("mine") == "1"
    shown = [
        one
        for one in campaigns
        if (not state or one["state"] == state)
        and (not text or text in searched(one))
        and (not mine or one["needs"])
    ]
    return {
        "campaigns": shown,
        "total": len(campaigns),
        "state": state,
        "q": page.text("q"),
        "owner": owner,
        "mine": mine,
        "states": sorted({one["state"] for one in campaigns} | ({state} - {""})),
    }


def command(page: Page) -> Sequence[str]:
    """Return the command that lists requests."""
    owner = page.text("owner")
    return ("request", "list", *(("--owner", owner) if owner else ()))


def searched(campaign: Mapping[str, Any]) -> str:
    """Return the text in which a filter looks."""
    return f"{campaign['id']} {campaign['sentence']} {campaign['reason']}".lower()


def read_campaigns(page: Page, owner: str = "") -> list[dict[str, Any]]:
    """Return requests as values, the newest first.

    Args:
        page: the visitor.
        owner: only requests that affect a model of this owner; `""` for all.

    Raises:
        DisinheritError: if a call fails.
    """
    wanted = pb.ListRequestsRequest(owner=owner)
    pages = page.visitor.pages(lambda stub: stub.ListRequests, wanted)
    found = [campaign_values(one, page.session.role) for part in pages for one in part.requests]
    found.reverse()
    return found


def campaign_values(status: pb.RequestStatus, role: str) -> dict[str, Any]:
    """Return the status of a request as values of JSON.

    Args:
        status: as the coordinator sent it.
        role: of the visitor, for `needs`.
    """
    request = status.request
    state = campaign_state(status.state)
    counts = {name: status.tasks[name] for name in TASKS if status.tasks.get(name)}
    counts |= {name: one for name, one in sorted(status.tasks.items()) if name not in TASKS}
    total = sum(counts.values())
    values: dict[str, Any] = {
        "id": request.id,
        "state": state,
        "open": state in OPEN,
        "sentence": sentence(status),
        "reason": request.reason,
        "counts": counts,
        "verified": counts.get("verified", 0),
        "to_do": total - sum(counts.get(name, 0) for name in _NO_WORK),
        "total": total,
        "waves": {"begun": status.waves_begun, "of": status.waves},
        "received": as_time(status.received_us or status.created_us),
        "submitted_by": status.submitted_by or None,
        "approved": as_time(status.approved_us),
        "approved_by": status.approved_by or None,
        "updated": as_time(status.updated_us),
        "deadline": as_time(status.deadline_us),
        "halted": status.reason or None,
        "needs_summaries": _asked_for_summaries(request),
        "retention_seconds": request.retention_seconds or None,
        "plan_sha256": status.plan_sha256 or None,
        "approved_plan_sha256": status.approved_plan_sha256 or None,
    }
    values["needs"] = needs(values, status.deadline_us, role)
    return values


def needs(campaign: Mapping[str, Any], deadline_us: int, role: str) -> str:
    """Return what somebody has to decide about a campaign; `""` for nothing.

    Args:
        campaign: its values.
        deadline_us: its deadline in microseconds since the epoch; 0 for none.
        role: of the visitor.
    """
    state, counts = campaign["state"], campaign["counts"]
    mine = " It is yours to decide." if role == "approver" else " An approver has to decide."
    if state == "awaiting_approval":
        return f"Waits for an approval of {count(campaign['total'], 'model')}.{mine}"
    if state == "halted":
        return f"Halted: {campaign['halted'] or 'a threshold was passed'}.{mine}"
    if counts.get("unapproved"):
        return f"{count(counts['unapproved'], 'model')} joined later, without approval.{mine}"
    if state == "partial":
        left = sum(counts.values()) - counts.get("verified", 0) - counts.get("exempt", 0)
        return f"Ended with {count(left, 'model')} that did not forget. Resume it or roll it back."
    soon = deadline_us and deadline_us / 1e6 < (now() + NEAR).timestamp()
    if soon and campaign["open"]:
        return "Its deadline is near, and not all models have forgotten."
    if counts.get("failed") and campaign["open"]:
        return f"{count(counts['failed'], 'model')} failed."
    if state == "paused":
        return "Paused: nothing is sent until somebody resumes it."
    return ""


def sentence(status: pb.RequestStatus) -> str:
    """Return what is asked, as a sentence."""
    request = status.request
    if request.client:
        return f"Forget everything that {request.client} contributed"
    if any(root.classes for root in request.roots):
        return _classes(request.roots)
    counts = status.sample_counts or [len(root.samples) for root in request.roots]
    roots = listed([root.model_id for root in request.roots], _SHOWN_NAMES)
    return f"Forget {count(sum(counts), 'sample')} everywhere inherited from {roots}"


def _asked_for_summaries(request: unlearning_pb2.UnlearningRequest) -> list[str]:
    """Return the roots that answer with what they learned of classes, not with a change."""
    if request.method.mechanism:
        return []
    return [root.model_id for root in request.roots if root.classes]


def _classes(roots: Iterable[unlearning_pb2.Root]) -> str:
    by_classes: dict[tuple[str, ...], list[str]] = {}
    for root in roots:
        by_classes.setdefault(tuple(root.classes), []).append(root.model_id)
    asked = [
        f"{_quoted(classes)} everywhere inherited from {listed(models, _SHOWN_NAMES)}"
        for classes, models in by_classes.items()
    ]
    return "Forget " + ", and ".join(asked)


def _quoted(classes: tuple[str, ...]) -> str:
    names = listed([f"“{name}”" for name in classes], _SHOWN_NAMES)
    return f"{'class' if len(classes) == 1 else 'classes'} {names}"
