"""Events of the fleet, for people to read: made from entries of the audit log."""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection

from disinherit.common.audit.chain import AuditEntry, AuditEvent
from disinherit.common.limits import REASON, clipped
from disinherit.server.now import now_us
from disinherit.server.states import CampaignState, TaskState
from disinherit.server.store.audit_events import OF_TASK, AuditKind
from disinherit.server.store.campaigns import Campaign, find_some_campaigns
from disinherit.server.store.request_rows import find_tasks
from disinherit.v1 import coordinator_pb2 as pb

ONLINE, OFFLINE, CAUGHT_UP = "owner_online", "owner_offline", "caught_up"
"""Kinds of events that the audit log does not have."""

_OF_TASK: Mapping[str, TaskState] = {kind.value: state for state, kind in OF_TASK.items()} | {
    AuditKind.FELL_BACK.value: TaskState.PENDING,
}
_OF_CAMPAIGN: Mapping[str, CampaignState] = {
    AuditKind.RECEIVED.value: CampaignState.RUNNING,
    AuditKind.APPROVED.value: CampaignState.RUNNING,
    AuditKind.PAUSED.value: CampaignState.PAUSED,
    AuditKind.RESUMED.value: CampaignState.RUNNING,
    AuditKind.ABORTED.value: CampaignState.ABORTED,
    AuditKind.REOPENED.value: CampaignState.RUNNING,
    AuditKind.HALT_DECIDED.value: CampaignState.HALTED,
    AuditKind.COMPLETED.value: CampaignState.COMPLETE,
    AuditKind.PARTIAL.value: CampaignState.PARTIAL,
    AuditKind.ROLLBACK_DECIDED.value: CampaignState.ROLLING_BACK,
    AuditKind.ROLLBACK_COMPLETED.value: CampaignState.ROLLED_BACK,
}
_TEXTS: Mapping[AuditKind, str] = {
    AuditKind.MODEL_REGISTERED: "{model} of {owner} was registered",
    AuditKind.MODEL_COMPLETED: "the record of {model} of {owner} was completed",
    AuditKind.MODEL_WITHDRAWN: "the registration of {model} was withdrawn",
    AuditKind.MODEL_RETIRED: "{model} of {owner}, which has left, was retired",
    AuditKind.SIGNING_KEY: "another key signs from now on",
    AuditKind.KEY_REVOKED: "a signing key was revoked",
    AuditKind.CHECKPOINT: "the audit log was signed",
    AuditKind.CLOCK_CONFIRMED: "a person confirmed the coordinator's clock",
    AuditKind.HISTORY_CONFIRMED: "a person accepted that the audit log has lost entries",
    AuditKind.RECEIVED: "the request was submitted",
    AuditKind.APPROVED: "the request was approved",
    AuditKind.PAUSED: "the campaign was paused",
    AuditKind.RESUMED: "the campaign was resumed",
    AuditKind.ABORTED: "the campaign was aborted",
    AuditKind.REOPENED: "the campaign is open again, as there is more to do",
    AuditKind.WAVE_DECIDED: "wave {wave} of the roll-out begins",
    AuditKind.HALT_DECIDED: "the campaign was halted",
    AuditKind.COMPLETED: "the campaign is complete",
    AuditKind.PARTIAL: "the campaign has ended, and not every version has forgotten",
    AuditKind.ROLLBACK_DECIDED: "the campaign is being rolled back",
    AuditKind.ROLLBACK_COMPLETED: "the campaign was rolled back",
    AuditKind.PLANNED: "{model} of {owner} is to forget",
    AuditKind.EXEMPT: "{model} of {owner} is exempt",
    AuditKind.HALTED: "{model} of {owner} waits until the campaign is resumed",
    AuditKind.FISHER_RECEIVED: "{owner} answered for the root {model}",
    AuditKind.FISHER_DISCARDED: "the answer for the root {model} cannot be used any more",
    AuditKind.SENT: "{owner} is to unlearn in {model}",
    AuditKind.APPLIED: "{owner} unlearned in {model}",
    AuditKind.VERIFIED: "{model} of {owner} is verified",
    AuditKind.INEFFECTIVE: "{model} of {owner} has not forgotten",
    AuditKind.NOT_REACHED: "{model} of {owner} is not reached",
    AuditKind.HARMFUL: "{model} of {owner} would lose too much, and is as it was",
    AuditKind.FAILED: "{model} of {owner} failed",
    AuditKind.NOTIFIED: "{owner} has got word of {model}",
    AuditKind.NOT_NOTIFIED: "{owner} has not got word of {model}",
    AuditKind.ROLLBACK_PLANNED: "{model} of {owner} is to be put back",
    AuditKind.ROLLBACK_REFUSED: "{owner} did not put {model} back",
    AuditKind.ROLLED_BACK: "{owner} put {model} back",
    AuditKind.UNAPPROVED: "{model} of {owner} waits for an approval",
    AuditKind.FELL_BACK: "{owner} fell back to {model}, and is asked again",
    AuditKind.RESENT: "all owners are asked again",
    AuditKind.DESTROYED: "{owner} destroyed {model}",
    AuditKind.DESTROY_REFUSED: "{owner} did not destroy {model}",
}


def make_events(db: Connection, entries: Sequence[AuditEntry]) -> list[pb.FleetEvent]:
    """Return the events that entries of the audit log record.

    The log holds no reasons, so they are taken from tasks and campaigns that are still in the same
    state.

    Args:
        db: a transaction.
        entries: the entries.
    """
    models: dict[str, set[str]] = {}
    for entry in entries:
        event = entry.event
        if event.request_id and event.kind in _OF_TASK:
            models.setdefault(event.request_id, set()).add(event.model_id)
    tasks = {id: find_tasks(db, id, some) for id, some in models.items()}
    about = {e.event.request_id for e in entries if e.event.kind in _OF_CAMPAIGN}
    campaigns = find_some_campaigns(db, about)
    found = []
    for entry in entries:
        event = entry.event
        state, reason = _campaign_state(event, campaigns.get(event.request_id))
        if event.kind in _OF_TASK:
            state = _OF_TASK[event.kind].value
            task = tasks[event.request_id].get(event.model_id) if event.request_id else None
            reason = task.reason if task is not None and task.state.value == state else ""
        found.append(
            pb.FleetEvent(
                sequence=entry.sequence,
                time_us=event.time_us,
                kind=event.kind,
                request_id=event.request_id,
                model_id=event.model_id,
                owner=event.owner,
                state=state,
                text=clipped(_text(event) + (f": {reason}" if reason else ""), REASON),
                actor=event.actor,
            )
        )
    return found


def presence_events(
    before: Iterable[str], now: Iterable[str], sequence: int
) -> list[pb.FleetEvent]:
    """Return the events of owners that came or went.

    Args:
        before: the owners that were connected.
        now: those that are.
        sequence: number of the last entry of the audit log.
    """
    was, present = set(before), set(now)
    changes = [(owner, ONLINE, "connected") for owner in sorted(present - was)]
    changes += [(owner, OFFLINE, "is not connected any more") for owner in sorted(was - present)]
    return [
        pb.FleetEvent(
            sequence=sequence, time_us=now_us(), kind=kind, owner=owner, text=f"{owner} {text}"
        )
        for owner, kind, text in changes
    ]


def caught_up(sequence: int) -> pb.FleetEvent:
    """Return the event that all before it was from the past.

    Args:
        sequence: number of the last entry of the audit log that was sent or left out.
    """
    return pb.FleetEvent(sequence=sequence, time_us=now_us(), kind=CAUGHT_UP)


def _campaign_state(event: AuditEvent, campaign: Campaign | None) -> tuple[str, str]:
    """Return the state of a campaign after an event, and the reason for it; empty for none."""
    state = _OF_CAMPAIGN.get(event.kind)
    if state is None:
        return "", ""
    if campaign is None:
        return state.value, ""
    if event.kind == AuditKind.RECEIVED and campaign.plan:
        return CampaignState.AWAITING_APPROVAL.value, ""
    halted = state is campaign.state is CampaignState.HALTED
    return state.value, campaign.halt_reason if halted else ""


def _text(event: AuditEvent) -> str:
    text = _TEXTS[AuditKind(event.kind)].format(
        model=event.model_id, owner=event.owner, wave=event.parameters.get("wave", "")
    )
    before, after = (event.parameters.get(f"retain_{when}") for when in ("before", "after"))
    if before is not None and after is not None:
        text += (
            f", retained accuracy {float(str(before)):.1%} before and {float(str(after)):.1%} after"
        )
    return text
