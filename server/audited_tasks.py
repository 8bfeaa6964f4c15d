"""Tasks and what the audit log says of them, changed together."""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from disinherit.server.audit import append_once
from disinherit.server.audit_words import COORDINATOR, OF_TASK, owner_actor, task_words
from disinherit.server.tables import TASKS, find_record, put_task, read_task
from disinherit.server.tasks import Task, TaskState


def change_task(db: Connection, request_id: str, task: Task, fishers: Sequence[str] = ()) -> bool:
    """Add or change a task, log it if its state is another one, and return whether it is new.

    A task that waits again is not logged: nothing has happened to its model.

    Args:
        db: a transaction that writes.
        request_id: the request.
        task: the task as it stands now.
        fishers: SHA-256 of the Fisher packets it is dampened with, as far as this is about them.

    Raises:
        AuditError: if the task holds something that cannot be logged.
    """
    row = db.execute(
        select(TASKS).where(TASKS.c.request_id == request_id, TASKS.c.model_id == task.model_id)
    ).one_or_none()
    before = None if row is None else read_task(row)
    put_task(db, request_id, task)
    if before is None or (task.state is not before.state and task.state is not TaskState.PENDING):
        _log(db, request_id, task, tuple(fishers))
    return before is None


def _log(db: Connection, request_id: str, task: Task, fishers: tuple[str, ...]) -> None:
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
        fishers=fishers,
    )
