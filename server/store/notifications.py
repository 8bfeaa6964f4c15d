"""Notifications of owners, in the audit log.

The owners of affected versions received the data to forget, inside a model.  So each is notified
(GDPR, article 19), even if its version stays as it is.  An owner counts as notified about a version
once it has answered a message that names the request and the version: a task to unlearn, a query
for Fisher information, or a notice if it has nothing to do.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, select

from disinherit.common.audit.chain import AuditEntry, AuditEvent
from disinherit.server.states import Task, TaskState
from disinherit.server.store.audit import append_once, make_event
from disinherit.server.store.audit_events import AuditKind, owner_actor
from disinherit.server.store.audit_lines import read_line
from disinherit.server.store.queries import Query
from disinherit.server.store.tables import AUDIT, IN_ORDER, TASKS

_AT_ONCE = 500

# Made once: to make such a statement anew takes longer than to execute it.
_MODELS: BindParameter[Any] = bindparam("models", expanding=True)
_TOLD = Query(
    select(TASKS.c.model_id, TASKS.c.told_us, TASKS.c.state).where(
        TASKS.c.request_id == bindparam("request"), TASKS.c.model_id.in_(_MODELS)
    )
)
_ACKNOWLEDGED = Query(
    select(AUDIT.c.entry)
    .where(
        AUDIT.c.request_id == bindparam("request"),
        AUDIT.c.model_id.in_(_MODELS),
        AUDIT.c.kind.in_([AuditKind.NOTIFIED.value, AuditKind.VERIFIED.value]),
    )
    .order_by(IN_ORDER)
)


def find_notified(db: Connection, request_id: str) -> set[str]:
    """Return the versions about which owners were notified of a request."""
    query = select(AUDIT.c.model_id).where(
        AUDIT.c.request_id == request_id, AUDIT.c.kind == AuditKind.NOTIFIED
    )
    return set(db.scalars(query))


def notified_events(request_id: str, owner: str, models: Iterable[str]) -> list[AuditEvent]:
    """Return events for `append_once`: an owner was notified about some versions.

    Args:
        request_id: the request.
        owner: the owner that answered.
        models: the versions that the message to it named.
    """
    actor = owner_actor(owner)
    return [
        make_event(AuditKind.NOTIFIED, actor, request_id=request_id, model_id=m, owner=owner)
        for m in models
    ]


@dataclass(frozen=True, slots=True)
class ModelTimes:
    """When what happened to an affected version, in microseconds since the epoch; 0 for not.

    Attributes:
        told_us: when its owner was sent the message that it answered first.
        acknowledged_us: when its owner had first answered a message about it.
        done_us: when it was verified, if it still is.
    """

    told_us: int = 0
    acknowledged_us: int = 0
    done_us: int = 0


def find_times(db: Connection, request_id: str, models: Collection[str]) -> dict[str, ModelTimes]:
    """Return model -> times, of some affected versions."""
    found: dict[str, ModelTimes] = {}
    listed = sorted(models)
    for start in range(0, len(listed), _AT_ONCE):
        some = listed[start : start + _AT_ONCE]
        named = {"request": request_id, "models": some}
        rows = _TOLD.all(db, named)
        found |= times_of(rows, map(read_line, _ACKNOWLEDGED.scalars(db, named)))
    return found


def times_of(rows: Iterable[Any], entries: Iterable[AuditEntry]) -> dict[str, ModelTimes]:
    """Return model -> times, of what was already read.

    Args:
        rows: the tasks of the models, with `model_id`, `told_us` and `state`.
        entries: those of the log about these models and the request, in order, of any kinds.
    """
    acknowledged: dict[str, int] = {}
    verified: dict[str, int] = {}
    for event in (entry.event for entry in entries):
        if event.kind == AuditKind.NOTIFIED:
            acknowledged.setdefault(event.model_id, event.time_us)
        elif event.kind == AuditKind.VERIFIED:
            verified[event.model_id] = event.time_us
    found: dict[str, ModelTimes] = {}
    for row in rows:
        answered = acknowledged.get(row.model_id, 0)
        # Of a root's query and of a notice, only the time of the answer is known.
        told = min(row.told_us or answered, answered)
        done = verified.get(row.model_id, 0) if row.state == TaskState.VERIFIED else 0
        found[row.model_id] = ModelTimes(told, answered, done)
    return found


def record_not_notified(db: Connection, request_id: str, tasks: Iterable[Task]) -> None:
    """Log the affected versions whose owners were not notified, at the end of a campaign.

    Args:
        db: a transaction that writes.
        request_id: the request.
        tasks: its tasks.
    """
    notified = find_notified(db, request_id)
    events = [
        make_event(
            AuditKind.NOT_NOTIFIED,
            request_id=request_id,
            model_id=task.model_id,
            owner=task.owner,
            parameters={"state": task.state.value},
        )
        for task in sorted(tasks, key=lambda task: task.model_id)
        if task.model_id not in notified
    ]
    append_once(db, request_id, events)
