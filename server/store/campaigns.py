"""Campaigns in the database: their rows, states and deadlines, and the look-ups of them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Row,
    String,
    bindparam,
    insert,
    or_,
    select,
    tuple_,
)

from disinherit.common.errors import RequestError, StoreError
from disinherit.server.now import now_us
from disinherit.server.states import CampaignState, Task
from disinherit.server.store.audit_events import GROWTH
from disinherit.server.store.graph import find_below, find_line
from disinherit.server.store.leases import Holding, read_holding
from disinherit.server.store.queries import Query, WriteQuery
from disinherit.server.store.request_rows import find_tasks, read_task, task_rows
from disinherit.server.store.tables import AUDIT, CAMPAIGNS, HISTORY, REQUESTS, TASKS

ENDED_BY_TASKS = (CampaignState.COMPLETE, CampaignState.PARTIAL)
"""States of campaigns that ended with their tasks, and that late versions reopen."""

_AT_ONCE = 500
"""Campaigns that are looked up by one statement."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """The stored execution of one request.

    Attributes:
        request_id: the request.
        state: its state.
        deadline_us: when unreachable owners are given up, in microseconds since the epoch; 0 for
            never.
        created_us: when the request was submitted.
        updated_us: when the state last changed.
        open_waves: the number of begun waves of its roll-out.
        accepted_waves: the number of waves that a person accepted, whatever their results.
        halt_reason: why it is halted; `""` otherwise.
        plan: SHA-256 of the plan that was submitted for approval; `""` if none is needed.
        approved_plan: SHA-256 of the approved plan; `""` before an approval.
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


@dataclass(frozen=True, slots=True)
class Driven:
    """A campaign with its lease and tasks, from one snapshot, for its driver.

    Attributes:
        campaign: its state.
        lost: what history is missing; `""` if none.
        holding: its lease.
        tasks: model -> its task, of the models asked for at least; ancestors first if all were.
        changes: how often its tasks were changed.
    """

    campaign: Campaign
    lost: str
    holding: Holding
    tasks: Mapping[str, Task]
    changes: int


@dataclass(frozen=True, slots=True)
class Known:
    """All tasks of a campaign, as somebody knows them.

    Attributes:
        tasks: model -> its task, ancestors first.
        changes: how often the campaign's tasks had been changed then.
    """

    tasks: Mapping[str, Task]
    changes: int


# Made once: to make such a statement anew takes longer than to execute it.
CAMPAIGN_ROWS = select(CAMPAIGNS, REQUESTS.c.created_us).join(
    REQUESTS, REQUESTS.c.id == CAMPAIGNS.c.request_id
)
"""Query of campaigns, for `read_campaign`."""

_ONE = Query(CAMPAIGN_ROWS.where(REQUESTS.c.id == bindparam("request")))
_SOME = CAMPAIGN_ROWS.where(REQUESTS.c.id.in_(bindparam("requests", expanding=True)))
_INSERT = WriteQuery(insert(CAMPAIGNS))
_AGE = (REQUESTS.c.created_us, REQUESTS.c.id)
_MINE = tuple_(bindparam("created_us", type_=BigInteger), bindparam("request", type_=String))
_OLDER_ROWS = CAMPAIGN_ROWS.where(
    CAMPAIGNS.c.state == bindparam("state"), tuple_(*_AGE) < _MINE
).order_by(*_AGE)
_OLDER = Query(_OLDER_ROWS)
_OLDER_OF_MODELS = Query(
    _OLDER_ROWS.where(
        CAMPAIGNS.c.request_id.in_(
            select(TASKS.c.request_id).where(
                TASKS.c.model_id.in_(bindparam("models", expanding=True))
            )
        )
    )
)
_DRIVEN = Query(
    select(
        CAMPAIGNS,
        REQUESTS.c.created_us,
        select(HISTORY.c.lost).limit(1).scalar_subquery().label("lost"),
    )
    .join(REQUESTS, REQUESTS.c.id == CAMPAIGNS.c.request_id)
    .where(CAMPAIGNS.c.request_id == bindparam("request"))
)


def insert_campaign(
    db: Connection, request_id: str, state: CampaignState, deadline_us: int
) -> None:
    """Add the row of a campaign without a lease."""
    values = {
        "request_id": request_id,
        "state": state.value,
        "deadline_us": deadline_us,
        "updated_us": now_us(),
        "lease_token": 0,
        "lease_holder": "",
        "lease_until_us": 0,
    }
    _INSERT.run(db, values)


def find_campaign(db: Connection, request_id: str) -> Campaign:
    """Return a campaign.

    Raises:
        RequestError: if there is no such request.
        StoreError: if this version does not know its state.
    """
    row = _ONE.first(db, {"request": request_id})
    if row is None:
        raise unknown_request(request_id)
    return read_campaign(row)


def find_some_campaigns(db: Connection, requests: Collection[str]) -> dict[str, Campaign]:
    """Return request -> campaign, of some requests."""
    listed = sorted(requests)
    found: dict[str, Campaign] = {}
    for start in range(0, len(listed), _AT_ONCE):
        rows = db.execute(_SOME, {"requests": listed[start : start + _AT_ONCE]})
        found |= {campaign.request_id: campaign for campaign in map(read_campaign, rows)}
    return found


def find_driven(
    db: Connection,
    request_id: str,
    models: Collection[str] | None = (),
    known: Known | None = None,
) -> Driven:
    """Return a campaign with its lease and some of its tasks.

    Args:
        db: a transaction.
        request_id: the request.
        models: models whose tasks are wanted; `None` for all.
        known: the tasks as the caller knows them; they are read only if some changed since.

    Raises:
        RequestError: if there is no such request.
        StoreError: if this version does not know its state or the state of a task.
    """
    row = _DRIVEN.first(db, {"request": request_id})
    if row is None:
        raise unknown_request(request_id)
    tasks: Mapping[str, Task] = {}
    if known is not None and known.changes == row.task_changes:
        tasks = known.tasks
    elif models is None:
        tasks = {task.model_id: task for task in map(read_task, task_rows(db, request_id))}
    elif models:
        tasks = find_tasks(db, request_id, models)
    return Driven(read_campaign(row), row.lost or "", read_holding(row), tasks, row.task_changes)


def find_campaigns(
    db: Connection,
    states: Collection[CampaignState] | None = None,
    also: Collection[str] = (),
) -> list[Campaign]:
    """Return campaigns, the oldest first.

    Args:
        db: a transaction.
        states: only campaigns in one of these states; `None` for all.
        also: ids of requests, to return their campaigns in any state.
    """
    query = CAMPAIGN_ROWS.order_by(REQUESTS.c.created_us, REQUESTS.c.id)
    if states is not None:
        wanted = CAMPAIGNS.c.state.in_([state.value for state in states])
        query = query.where(or_(wanted, REQUESTS.c.id.in_(also)))
    return [read_campaign(row) for row in db.execute(query)]


def find_older(
    db: Connection,
    campaign: Campaign,
    state: CampaignState,
    models: Collection[str] | None = None,
) -> list[Campaign]:
    """Return the campaigns in a state that are older than another one, the oldest first.

    Args:
        db: a transaction.
        campaign: the other one.
        state: the state.
        models: only campaigns with a task for one of these; `None` for all.
    """
    values = {
        "state": state.value,
        "created_us": campaign.created_us,
        "request": campaign.request_id,
    }
    if models is None:
        return [read_campaign(row) for row in _OLDER.all(db, values)]
    rows = _OLDER_OF_MODELS.all(db, values | {"models": list(models)})
    return [read_campaign(row) for row in rows]


def find_joinable(
    db: Connection, since: int, states: Collection[CampaignState] = ENDED_BY_TASKS
) -> list[str]:
    """Return the requests with campaigns that new versions may have joined.

    A version joins a campaign that has a task for one of its ancestors.  So the result holds only
    campaigns with a task for a new or changed version, or for one of its ancestors.

    Args:
        db: a transaction.
        since: number of the last audit entry about growth that was handled; -1 for none.
        states: only campaigns in one of these states.
    """
    grown = select(AUDIT.c.model_id).where(AUDIT.c.sequence > since, AUDIT.c.kind.in_(GROWTH))
    line = find_line(grown)
    tasked = select(TASKS.c.request_id).where(TASKS.c.model_id.in_(line))
    query = select(REQUESTS.c.id).join(CAMPAIGNS, CAMPAIGNS.c.request_id == REQUESTS.c.id)
    some = [state.value for state in states]
    query = query.where(CAMPAIGNS.c.state.in_(some), REQUESTS.c.id.in_(tasked))
    return list(db.scalars(query.order_by(REQUESTS.c.created_us, REQUESTS.c.id)))


def find_concerned(
    db: Connection, owners: Collection[str], states: Collection[CampaignState]
) -> list[str]:
    """Return the requests with campaigns in some states that have a task for some owners."""
    found: set[str] = set()
    listed = list(owners)
    for start in range(0, len(listed), _AT_ONCE):
        some = TASKS.c.owner.in_(listed[start : start + _AT_ONCE])
        query = select(TASKS.c.request_id).distinct().where(some)
        running = CAMPAIGNS.c.state.in_([state.value for state in states])
        query = query.join(CAMPAIGNS, CAMPAIGNS.c.request_id == TASKS.c.request_id).where(running)
        found.update(db.scalars(query))
    return sorted(found)


def find_near(
    db: Connection, requests: Collection[str], states: Collection[CampaignState]
) -> list[str]:
    """Return the requests with campaigns in some states that some campaigns may have held up.

    These are the campaigns themselves, and those with a task for a model of theirs, or for what was
    derived from one, such as a successor.

    Args:
        db: a transaction.
        requests: the some campaigns' requests.
        states: the states.
    """
    found: set[str] = set()
    listed = list(requests)
    for start in range(0, len(listed), _AT_ONCE):
        some = listed[start : start + _AT_ONCE]
        below = find_below(select(TASKS.c.model_id).where(TASKS.c.request_id.in_(some)))
        tasked = select(TASKS.c.request_id).where(TASKS.c.model_id.in_(below))
        query = select(CAMPAIGNS.c.request_id).where(
            or_(CAMPAIGNS.c.request_id.in_(some), CAMPAIGNS.c.request_id.in_(tasked)),
            CAMPAIGNS.c.state.in_([state.value for state in states]),
        )
        found.update(db.scalars(query))
    return sorted(found)


def read_campaign(row: Row[Any]) -> Campaign:
    """Return the campaign in a row of `CAMPAIGN_ROWS`.

    Raises:
        StoreError: if this version does not know its state.
    """
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


def unknown_request(request_id: str) -> RequestError:
    """Return the error for a request that there is not."""
    return RequestError(f"Expected the id of a submitted request, but got {request_id!r}.")
