"""A campaign: what was asked, how far it is, who is missing and why, and what it cost."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc

from disinherit.common.wire.remedies import REMEDIES, remedy_word
from disinherit.documents.campaign.evidence_words import evidence
from disinherit.documents.campaign.values import recognition_values
from disinherit.documents.words import as_time
from disinherit.ui.screens.actions import offered
from disinherit.ui.screens.campaigns import campaign_values
from disinherit.ui.screens.owners import read_owners
from disinherit.ui.screens.screen import Page
from disinherit.ui.words import TASKS, WORST_FIRST, now
from disinherit.v1 import coordinator_pb2 as pb

_DONE = ("verified", "exempt", "rolled_back")
MOST_EVENTS = 200
"""Newest lines of the timeline; the audit log has all."""


def load(page: Page) -> Mapping[str, Any]:
    """Return everything about one campaign."""
    request_id = page.needed("id", "?id=forget-0123456789ab")
    status = page.visitor.call(lambda stub: stub.GetRequest, pb.GetRequestRequest(id=request_id))
    pages = list(
        page.visitor.pages(lambda stub: stub.GetReport, pb.GetReportRequest(id=request_id))
    )
    summary = pages[0].summary
    models = [model_values(one) for part in pages for one in part.models]
    online = _online(page, models)
    for one in models:
        one["online"] = online.get(one["owner"])
    campaign = campaign_values(status, page.session.role)
    return {
        "campaign": campaign,
        "models": models,
        "states": {one["model"]: one["state"] for one in models},
        "roots": [root.model_id for root in status.request.roots],
        "missing": _missing(models),
        "waves": _waves(status, models),
        "gates": _gates(status.request.roll_out),
        "progress": _progress(models, campaign),
        "recognised": _recognised(models),
        "accuracies": _accuracies(models, status.request.roll_out),
        "gaps": [
            {"kind": gap.kind, "models": list(gap.model_ids), "text": gap.text}
            for gap in summary.gaps
        ],
        "times": {name: as_time(one) for name, one in sorted(summary.times_us.items())},
        "audit": {"entries": summary.audit_entries, "head": summary.audit_head},
        "request_sha256": summary.request_sha256,
        "timeline": _timeline(page, request_id),
        "actions": offered(campaign, page.session.role),
    }


def command(page: Page) -> Sequence[str]:
    """Return the command that watches the request."""
    return ("request", "watch", page.text("id"))


def model_values(report: pb.ModelReport) -> dict[str, Any]:
    """Return what happened to one affected model as values of JSON."""
    covered = report.coverage
    measured = covered.measured
    remedy = remedy_word(covered.remedy)
    return {
        "model": covered.model_id,
        "owner": covered.owner,
        "state": covered.state,
        "reason": covered.reason,
        "successor": covered.successor_id or None,
        "digest_before": covered.digest_before or None,
        "digest_after": covered.digest_after or None,
        "updated": as_time(covered.updated_us),
        "wave": covered.wave + 1,
        "told": as_time(covered.told_us),
        "acknowledged": as_time(covered.acknowledged_us),
        "done": as_time(covered.done_us),
        "destroy": as_time(covered.destroy_us),
        "destroyed": as_time(covered.destroyed_us),
        "remedy": remedy or None,
        "remedy_meaning": REMEDIES.get(remedy),
        "retain_before": measured.retain_before if measured.HasField("retain_before") else None,
        "retain_after": measured.retain_after if measured.HasField("retain_after") else None,
        "retain_samples": measured.retain_samples or None,
        "forget": recognition_values(measured.forget) if measured.HasField("forget") else None,
    }


def _online(page: Page, models: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
    """Return which owners are connected; nothing if no model waits for its owner."""
    if all(one["state"] in _DONE for one in models):
        return {}
    return {one["name"]: one["online"] for one in read_owners(page)}


def _missing(models: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the models that have not forgotten, those that somebody has to look at first."""
    order = {name: place for place, name in enumerate(WORST_FIRST)}
    waiting = [one for one in models if one["state"] not in _DONE]
    waiting.sort(key=lambda one: (order.get(one["state"], len(order)), one["model"]))
    return [{**one, "why": _why(one)} for one in waiting]


def _why(model: Mapping[str, Any]) -> str:
    if model["reason"]:
        return str(model["reason"])
    if model["state"] in ("pending", "sent") and model["online"] is False:
        return "its owner is offline; it goes on by itself when the owner is back"
    found = TASKS.get(model["state"])
    return found.meaning if found else ""


def _waves(status: pb.RequestStatus, models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the waves of a staged roll-out with the states of their models."""
    if status.waves < 2:
        return []
    waves = []
    for number in range(1, status.waves + 1):
        states = Counter(one["state"] for one in models if one["wave"] == number)
        owners = sorted({one["owner"] for one in models if one["wave"] == number})
        if number <= status.waves_begun and status.state != pb.CAMPAIGN_STATE_AWAITING_APPROVAL:
            settled = all(state in _DONE for state in states)
            word = "passed" if number < status.waves_begun or settled else "running"
        else:
            word = "waiting"
        waves.append({"wave": number, "state": word, "owners": owners, "counts": dict(states)})
    return waves


def _gates(roll_out: Any) -> list[str]:
    """Return the conditions for the next wave as sentences."""
    share = roll_out.min_success if roll_out.HasField("min_success") else 1.0
    gates = [f"The next wave begins when {100 * share:g} % of a wave's models are verified."]
    if roll_out.HasField("max_retain_drop"):
        gates.append(
            f"It halts if a model loses more than {roll_out.max_retain_drop:g} points of accuracy "
            "on what is kept, or if that was not measured."
        )
    if roll_out.HasField("max_error_rate"):
        gates.append(f"It halts if more than {100 * roll_out.max_error_rate:g} % of a wave fail.")
    return gates


def _progress(
    models: Iterable[Mapping[str, Any]], campaign: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return how many models were verified at each time, from the request on; open ones until now.

    It is empty as long as there is none.
    """
    times = sorted(one["done"] for one in models if one["done"])
    if not times or campaign["received"] is None:
        return []
    points = [{"time": time, "verified": number} for number, time in enumerate(times, 1)]
    if campaign["open"]:
        points.append({"time": now().isoformat(timespec="seconds"), "verified": len(times)})
    return [{"time": campaign["received"], "verified": 0}, *points]


def _accuracies(models: Iterable[Mapping[str, Any]], roll_out: Any) -> dict[str, Any]:
    """Return accuracy on what is kept, before and after, the largest loss first."""
    rows = [
        {
            "model": one["model"],
            "owner": one["owner"],
            "before": one["retain_before"],
            "after": one["retain_after"],
            "drop": 100 * (one["retain_before"] - one["retain_after"]),
            "samples": one["retain_samples"],
        }
        for one in models
        if one["retain_before"] is not None and one["retain_after"] is not None
    ]
    rows.sort(key=lambda row: -row["drop"])
    limit = roll_out.max_retain_drop if roll_out.HasField("max_retain_drop") else None
    return {"rows": rows, "limit": limit}


def _recognised(models: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what models still recognise of what was to be forgotten, in words, the most first."""
    measured = [one for one in models if one["forget"] is not None]
    measured.sort(key=lambda one: one["forget"]["floor"] - one["forget"]["after"])
    groups = evidence((one["model"], one["forget"]) for one in measured)
    return [{"models": named, "text": text} for named, text in groups]


def _timeline(page: Page, request_id: str) -> list[dict[str, Any]]:
    """Return the newest events of a request as the audit log has them, the newest first.

    Viewers get them, too, without who caused them.
    """
    request = pb.WatchFleetRequest(after_sequence=0, request_id=request_id)
    events: list[dict[str, Any]] = []
    call = page.visitor.follow(lambda stub: stub.WatchFleet, request)
    try:
        for event in call:
            if event.kind == "caught_up":
                break
            if event.kind not in ("owner_online", "owner_offline"):
                events.append(_event(event))
    except grpc.RpcError as error:
        raise page.visitor.explain(error) from None
    finally:
        call.cancel()
    return events[: -MOST_EVENTS - 1 : -1]


def _event(event: pb.FleetEvent) -> dict[str, Any]:
    return {
        "sequence": event.sequence,
        "time": as_time(event.time_us),
        "kind": event.kind,
        "model": event.model_id or None,
        "owner": event.owner or None,
        "state": event.state or None,
        "text": event.text,
        "actor": event.actor or None,
    }
