"""Tasks, stored together with their audit entries."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from sqlalchemy import Connection

from disinherit.common.audit.chain import AuditEvent
from disinherit.common.text import one_line
from disinherit.server.now import now_us
from disinherit.server.states import Task, TaskState
from disinherit.server.store.audit import append, append_all, append_news
from disinherit.server.store.audit_events import (
    COORDINATOR,
    OF_TASK,
    AuditKind,
    owner_actor,
    task_details,
)
from disinherit.server.store.graph import find_digests
from disinherit.server.store.request_rows import find_tasks, put_tasks
from disinherit.server.store.transitions import reopen

_AT_ONCE = 500
"""Tasks in one query."""


def change_tasks(
    db: Connection,
    request_id: str,
    tasks: Sequence[Task],
    fishers: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[Task]:
    """Add or change tasks and log it, as `put_found_tasks` does, after reading their rows.

    Args:
        db: a transaction that writes.
        request_id: the request.
        tasks: the new tasks, at most one for a model.
        fishers: model -> SHA-256 of the Fisher packets it is dampened with, if this concerns them.

    Returns:
        The tasks without a row before.

    Raises:
        AuditError: if a task holds something that cannot be logged.
    """
    new = []
    for start in range(0, len(tasks), _AT_ONCE):
        some = tasks[start : start + _AT_ONCE]
        before = find_tasks(db, request_id, [task.model_id for task in some])
        find = partial(find_digests, db)
        _, events = put_found_tasks(db, request_id, some, before, find, fishers)
        append_news(db, request_id, events)
        new += [task for task in some if task.model_id not in before]
    return new


def put_first_tasks(db: Connection, request_id: str, tasks: Sequence[Task]) -> None:
    """Add the tasks of a request that has none yet, of which nothing is to be read or left out.

    Args:
        db: a transaction that writes.
        request_id: the request.
        tasks: its tasks, at most one for a model.

    Raises:
        AuditError: if a task holds something that cannot be logged.
    """
    _, events = put_found_tasks(db, request_id, tasks, {}, partial(find_digests, db))
    append_all(db, [event for event, _ in events])


def add_tasks(db: Connection, request_id: str, tasks: Sequence[Task]) -> None:
    """Add or change the tasks of a plan, and reopen an ended campaign if there is work again.

    That is so if a new task is not complete, or a known one is pending again.

    Args:
        db: a transaction that writes.
        request_id: the request.
        tasks: the new tasks, at most one for a model.

    Raises:
        AuditError: if a task holds something that cannot be logged.
    """
    added = change_tasks(db, request_id, tasks)
    again = any(task.state is TaskState.PENDING for task in tasks)
    if again or any(not task.state.complete for task in added):
        reopen(db, request_id)


def put_found_tasks(
    db: Connection,
    request_id: str,
    tasks: Sequence[Task],
    before: Mapping[str, Task],
    find_digests: Callable[[Collection[str]], Mapping[str, str]],
    fishers: Mapping[str, Sequence[str]] = MappingProxyType({}),
    told: Collection[str] = (),
) -> tuple[list[Task], list[tuple[AuditEvent, bool]]]:
    """Add or change tasks.

    A task that returns to waiting is not logged, since nothing happened to its model.  Repeated
    attempts are logged once; a final state, or a new start after one, is logged each time.  A task
    that is being rolled back stays so, even if a running pass reports a result; the result is kept,
    so that it is undone, too.

    Args:
        db: a transaction that writes.
        request_id: the request.
        tasks: the new tasks, at most one for a model.
        before: model -> its task as this transaction read it.
        find_digests: returns model -> SHA-256 of its weights.
        fishers: as for `change_tasks`.
        told: models whose owners answered the message with their task.

    Returns:
        The tasks as they are stored; and events to log with `append_news`, each with whether it is
        left out if the log has the same already.
    """
    now = now_us()
    stored = [_kept(task, before, now) for task in tasks]
    put_tasks(db, request_id, stored, before, told)
    news = [task for task in tasks if _is_news(task, before.get(task.model_id))]
    digests = find_digests([task.model_id for task in news])
    events = [
        (
            _event(request_id, task, digests[task.model_id], fishers.get(task.model_id, ()), now),
            not _is_end(task, before.get(task.model_id)),
        )
        for task in news
    ]
    return stored, sorted(events, key=lambda event: not event[1])


def _kept(task: Task, before: Mapping[str, Task], now: int) -> Task:
    """Return the task to store, its reason as one line: a rollback wins over a pass."""
    known = before.get(task.model_id)
    if known is not None and known.state.undone:
        task = replace(known, result=known.result or task.result)
    reason = one_line(task.reason)
    given = max(task.given_us, now) if task.state is TaskState.SENT else task.given_us
    if (reason, given) == (task.reason, task.given_us):
        return task
    return replace(task, reason=reason, given_us=given)


def _is_news(task: Task, before: Task | None) -> bool:
    if before is None:
        return True
    if before.state.undone:
        return task.successor is not None and before.successor is None
    if task.state is TaskState.PENDING:
        return before.state.settled
    return task.state is not before.state


def _is_end(task: Task, before: Task | None) -> bool:
    """Return whether the work on a model ends or restarts, which is logged each time."""
    return task.state.settled or (before is not None and before.state.settled)


def _event(
    request_id: str, task: Task, digest: str, fishers: Sequence[str], now: int
) -> AuditEvent:
    after = task.successor if task.state.answered else None
    return AuditEvent(
        OF_TASK[task.state].value,
        now,
        owner_actor(task.owner) if _is_owners_word(task) else COORDINATOR,
        request_id,
        task.model_id,
        task.owner,
        digest_before=digest,
        digest_after=after.digest if after is not None else "",
        parameters=task_details(task),
        fishers=tuple(fishers),
    )


def _is_owners_word(task: Task) -> bool:
    """Return whether the state comes from its owner's answer, not from a plan or a check."""
    return task.result is not None and (task.state is TaskState.APPLIED or task.state.unforgotten)


def take_back_task(
    db: Connection, request_id: str, task: Task, digest_after: str = "", actor: str = COORDINATOR
) -> None:
    """Store a step of rolling a task back, and log it.

    Args:
        db: a transaction that writes.
        request_id: the request.
        task: the new task: rolling back, rolled back, or its former state after a refusal.
        digest_after: SHA-256 of the weights that its owner holds now.
        actor: who did it.
    """
    put_tasks(db, request_id, [task], {task.model_id: task})
    made = task.successor
    append(
        db,
        OF_TASK[task.state] if task.state.undone else AuditKind.ROLLBACK_REFUSED,
        actor,
        request_id=request_id,
        model_id=task.model_id,
        owner=task.owner,
        digest_before=made.digest if made is not None else "",
        digest_after=digest_after,
        parameters={"retired": made.id} if made is not None and digest_after else {},
    )
