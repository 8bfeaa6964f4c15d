"""Tasks and what the audit log says of them, changed together."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, select

from disinherit.server.audit import append, append_once
from disinherit.server.audit_words import (
    COORDINATOR,
    OF_TASK,
    AuditKind,
    owner_actor,
    task_words,
)
from disinherit.server.tables import TASKS, find_record, put_task, read_task
from disinherit.server.tasks import Task, TaskState


def change_task(db: Connection, request_id: str, task: Task, fishers: Sequence[str] = ()) -> bool:
    """Add or change a task, log it if its state is another one, and return whether it is new.

    A task that waits again is not logged: nothing has happened to its model.  One that is rolled
    back stays so, whatever a pass that was under way has to say; what its owner applied meanwhile
    is kept, so that it is taken back.

    Args:
        db: a transaction that writes.
        request_id: the request.
        task: the task as it stands now.
        fishers: SHA-256 of the Fisher packets it is dampened with, as far as this is about them.

    Raises:
        AuditError: if the task holds something that cannot be logged.
    """
    before = find_task(db, request_id, task.model_id)
    if before is not None and before.state.undone:
        put_task(db, request_id, replace(before, result=before.result or task.result))
        news = task.state is TaskState.APPLIED and before.result is None
    else:
        put_task(db, request_id, task)
        news = before is None or (
            task.state is not before.state and task.state is not TaskState.PENDING
        )
    if news:
        record = find_record(db, task.model_id)
        applied = task.result is not None and task.state.done
        append_once(
            db,
            OF_TASK[task.state],
            owner_actor(task.owner) if task.state is TaskState.APPLIED else COORDINATOR,
            request_id=request_id,
            model_id=task.model_id,
            owner=task.owner,
            digest_before=record.digest if record is not None else "",
            digest_after=task.result.successor.digest if applied and task.result else "",
            parameters=task_words(task),
            fishers=tuple(fishers),
        )
    return before is None


def take_back_task(
    db: Connection, request_id: str, task: Task, digest_after: str = "", actor: str = COORDINATOR
) -> None:
    """Change a task as rolling it back demands, and log it.

    Args:
        db: a transaction that writes.
        request_id: the request.
        task: the task as it stands now: to be rolled back, rolled back, or left as it was.
        digest_after: SHA-256 of the weights that its owner holds now.
        actor: who did it.
    """
    put_task(db, request_id, task)
    result = task.result
    append(
        db,
        OF_TASK[task.state] if task.state.undone else AuditKind.ROLLBACK_REFUSED,
        actor,
        request_id=request_id,
        model_id=task.model_id,
        owner=task.owner,
        digest_before=result.successor.digest if result is not None else "",
        digest_after=digest_after,
        parameters={"retired": result.successor.id} if result is not None and digest_after else {},
    )


def find_task(db: Connection, request_id: str, model_id: str) -> Task | None:
    """Return the task of a model, or `None` if it has none."""
    query = select(TASKS).where(TASKS.c.request_id == request_id, TASKS.c.model_id == model_id)
    row = db.execute(query).one_or_none()
    return None if row is None else read_task(row)
