"""Retention windows in the database: due versions, and what owners answered.

A window begins at the end of the campaign, by the coordinator's clock.  For a version that is
verified later, it begins at the next end.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, select

from disinherit.common.errors import RequestError
from disinherit.server.now import now_us
from disinherit.server.states import Task, TaskState
from disinherit.server.store.audit import append_all, append_once, make_event
from disinherit.server.store.audit_events import AuditKind, owner_actor
from disinherit.server.store.request_rows import find_tasks, put_destruction, schedule_destruction
from disinherit.server.store.tables import TASKS

_REFUSED = "the old weights are not destroyed: "


@dataclass(frozen=True, slots=True)
class DestroyedModel:
    """An owner's answer about one version to destroy.

    Attributes:
        model_id: the version.
        digest: SHA-256 of its weights.
        held_by: another version of the owner with identical weights; `""` for none.
        refusal: why it was not destroyed; `""` if it was.
    """

    model_id: str
    digest: str = ""
    held_by: str = ""
    refusal: str = ""


def schedule(db: Connection, request_id: str, seconds: int) -> None:
    """Begin the retention windows of verified tasks, at the end of a campaign.

    Args:
        db: a transaction that writes.
        request_id: the request.
        seconds: its retention window; 0 to destroy nothing.
    """
    if seconds:
        schedule_destruction(db, request_id, now_us() + seconds * 1_000_000)


def find_due(db: Connection, request_id: str = "") -> dict[str, list[str]]:
    """Return request -> the versions that are due: their windows have passed.

    Args:
        db: a transaction.
        request_id: only this request; `""` for all.
    """
    query = select(TASKS.c.request_id, TASKS.c.model_id).where(
        TASKS.c.destroy_us > 0,
        TASKS.c.destroy_us <= now_us(),
        TASKS.c.state == TaskState.VERIFIED,
    )
    if request_id:
        query = query.where(TASKS.c.request_id == request_id)
    found: dict[str, list[str]] = {}
    for row in db.execute(query.order_by(TASKS.c.model_id)):
        found.setdefault(row.request_id, []).append(row.model_id)
    return found


def record(db: Connection, request_id: str, answers: Iterable[DestroyedModel]) -> None:
    """Store and log an owner's answers.

    Args:
        db: a transaction that writes.
        request_id: the request.
        answers: answers about versions that are due.
    """
    for answer in answers:
        task = find_tasks(db, request_id, [answer.model_id]).get(answer.model_id)
        if task is None or task.destroyed_us:
            continue
        subject = {"request_id": request_id, "model_id": task.model_id, "owner": task.owner}
        if answer.refusal:
            values: dict[str, str | int] = {"reason": _REFUSED + answer.refusal}
            append_once(db, request_id, [make_event(AuditKind.DESTROY_REFUSED, **subject)])
        else:
            event = make_event(
                AuditKind.DESTROYED,
                owner_actor(task.owner),
                digest_before=answer.digest,
                parameters={"held_by": answer.held_by} if answer.held_by else {},
                **subject,
            )
            values = {"reason": "", "destroy_us": 0, "destroyed_us": event.time_us}
            append_all(db, [event])
        put_destruction(db, request_id, [task.model_id], **values)


def check_kept(task: Task) -> None:
    """Check that a version's old weights were not destroyed, so that it can be put back.

    Args:
        task: the version's task.

    Raises:
        RequestError: if they were, even if the clock shows an earlier time.
    """
    if task.destroyed_us:
        time = datetime.fromtimestamp(task.destroyed_us / 1e6, UTC).isoformat(timespec="seconds")
        raise RequestError(
            f"Expected a model within its retention window, but {task.model_id!r} cannot be put "
            f"back: its old weights were destroyed at {time}. Choose others with --model."
        )
