"""Messages to webhooks in the database, so that each is made once whatever is restarted."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, insert, select, update

from disinherit.server.store.tables import DELIVERIES, WEBHOOKS


@dataclass(frozen=True, slots=True)
class Occasion:
    """Why a message is sent; there is one message for each.

    Attributes:
        event: `awaiting_approval`, `halted`, `done` or `deadline_near`.
        request_id: the request.
        number: number of the entry of the audit log; for `deadline_near`, the deadline.
    """

    event: str
    request_id: str
    number: int


@dataclass(frozen=True, slots=True)
class Message:
    """A message to a webhook.

    Attributes:
        occasion: why it is sent.
        body: what is sent; the same at each attempt.
        attempts: how often it was tried, the present attempt included.
    """

    occasion: Occasion
    body: bytes
    attempts: int = 0


def find_cursor(db: Connection, hook: str) -> int | None:
    """Return the last entry of the audit log that was looked at for a webhook, if it is known."""
    return db.scalar(select(WEBHOOKS.c.sequence).where(WEBHOOKS.c.hook == hook))


def put_cursor(db: Connection, hook: str, sequence: int) -> None:
    """Store the last entry of the audit log that was looked at for a webhook."""
    row = update(WEBHOOKS).where(WEBHOOKS.c.hook == hook)
    if not db.execute(row.values(sequence=sequence)).rowcount:
        db.execute(insert(WEBHOOKS).values(hook=hook, sequence=sequence))


def find_known(db: Connection, hook: str, requests: Collection[str]) -> set[Occasion]:
    """Return the occasions about some requests for which a webhook has a message."""
    columns = (DELIVERIES.c.event, DELIVERIES.c.request_id, DELIVERIES.c.occasion)
    mine = DELIVERIES.c.hook == hook, DELIVERIES.c.request_id.in_(requests)
    return {Occasion(*row) for row in db.execute(select(*columns).where(*mine))}


def put_messages(db: Connection, hook: str, messages: Sequence[Message], now_us: int) -> None:
    """Store messages that are due now, except those for known occasions.

    Args:
        db: a transaction that writes.
        hook: the webhook.
        messages: the messages.
        now_us: the time.
    """
    known = find_known(db, hook, {message.occasion.request_id for message in messages})
    for message in messages:
        if message.occasion not in known:
            values = {"body": message.body, "attempts": 0, "due_us": now_us, "delivered_us": 0}
            db.execute(insert(DELIVERIES).values(**_key(hook, message.occasion), **values))


def is_due(db: Connection, hook: str, now_us: int) -> bool:
    """Return whether a webhook has a message that is to be tried."""
    return db.execute(_due(hook, now_us)).first() is not None


def claim(db: Connection, hook: str, now_us: int, until_us: int) -> Message | None:
    """Take the message of a webhook that is due first, and return it.

    Args:
        db: a transaction that writes, so that no other coordinator takes it as well.
        hook: the webhook.
        now_us: the time.
        until_us: when it is due again, should this process not say how the attempt ended.
    """
    row = db.execute(_due(hook, now_us)).first()
    if row is None:
        return None
    found = Message(Occasion(row.event, row.request_id, row.occasion), row.body, row.attempts + 1)
    _put(db, hook, found, due_us=until_us, attempts=found.attempts)
    return found


def put_delivered(db: Connection, hook: str, message: Message, now_us: int) -> None:
    """Store that a message was delivered."""
    _put(db, hook, message, due_us=0, delivered_us=now_us)


def put_failed(db: Connection, hook: str, message: Message, due_us: int) -> None:
    """Store when a message that was not delivered is tried again; 0 for never."""
    _put(db, hook, message, due_us=due_us)


def _due(hook: str, now_us: int) -> Select[Any]:
    """Return a query for the message of a webhook that is due first."""
    due = DELIVERIES.c.hook == hook, DELIVERIES.c.due_us > 0, DELIVERIES.c.due_us <= now_us
    return select(DELIVERIES).where(*due).order_by(DELIVERIES.c.due_us).limit(1)


def _put(db: Connection, hook: str, message: Message, **values: int) -> None:
    key = _key(hook, message.occasion)
    which = [DELIVERIES.c[name] == value for name, value in key.items()]
    db.execute(update(DELIVERIES).where(*which).values(**values))


def _key(hook: str, occasion: Occasion) -> dict[str, str | int]:
    return {
        "hook": hook,
        "event": occasion.event,
        "request_id": occasion.request_id,
        "occasion": occasion.number,
    }
