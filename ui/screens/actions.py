"""Actions on a campaign: to whom they are offered, what has to be typed, and their calls."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from disinherit.common.durations import seconds
from disinherit.common.errors import InputError
from disinherit.ui.sessions import VisitorSession
from disinherit.v1 import coordinator_pb2 as pb


@dataclass(frozen=True, slots=True)
class CampaignAction:
    """What a person can do with a campaign.

    Attributes:
        name: of the command, too.
        label: on the button.
        done: said afterwards.
        meaning: what happens then.
        states: of the campaign in which it is offered.
        roles: who may.
        grave: whether it cannot simply be taken back: the request's id is typed, not the name.
        takes_reason: whether a reason is asked for.
        takes_deadline: whether a new deadline may be given.
    """

    name: str
    label: str
    done: str
    meaning: str
    states: tuple[str, ...]
    roles: tuple[str, ...]
    grave: bool = False
    takes_reason: bool = False
    takes_deadline: bool = False


ACTIONS = (
    CampaignAction(
        "approve",
        "Approve",
        "Approved. Owners are asked now.",
        "All models listed on this page are approved, and their owners are asked.",
        ("awaiting_approval",),
        ("approver",),
    ),
    CampaignAction(
        "pause",
        "Pause",
        "Paused. Nothing is sent until it is resumed.",
        "Nothing more is sent. Owners that were asked may still answer.",
        ("running",),
        ("operator",),
    ),
    CampaignAction(
        "resume",
        "Resume",
        "Resumed.",
        "Owners are asked again, also those whose models have not forgotten.",
        ("paused", "halted", "partial"),
        ("operator", "approver"),
        takes_deadline=True,
    ),
    CampaignAction(
        "abort",
        "Abort",
        "Aborted. Models that forgot stay as they are.",
        "It ends now. Models that have forgotten stay so; roll back to restore them.",
        ("awaiting_approval", "running", "paused", "halted", "partial"),
        ("operator", "approver"),
        grave=True,
    ),
    CampaignAction(
        "rollback",
        "Roll back",
        "Owners are asked to put the old versions back.",
        "Owners put the old versions back: these models know again what they had forgotten.",
        ("paused", "halted", "aborted", "partial", "complete", "rolled_back"),
        ("approver",),
        grave=True,
        takes_reason=True,
    ),
)


def offered(campaign: Mapping[str, Any], role: str) -> list[dict[str, Any]]:
    """Return the actions that fit a campaign's state and a role, as values for a form.

    An approver also approves models that joined an approved request later.
    """
    joined = campaign["counts"].get("unapproved")
    return [
        {
            "name": one.name,
            "label": one.label,
            "meaning": one.meaning,
            "grave": one.grave,
            "takes_reason": one.takes_reason,
            "takes_deadline": one.takes_deadline,
            "typed": campaign["id"] if one.grave else one.name,
            "plan": campaign["plan_sha256"] if one.name == "approve" else None,
        }
        for one in ACTIONS
        if role in one.roles
        and (campaign["state"] in one.states or (joined and one.name == "approve"))
        and not (one.name == "resume" and campaign["state"] == "halted" and role != "approver")
    ]


def act(session: VisitorSession, form: Mapping[str, str]) -> str:
    """Do what a form asks for, with the visitor's token.

    Args:
        session: the visitor.
        form: `action`, `id`, `typed` and what the action takes.

    Returns:
        What was done, to show on the next page.

    Raises:
        DisinheritError: if what was typed is not what was asked for, or the coordinator refuses.
    """
    name, request_id = form.get("action", ""), form.get("id", "")
    action = next((one for one in ACTIONS if one.name == name), None)
    if action is None:
        names = ", ".join(one.name for one in ACTIONS)
        raise InputError(f"Expected one of the actions {names}, but got {name[:50]!r}.")
    expected = request_id if action.grave else action.name
    if form.get("typed", "").strip() != expected:
        raise InputError(
            f"Expected {expected!r} to be typed, so that nobody does this by mistake, but got "
            f"{form.get('typed', '')[:150]!r}. Nothing was changed."
        )
    _CALLS[name](session, request_id, form)
    return action.done


def _approve(session: VisitorSession, request_id: str, form: Mapping[str, str]) -> None:
    request = pb.ControlRequest(id=request_id, plan_sha256=form.get("plan", ""))
    session.visitor.call(lambda stub: stub.ApproveRequest, request)


def _pause(session: VisitorSession, request_id: str, form: Mapping[str, str]) -> None:
    session.visitor.call(lambda stub: stub.PauseRequest, pb.ControlRequest(id=request_id))


def _resume(session: VisitorSession, request_id: str, form: Mapping[str, str]) -> None:
    request = pb.ResumeRequestRequest(id=request_id)
    if deadline := form.get("deadline", "").strip():
        request.deadline_seconds = seconds(deadline)
    session.visitor.call(lambda stub: stub.ResumeRequest, request)


def _abort(session: VisitorSession, request_id: str, form: Mapping[str, str]) -> None:
    session.visitor.call(lambda stub: stub.AbortRequest, pb.ControlRequest(id=request_id))


def _roll_back(session: VisitorSession, request_id: str, form: Mapping[str, str]) -> None:
    reason = form.get("reason", "").strip()
    if not reason:
        raise InputError("Expected a reason for rolling back, but got none. Nothing was changed.")
    request = pb.RollBackRequestRequest(id=request_id, reason=reason)
    session.visitor.call(lambda stub: stub.RollBackRequest, request)


_CALLS: Mapping[str, Callable[[VisitorSession, str, Mapping[str, str]], None]] = {
    "approve": _approve,
    "pause": _pause,
    "resume": _resume,
    "abort": _abort,
    "rollback": _roll_back,
}
