"""Messages to webhooks: when a campaign needs somebody, or is over."""

import hashlib
import json
import time
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, select

from disinherit.common.audit.chain import AuditEntry
from disinherit.common.audit.export import read_entry
from disinherit.server.states import CampaignState
from disinherit.server.store.audit_events import AuditKind
from disinherit.server.store.campaigns import Campaign, find_some_campaigns
from disinherit.server.store.deliveries import Message, Occasion
from disinherit.server.store.request_rows import find_request
from disinherit.server.store.tables import AUDIT, CAMPAIGNS

AWAITING, HALTED, DONE, DEADLINE = "awaiting_approval", "halted", "done", "deadline_near"
EVENTS = (AWAITING, HALTED, DONE, DEADLINE)

_OF_KIND = {
    AuditKind.RECEIVED.value: AWAITING,
    AuditKind.HALT_DECIDED.value: HALTED,
    AuditKind.COMPLETED.value: DONE,
    AuditKind.PARTIAL.value: DONE,
    AuditKind.ABORTED.value: DONE,
    AuditKind.ROLLBACK_COMPLETED.value: DONE,
}
_OPEN = (
    CampaignState.AWAITING_APPROVAL,
    CampaignState.RUNNING,
    CampaignState.PAUSED,
    CampaignState.HALTED,
)


def find_news(db: Connection, after: int, until: int) -> dict[Occasion, Campaign]:
    """Return the occasions in a part of the audit log, whose campaigns are still in that state.

    Args:
        db: a transaction.
        after: number of the entry before the part.
        until: number of its last entry.
    """
    query = select(AUDIT.c.entry).where(
        AUDIT.c.sequence > after, AUDIT.c.sequence <= until, AUDIT.c.kind.in_(list(_OF_KIND))
    )
    entries = [read_entry(line) for line in db.scalars(query.order_by(AUDIT.c.sequence))]
    latest: dict[str, AuditEntry] = {entry.event.request_id: entry for entry in entries}
    campaigns = find_some_campaigns(db, latest)
    found = {}
    for request_id, entry in latest.items():
        event = _OF_KIND[entry.event.kind]
        campaign = campaigns[request_id]
        if _is_in(event, campaign.state):
            found[Occasion(event, request_id, entry.sequence)] = campaign
    return found


def find_deadlines(db: Connection, near_us: int) -> dict[Occasion, Campaign]:
    """Return the occasions of open campaigns whose deadlines are before a time.

    Args:
        db: a transaction.
        near_us: the time, in microseconds since the epoch.
    """
    query = select(CAMPAIGNS.c.request_id).where(
        CAMPAIGNS.c.deadline_us > 0,
        CAMPAIGNS.c.deadline_us <= near_us,
        CAMPAIGNS.c.state.in_([state.value for state in _OPEN]),
    )
    campaigns = find_some_campaigns(db, list(db.scalars(query)))
    return {Occasion(DEADLINE, one.request_id, one.deadline_us): one for one in campaigns.values()}


def make_messages(
    db: Connection,
    hook: str,
    occasions: dict[Occasion, Campaign],
    wanted: Collection[str],
    now_us: int,
    *,
    details: bool,
) -> Sequence[Message]:
    """Return the messages for occasions.

    Args:
        db: a transaction.
        hook: the webhook.
        occasions: the occasions, with their campaigns.
        wanted: the events that the webhook is told of.
        now_us: the time.
        details: whether to say reasons, and names of versions.
    """
    return [
        Message(occasion, _body(db, hook, occasion, campaign, now_us, details=details))
        for occasion, campaign in occasions.items()
        if occasion.event in wanted
    ]


def delivery_id(hook: str, occasion: Occasion) -> str:
    """Return the id of a message: the same at each attempt, and of no other one."""
    text = json.dumps([hook, occasion.event, occasion.request_id, occasion.number])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _body(
    db: Connection,
    hook: str,
    occasion: Occasion,
    campaign: Campaign,
    now_us: int,
    *,
    details: bool,
) -> bytes:
    found: dict[str, Any] = {
        "id": delivery_id(hook, occasion),
        "event": occasion.event,
        "request": occasion.request_id,
        "state": campaign.state.value,
        "time": _time(now_us),
        "deadline": _time(campaign.deadline_us) if campaign.deadline_us else None,
    }
    if details:
        request = find_request(db, occasion.request_id)
        found["reason"] = request.reason
        found["halt_reason"] = campaign.halt_reason
        found["roots"] = [root.model_id for root in request.roots]
    return json.dumps(found, ensure_ascii=False).encode()


def _is_in(event: str, state: CampaignState) -> bool:
    if event == DONE:
        return state.ended and state is not CampaignState.HALTED
    return state.value == event


def _time(time_us: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_us / 1e6))
