"""Status of requests: target, campaign, and counts of versions by state."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Connection,
    Row,
    String,
    bindparam,
    func,
    select,
    tuple_,
)

from disinherit.server.store.audit_events import AuditKind
from disinherit.server.store.audit_lines import read_line
from disinherit.server.store.campaigns import (
    CAMPAIGN_ROWS,
    Campaign,
    read_campaign,
    unknown_request,
)
from disinherit.server.store.queries import Query
from disinherit.server.store.tables import AUDIT, IN_ORDER, REQUESTS, TASKS, parse
from disinherit.v1.unlearning_pb2 import UnlearningRequest

# Made once: to make such a statement anew takes longer than to execute it.
_IDS: BindParameter[Any] = bindparam("requests", expanding=True)
_ROWS = CAMPAIGN_ROWS.add_columns(REQUESTS.c.request)
_ONE = Query(_ROWS.where(REQUESTS.c.id == bindparam("request")))
_SOME = Query(_ROWS.where(REQUESTS.c.id.in_(_IDS)))
_AGE = (REQUESTS.c.created_us, REQUESTS.c.id)
_LAST = tuple_(bindparam("after_us", type_=BigInteger), bindparam("after_id", type_=String))
_LATER = _ROWS.where(tuple_(*_AGE) > _LAST).order_by(*_AGE).limit(bindparam("count"))
_PAGE = Query(_LATER)
_PAGE_OF_OWNER = Query(
    _LATER.where(
        REQUESTS.c.id.in_(select(TASKS.c.request_id).where(TASKS.c.owner == bindparam("owner")))
    )
)
_COUNTS = Query(
    select(
        TASKS.c.request_id,
        TASKS.c.state,
        func.count().label("number"),
        func.max(TASKS.c.wave).label("wave"),
    )
    .where(TASKS.c.request_id.in_(_IDS))
    .group_by(TASKS.c.request_id, TASKS.c.state)
)
_DECISIONS = Query(
    select(AUDIT.c.entry)
    .where(
        AUDIT.c.request_id.in_(_IDS),
        AUDIT.c.model_id == "",
        AUDIT.c.kind.in_([AuditKind.RECEIVED.value, AuditKind.APPROVED.value]),
    )
    .order_by(IN_ORDER)
)


@dataclass(frozen=True, slots=True)
class RequestStatus:
    """The status of a request.

    Attributes:
        request: the request.
        campaign: its execution.
        tasks: task state -> number of affected versions.
        waves: the number of waves in its roll-out.
        plan: SHA-256 of its current plan while it needs an approval; else `""`.
        received_us: when it was submitted, by the coordinator's clock; 0 if that is not known.
        submitted_by: who did, as in the audit log; `""` if that is not known.
        approved_us: when it was last approved; 0 if it was not.
        approved_by: who did; `""` if it was not.
    """

    request: UnlearningRequest
    campaign: Campaign
    tasks: Mapping[str, int]
    waves: int
    plan: str = ""
    received_us: int = 0
    submitted_by: str = ""
    approved_us: int = 0
    approved_by: str = ""


def find_status(db: Connection, request_id: str) -> RequestStatus:
    """Return the status of a request.

    Raises:
        RequestError: if there is no such request.
    """
    row = _ONE.first(db, {"request": request_id})
    if row is None:
        raise unknown_request(request_id)
    (status,) = _complete(db, [row])
    return status


def find_statuses(db: Connection, requests: Collection[str]) -> dict[str, RequestStatus]:
    """Return request -> status, of those that exist, with a fixed number of queries."""
    if not requests:
        return {}
    found = _complete(db, _SOME.all(db, {"requests": sorted(requests)}))
    return {status.request.id: status for status in found}


def page_statuses(
    db: Connection, after: tuple[int, str] | None, count: int, owner: str = ""
) -> list[RequestStatus]:
    """Return a page of the status of requests, the oldest first, with a fixed number of queries.

    Args:
        db: a transaction.
        after: `(created_us, id)` of the last request of the page before; `None` for the first.
        count: the largest number of requests.
        owner: only requests that affect a model of this owner; `""` for all.
    """
    us, id = after or (-1, "")  # all are younger
    values = {"after_us": us, "after_id": id, "count": count}
    rows = _PAGE_OF_OWNER.all(db, values | {"owner": owner}) if owner else _PAGE.all(db, values)
    return _complete(db, rows) if rows else []


def _complete(db: Connection, rows: Sequence[Row[Any]]) -> list[RequestStatus]:
    ids = [row.request_id for row in rows]
    named = {"requests": ids}
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    waves: Counter[str] = Counter()
    for row in _COUNTS.all(db, named):
        counts[row.request_id][row.state] = row.number
        waves[row.request_id] = max(waves[row.request_id], row.wave)
    received, approved = _find_decisions(db, ids)
    return [
        RequestStatus(
            parse(UnlearningRequest, row.request),
            read_campaign(row),
            counts[id],
            waves[id] + 1,
            "",
            *received.get(id, (0, "")),
            *approved.get(id, (0, "")),
        )
        for id, row in zip(ids, rows, strict=True)
    ]


def _find_decisions(
    db: Connection, ids: Sequence[str]
) -> tuple[dict[str, tuple[int, str]], dict[str, tuple[int, str]]]:
    """Return request -> time and actor: of its submission, and of its last approval."""
    received: dict[str, tuple[int, str]] = {}
    approved: dict[str, tuple[int, str]] = {}
    for line in _DECISIONS.scalars(db, {"requests": ids}):
        event = read_line(line).event
        found = received if event.kind == AuditKind.RECEIVED else approved
        found[event.request_id] = event.time_us, event.actor
    return received, approved
