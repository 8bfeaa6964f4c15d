"""Campaigns in the database: where each stands, since when and until when."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, or_, select, tuple_, update

from disinherit.common.audit.chain import Json
from disinherit.common.audit.export import read_entry
from disinherit.common.errors import RequestError, StoreError
from disinherit.server.states import (
    CampaignEvent,
    CampaignState,
    TaskState,
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
    graph_words,
)
from disinherit.server.store.graph import find_descendants
from disinherit.server.store.notices import record_untold
from disinherit.server.store.retention import schedule
from disinherit.server.store.tables import AUDIT, CAMPAIGNS, REQUESTS, TASKS, find_request, now_us

_ENDED = (CampaignState.COMPLETE, CampaignState.PARTIAL, CampaignState.ABORTED)


@dataclass(frozen=True, slots=True)
class Campaign:
    """The execution of one request, as it is stored.

    Attributes:
        request_id: the request.
        state: where it stands.
        deadline_us: when owners that stay away are given up, in microseconds since the epoch; 0
            for never.
        created_us: when the request was submitted.
        updated_us: when the state last changed.
        open_waves: how many waves of its roll-out have begun.
        accepted_waves: how many of them a person let pass, whatever came of them.
        halt_reason: why it was halted; `""` if it was not, or was resumed since.
        plan: SHA-256 of the plan that was submitted for approval; `""` without four eyes.
        approved_plan: SHA-256 of the plan that was approved; `""` as long as none was.
    """

    request_id: str
    state: CampaignState
    deadline_us: int
    created_us: int
    updated_us: int
    open_waves: int
    accepted_waves: int
    halt_reason: str
    plan: str = ""
    approved_plan: str = ""


def insert_campaign(
    db: Connection, request_id: str, state: CampaignState, deadline_us: int
) -> None:
    """Add the row of a campaign that nobody drives yet."""
    values = {
        "request_id": request_id,
        "state": state.value,
        "deadline_us": deadline_us,
        "updated_us": now_us(),
        "lease_token": 0,
        "lease_holder": "",
        "lease_until_us": 0,
    }
    db.execute(insert(CAMPAIGNS).values(**values))


def find_campaign(db: Connection, request_id: str) -> Campaign:
    """Return a campaign.

    Raises:
        RequestError: if there is no such request.
        StoreError: if its state is none that this version knows.
    """
    row = db.execute(_query().where(REQUESTS.c.id == request_id)).one_or_none()
    if row is None:
        raise RequestError(f"Expected the id of a submitted request, but got {request_id!r}.")
    return _read(row)


def find_campaigns(
    db: Connection,
    states: Collection[CampaignState] | None = None,
    also: Collection[str] = (),
) -> list[Campaign]:
    """Return campaigns, the oldest first.

    Args:
        db: a transaction.
        states: only those in one of these states; `None` for all.
        also: ids of requests whose campaigns are among them in any state.
    """
    query = _query().order_by(REQUESTS.c.created_us, REQUESTS.c.id)
    if states is not None:
        wanted = CAMPAIGNS.c.state.in_([state.value for state in states])
        query = query.where(or_(wanted, REQUESTS.c.id.in_(also)))
    return [_read(row) for row in db.execute(query)]


def page_campaigns(db: Connection, after: tuple[int, str] | None, count: int) -> list[Campaign]:
    """Return campaigns, the oldest first.

    Args:
        db: a transaction.
        after: `(created_us, request_id)` of the campaign to go on after; `None` for the first ones.
        count: at most so many.
    """
    age = (REQUESTS.c.created_us, REQUESTS.c.id)
    query = _query().order_by(*age).limit(count)
    if after is not None:
        query = query.where(tuple_(*age) > tuple_(*after))
    return [_read(row) for row in db.execute(query)]


def put_event(
    db: Connection,
    request_id: str,
    event: CampaignEvent,
    deadline_us: int | None,
    actor: str = COORDINATOR,
    said: Mapping[str, Json] = MappingProxyType({}),
    check: Callable[[Campaign], None] = lambda _: None,
) -> Campaign:
    """Let something happen to a campaign, and return it as it stands then.

    Args:
        db: a transaction that writes.
        request_id: the request.
        event: what happens.
        deadline_us: a new deadline; `None` leaves it as it is.
        actor: who makes it happen.
        said: what the audit log says of it beside that.
        check: raises if it may not happen to the campaign as it stands.

    Raises:
        RequestError: if there is no such request, or this may not happen to it now.
    """
    campaign = find_campaign(db, request_id)
    check(campaign)
    target = next_state(campaign.state, event)
    if deadline_us is None:
        deadline_us = campaign.deadline_us
    return _put(db, campaign, target, deadline_us, OF_EVENT[event], actor, said)


def reopen(db: Connection, request_id: str) -> None:
    """Open a campaign that has ended for what joined it late, with as much time as it once had."""
    campaign = find_campaign(db, request_id)
    if campaign.state in (CampaignState.COMPLETE, CampaignState.PARTIAL):
        span = campaign.deadline_us - _received_us(db, campaign)
        deadline = now_us() + span if campaign.deadline_us else 0
        _put(
            db,
            campaign,
            next_state(campaign.state, CampaignEvent.REOPEN),
            deadline,
            AuditKind.REOPENED,
        )


def _received_us(db: Connection, campaign: Campaign) -> int:
    """Return when a request came in; its place in the order may be later than that."""
    line = db.scalar(
        select(AUDIT.c.entry)
        .where(AUDIT.c.request_id == campaign.request_id, AUDIT.c.kind == AuditKind.RECEIVED)
        .limit(1)
    )
    return campaign.created_us if line is None else read_entry(line).event.time_us


def settle(db: Connection, request_id: str) -> Campaign:
    """Bring a campaign's state in line with its tasks after a pass, unless a person stopped it."""
    campaign = find_campaign(db, request_id)
    if campaign.state.drivable:
        campaign = _settle(db, campaign)
    if campaign.state in _ENDED:
        schedule(db, request_id)
    return campaign


def _settle(db: Connection, campaign: Campaign) -> Campaign:
    request_id = campaign.request_id
    rows = db.execute(select(TASKS.c.state).where(TASKS.c.request_id == request_id)).scalars()
    states = [TaskState(state) for state in rows]
    if campaign.state is CampaignState.ROLLING_BACK:
        target = state_after_roll_back(states)
    else:
        target = state_after_pass(states, campaign.deadline_us, now_us())
    return _put(db, campaign, target, campaign.deadline_us, OF_OUTCOME[target])


def _put(
    db: Connection,
    campaign: Campaign,
    state: CampaignState,
    deadline_us: int,
    kind: AuditKind,
    actor: str = COORDINATOR,
    said: Mapping[str, Json] = MappingProxyType({}),
) -> Campaign:
    if (state, deadline_us) == (campaign.state, campaign.deadline_us):
        return campaign
    values = {"state": state.value, "deadline_us": deadline_us, "updated_us": now_us()}
    row = CAMPAIGNS.c.request_id == campaign.request_id
    db.execute(update(CAMPAIGNS).where(row).values(**values))
    if state in _ENDED and campaign.state is not CampaignState.AWAITING_APPROVAL:
        record_untold(db, campaign.request_id)
        schedule(db, campaign.request_id)
    said = dict(said)
    if deadline_us != campaign.deadline_us:
        said["deadline_us"] = deadline_us
    if state.ended:
        said["graph"] = _graph(db, campaign.request_id)
    append(db, kind, actor, request_id=campaign.request_id, parameters=said)
    return find_campaign(db, campaign.request_id)


def _graph(db: Connection, request_id: str) -> Mapping[str, Json]:
    """Return what is said of the versions that a campaign is about when it ends."""
    models = db.scalars(select(TASKS.c.model_id).where(TASKS.c.request_id == request_id)).all()
    roots = [root.model_id for root in find_request(db, request_id).roots]
    return graph_words(find_descendants(db, [*roots, *models]), models)


def _query() -> Select[Any]:
    return select(CAMPAIGNS, REQUESTS.c.created_us).join(
        REQUESTS, REQUESTS.c.id == CAMPAIGNS.c.request_id
    )


def _read(row: Row[Any]) -> Campaign:
    try:
        state = CampaignState(row.state)
    except ValueError as error:
        raise StoreError(
            f"Expected a known campaign state in the database, but: {error}."
        ) from None
    return Campaign(
        row.request_id,
        state,
        row.deadline_us,
        row.created_us,
        row.updated_us,
        row.open_waves,
        row.accepted_waves,
        row.halt_reason,
        row.submitted_plan,
        row.approved_plan,
    )
