"""Loss of history by the coordinator, as in a database that was put back from a copy.

What was asked since the copy is known to owners and not to the coordinator, so a request id may be
used for something else.  It goes on only once a person has said that it may.  Every such word
begins an epoch: heads of the log that were shown to owners in earlier ones are not missed any more.
"""

import logging

from sqlalchemy import Connection, insert, select, update

from disinherit.server.store.audit import append
from disinherit.server.store.audit_events import AuditKind
from disinherit.server.store.tables import HISTORY

_LOG = logging.getLogger(__name__)


def find_lost(db: Connection) -> str:
    """Return why history is known to be lost; `""` if it is not."""
    return db.scalar(select(HISTORY.c.lost)) or ""


def find_epoch(db: Connection) -> int:
    """Return how often a person has said that the coordinator may go on."""
    return db.scalar(select(HISTORY.c.epoch)) or 0


def note_lost(db: Connection, why: str) -> None:
    """Note that history was lost, unless that is known.

    Args:
        db: a transaction that writes.
        why: what is missing.
    """
    if find_lost(db):
        return
    _LOG.error(
        "The audit log has lost entries: %s. No owner is asked for anything until a person says "
        "that the coordinator may go on: disinherit confirm history",
        why,
    )
    _put(db, why, find_epoch(db))


def confirm_history(db: Connection, actor: str, epoch: int = 0) -> int:
    """Note that a person says that the coordinator may go on, and return the epoch that begins.

    Args:
        db: a transaction that writes.
        actor: who says so.
        epoch: the latest that is known from elsewhere.
    """
    epoch = max(epoch, find_epoch(db)) + 1
    append(db, AuditKind.HISTORY_CONFIRMED, actor, parameters={"epoch": epoch})
    _put(db, "", epoch)
    return epoch


def _put(db: Connection, lost: str, epoch: int) -> None:
    values = {"lost": lost, "epoch": epoch}
    if not db.execute(update(HISTORY).values(**values)).rowcount:
        db.execute(insert(HISTORY).values(id=1, **values))
