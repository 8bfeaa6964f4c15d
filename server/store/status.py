"""Status of requests: target, campaign, and counts of versions by state."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from disinherit.server.store.campaigns import Campaign, find_campaign, page_campaigns
from disinherit.server.store.tables import REQUESTS, TASKS, parse
from disinherit.v1.unlearning_pb2 import UnlearningRequest


@dataclass(frozen=True, slots=True)
class RequestStatus:
    """How a request stands.

    Attributes:
        request: the request.
        campaign: its execution.
        tasks: task state -> number of affected versions.
        waves: how many waves its roll-out has.
        plan: SHA-256 of its plan as it is now, while somebody has to approve it; else `""`.
    """

    request: UnlearningRequest
    campaign: Campaign
    tasks: Mapping[str, int]
    waves: int
    plan: str = ""


def find_status(db: Connection, request_id: str) -> RequestStatus:
    """Return how a request stands.

    Raises:
        RequestError: if there is none with this id.
    """
    (status,) = _complete(db, [find_campaign(db, request_id)])
    return status


def page_statuses(db: Connection, after: tuple[int, str] | None, count: int) -> list[RequestStatus]:
    """Return how requests stand, the oldest first, with as many queries for all as for one.

    Args:
        db: a transaction.
        after: `(created_us, id)` of the request to go on after; `None` for the first ones.
        count: at most so many.
    """
    return _complete(db, page_campaigns(db, after, count))


def _complete(db: Connection, campaigns: Sequence[Campaign]) -> list[RequestStatus]:
    ids = [campaign.request_id for campaign in campaigns]
    query = select(REQUESTS.c.id, REQUESTS.c.request).where(REQUESTS.c.id.in_(ids))
    requests = {row.id: row.request for row in db.execute(query)}
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    waves: Counter[str] = Counter()
    grouped = (
        select(TASKS.c.request_id, TASKS.c.state, func.count(), func.max(TASKS.c.wave))
        .where(TASKS.c.request_id.in_(ids))
        .group_by(TASKS.c.request_id, TASKS.c.state)
    )
    for id, state, number, wave in db.execute(grouped):
        counts[id][state] = number
        waves[id] = max(waves[id], wave)
    return [
        RequestStatus(parse(UnlearningRequest, requests[id]), campaign, counts[id], waves[id] + 1)
        for id, campaign in zip(ids, campaigns, strict=True)
    ]
