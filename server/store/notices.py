"""Notices to owners in the audit log.

The owners of affected versions are those to whom the data to forget was passed on, in a model.
Each is to be told (GDPR, article 19), whatever becomes of its version.  An owner counts as told
about a version once it has answered a message that names the request and the version: a task to
unlearn, a question for Fisher information, or, where there is nothing for it to do, a notice.
"""

from collections.abc import Iterable

from sqlalchemy import Connection, select

from disinherit.common.audit.chain import AuditEvent
from disinherit.server.states import Task
from disinherit.server.store.audit import append_once, make_event
from disinherit.server.store.audit_events import AuditKind, owner_actor
from disinherit.server.store.tables import AUDIT


def find_told(db: Connection, request_id: str) -> set[str]:
    """Return the versions whose owners have got word of a request."""
    query = select(AUDIT.c.model_id).where(
        AUDIT.c.request_id == request_id, AUDIT.c.kind == AuditKind.NOTIFIED
    )
    return set(db.scalars(query))


def told_events(request_id: str, owner: str, models: Iterable[str]) -> list[AuditEvent]:
    """Return what the log says once: that an owner has got word of a request about some versions.

    Args:
        request_id: the request.
        owner: who answered.
        models: the versions that its message named.
    """
    actor = owner_actor(owner)
    return [
        make_event(AuditKind.NOTIFIED, actor, request_id=request_id, model_id=m, owner=owner)
        for m in models
    ]


def record_untold(db: Connection, request_id: str, tasks: Iterable[Task]) -> None:
    """Log of which affected versions nobody has got word, now that a campaign has ended.

    Args:
        db: a transaction that writes.
        request_id: the request.
        tasks: its tasks.
    """
    told = find_told(db, request_id)
    events = [
        make_event(
            AuditKind.NOT_NOTIFIED,
            request_id=request_id,
            model_id=task.model_id,
            owner=task.owner,
            parameters={"state": task.state.value},
        )
        for task in sorted(tasks, key=lambda task: task.model_id)
        if task.model_id not in told
    ]
    append_once(db, request_id, events)
