"""Loss of the coordinator's history, as after a restored backup.

Owners then know requests that the coordinator does not, so a request id may be used again for
something else.  The coordinator stops until a person confirms that it may continue.  Each
confirmation begins an epoch; log heads that owners saw in earlier epochs are no longer required.
"""

import logging

from sqlalchemy import Connection, insert, select, update

from disinherit.server.store.audit import append
from disinherit.server.store.audit_events import AuditKind
from disinherit.server.store.queries import Query
from disinherit.server.store.tables import HISTORY

_LOG = logging.getLogger(__name__)
_LOST = Query(select(HISTORY.c.lost))
_EPOCH = Query(select(HISTORY.c.epoch))


def find_lost(db: Connection) -> str:
    """Return what history is missing; `""` if none."""
    return _LOST.scalar(db, {}) or ""


def find_epoch(db: Connection) -> int:
    """Return the current epoch: the number of confirmations so far."""
    return _EPOCH.scalar(db, {}) or 0


def note_lost(db: Connection, why: str) -> None:
    """Record a loss of history, unless one is recorded already.

    Args:
        db: a transaction that writes.
        why: what is missing.
    """
    if find_lost(db):
        return
    _LOG.error(
        "The audit log has lost entries: %s. No owner is asked for anything until a person "
        "accepts the loss: disinherit confirm history",
        why,
    )
    _put(db, why, find_epoch(db))


def confirm_history(db: Connection, actor: str, epoch: int = 0) -> int:
    """Record that a person lets the coordinator continue, and return the new epoch.

    Args:
        db: a transaction that writes.
        actor: the person.
        epoch: the latest epoch known from elsewhere.
    """
    epoch = max(epoch, find_epoch(db)) + 1
    append(db, AuditKind.HISTORY_CONFIRMED, actor, parameters={"epoch": epoch})
    _put(db, "", epoch)
    return epoch


def _put(db: Connection, lost: str, epoch: int) -> None:
    values = {"lost": lost, "epoch": epoch}
    if not db.execute(update(HISTORY).values(**values)).rowcount:
        db.execute(insert(HISTORY).values(id=1, **values))
