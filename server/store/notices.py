"""Who has got word that a version it holds is affected, and who has not.

The owners of affected versions are those to whom the data to forget was passed on, in a model.
Each is to be told (GDPR, article 19), whatever becomes of its version.  An owner counts as told
about a version once it has answered a message that names the request and the version: a task to
unlearn, a question for Fisher information, or, where there is nothing for it to do, a notice.
"""

from collections.abc import Iterable

from sqlalchemy import Connection, select

from disinherit.server.store.audit import append_once, make_event
from disinherit.server.store.audit_events import AuditKind, owner_actor
from disinherit.server.store.tables import AUDIT, TASKS


def find_told(db: Connection, request_id: str) -> set[str]:
    """Return the versions whose owners have got word of a request."""
    query = select(AUDIT.c.model_id).where(
        AUDIT.c.request_id == request_id, AUDIT.c.kind == AuditKind.NOTIFIED
    )
    return set(db.scalars(query))


def record_told(db: Connection, request_id: str, owner: str, models: Iterable[str]) -> None:
    """Log that an owner has got word of a request about some of its versions, each once.

    Args:
        db: a transaction that writes.
        request_id: the request.
        owner: who answered.
        models: the versions that its message named.
    """
    events = [
        make_event(
            AuditKind.NOTIFIED, owner_actor(owner), request_id=request_id, model_id=m, owner=owner
        )
        for m in models
    ]
    append_once(db, request_id, events)


def record_untold(db: Connection, request_id: str) -> None:
    """Log of which affected versions nobody has got word, now that a campaign has ended.

    Args:
        db: a transaction that writes.
        request_id: the request.
    """
    told = find_told(db, request_id)
    tasks = select(TASKS.c.model_id, TASKS.c.owner, TASKS.c.state)
    rows = db.execute(tasks.where(TASKS.c.request_id == request_id).order_by(TASKS.c.model_id))
    events = [
        make_event(
            AuditKind.NOT_NOTIFIED,
            request_id=request_id,
            model_id=row.model_id,
            owner=row.owner,
            parameters={"state": row.state},
        )
        for row in rows
        if row.model_id not in told
    ]
    append_once(db, request_id, events)
