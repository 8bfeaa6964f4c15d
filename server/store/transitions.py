"""Transitions of campaigns in the database, each with its entry in the audit log."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from sqlalchemy import Connection, bindparam, select, update

from disinherit.common.audit.canonical import Json
from disinherit.server.now import now_us
from disinherit.server.states import (
    CampaignEvent,
    CampaignState,
    Task,
    next_state,
    state_after_pass,
    state_after_roll_back,
)
from disinherit.server.store.audit import append
from disinherit.server.store.audit_events import (
    COORDINATOR,
    OF_EVENT,
    OF_OUTCOME,
    AuditKind,
    graph_details,
)
from disinherit.server.store.audit_lines import read_line
from disinherit.server.store.campaigns import Campaign, Driven, find_campaign
from disinherit.server.store.graph import find_lineage
from disinherit.server.store.notifications import record_not_notified
from disinherit.server.store.queries import WriteQuery
from disinherit.server.store.request_rows import find_request, read_task, task_rows
from disinherit.server.store.retention import schedule
from disinherit.server.store.tables import AUDIT, CAMPAIGNS
from disinherit.v1.unlearning_pb2 import UnlearningRequest

_PUT = WriteQuery(update(CAMPAIGNS).where(CAMPAIGNS.c.request_id == bindparam("of_request")))
_ENDED = (CampaignState.COMPLETE, CampaignState.PARTIAL, CampaignState.ABORTED)


def put_event(
    db: Connection,
    request_id: str,
    event: CampaignEvent,
    deadline_us: int | None,
    actor: str = COORDINATOR,
    details: Mapping[str, Json] = MappingProxyType({}),
    check: Callable[[Campaign], None] = lambda _: None,
) -> Campaign:
    """Apply an event to a campaign, and return the campaign after it.

    Args:
        db: a transaction that writes.
        request_id: the request.
        event: the event.
        deadline_us: a new deadline; `None` to keep the present one.
        actor: the cause of the event.
        details: further parameters of the audit entry.
        check: raises if the event must not be applied to the campaign.

    Raises:
        RequestError: if there is no such request, or its state does not allow the event.
    """
    campaign = find_campaign(db, request_id)
    check(campaign)
    target = next_state(campaign.state, event)
    if deadline_us is None:
        deadline_us = campaign.deadline_us
    return _put(db, campaign, target, deadline_us, OF_EVENT[event], actor, details)


def reopen(db: Connection, request_id: str) -> None:
    """Reopen an ended campaign for late descendants, with a new deadline of the same length."""
    campaign = find_campaign(db, request_id)
    if campaign.state in (CampaignState.COMPLETE, CampaignState.PARTIAL):
        span = campaign.deadline_us - _received_us(db, campaign)
        deadline = now_us() + span if campaign.deadline_us else 0
        target = next_state(campaign.state, CampaignEvent.REOPEN)
        _put(db, campaign, target, deadline, AuditKind.REOPENED)


def _received_us(db: Connection, campaign: Campaign) -> int:
    """Return when a request was submitted; `created_us` may be later to keep the order."""
    line = db.scalar(
        select(AUDIT.c.entry)
        .where(AUDIT.c.request_id == campaign.request_id, AUDIT.c.kind == AuditKind.RECEIVED)
        .limit(1)
    )
    return campaign.created_us if line is None else read_line(line).event.time_us


def settle(db: Connection, driven: Driven, request: UnlearningRequest) -> Campaign:
    """Derive a campaign's state from its tasks after a pass, unless a person stopped it.

    Args:
        db: a transaction that writes.
        driven: the campaign with all of its tasks, as this transaction read them.
        request: its request.
    """
    campaign = driven.campaign
    states = [task.state for task in driven.tasks.values()]
    if campaign.state.drivable:
        if campaign.state is CampaignState.ROLLING_BACK:
            target = state_after_roll_back(states)
        else:
            target = state_after_pass(states, campaign.deadline_us, now_us())
        known = request, driven.tasks
        deadline = campaign.deadline_us
        campaign = _put(db, campaign, target, deadline, OF_OUTCOME[target], known=known)
    if campaign.state in _ENDED:
        schedule(db, campaign.request_id, request.retention_seconds)
    return campaign


def _put(
    db: Connection,
    campaign: Campaign,
    state: CampaignState,
    deadline_us: int,
    kind: AuditKind,
    actor: str = COORDINATOR,
    details: Mapping[str, Json] = MappingProxyType({}),
    known: tuple[UnlearningRequest, Mapping[str, Task]] | None = None,
) -> Campaign:
    """Change a campaign's row and log it; `known` has its request and tasks, if already read."""
    if (state, deadline_us) == (campaign.state, campaign.deadline_us):
        return campaign
    id = campaign.request_id
    updated = now_us()
    values = {"state": state.value, "deadline_us": deadline_us, "updated_us": updated}
    _PUT.run(db, values | {"of_request": id})
    parameters = dict(details)
    if deadline_us != campaign.deadline_us:
        parameters["deadline_us"] = deadline_us
    if state.ended:
        if known is None:
            rows = task_rows(db, id)
            known = find_request(db, id), {row.model_id: read_task(row) for row in rows}
        request, tasks = known
        if state in _ENDED and campaign.state is not CampaignState.AWAITING_APPROVAL:
            record_not_notified(db, id, tasks.values())
            schedule(db, id, request.retention_seconds)
        parameters["graph"] = graph_details(find_lineage(db, id), list(tasks))
    append(db, kind, actor, request_id=id, parameters=parameters)
    return replace(campaign, state=state, deadline_us=deadline_us, updated_us=updated)
