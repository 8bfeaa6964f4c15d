"""Repetition of finished tasks, which reopens their campaigns."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from sqlalchemy import Connection, bindparam, select

from disinherit.common.audit.chain import AuditEvent
from disinherit.common.errors import RequestError
from disinherit.server.states import CampaignState, Task, TaskState
from disinherit.server.store.audit import append_all, make_event
from disinherit.server.store.audit_events import AuditKind, owner_actor
from disinherit.server.store.campaigns import Campaign, find_campaign
from disinherit.server.store.queries import Query
from disinherit.server.store.request_rows import (
    find_tasks,
    put_destruction,
    put_tasks,
    read_task,
    task_rows,
)
from disinherit.server.store.tables import TASKS
from disinherit.server.store.transitions import reopen

_MADE = (TaskState.APPLIED, TaskState.VERIFIED, TaskState.INEFFECTIVE)
_AT_ONCE = 500
_BY_OWNER = Query(
    select(TASKS).where(
        TASKS.c.owner.in_(bindparam("owners", expanding=True)),
        TASKS.c.state.in_([state.value for state in _MADE]),
    )
)


def find_made(db: Connection, owners: Collection[str]) -> dict[str, list[tuple[str, Task]]]:
    """Return owner -> (request, task) of all tasks for which it made a successor.

    Args:
        db: a transaction.
        owners: the owners; one without such tasks is left out.
    """
    named = list(owners)
    found: defaultdict[str, list[tuple[str, Task]]] = defaultdict(list)
    for begin in range(0, len(named), _AT_ONCE):
        for row in _BY_OWNER.all(db, {"owners": named[begin : begin + _AT_ONCE]}):
            task = read_task(row)
            if task.successor is not None:
                found[task.owner].append((row.request_id, task))
    return found


def find_made_of(db: Connection, versions: Collection[str]) -> list[tuple[str, Task]]:
    """Return (request, task) of all tasks by which a successor was made of some versions.

    Also of those that were rolled back since.
    """
    found = db.execute(select(TASKS).where(TASKS.c.model_id.in_(versions)))
    tasks = [(row.request_id, read_task(row)) for row in found]
    return [(request_id, task) for request_id, task in tasks if task.successor is not None]


def put_fallen_back(
    db: Connection, owner: str, found: Iterable[tuple[str, Task, str]]
) -> list[str]:
    """Repeat tasks of which an owner has lost the results, and return their requests.

    Args:
        db: a transaction that writes.
        owner: the owner.
        found: (request, task, reason) from `fallen_back`; tasks that changed since are skipped.
    """
    events: list[AuditEvent] = []
    requests: dict[str, None] = {}
    for request_id, task, reason in found:
        if find_tasks(db, request_id, [task.model_id]).get(task.model_id) != task:
            continue
        _open(db, request_id, [replace(task, reason=reason)])
        made = task.successor
        if made is not None:
            subject = {"request_id": request_id, "model_id": task.model_id, "owner": owner}
            event = make_event(
                AuditKind.FELL_BACK,
                owner_actor(owner),
                digest_before=made.digest,
                parameters={"missing": made.id},
                **subject,
            )
            events.append(event)
        requests[request_id] = None
    append_all(db, events)
    for request_id in requests:
        reopen(db, request_id)
    return list(requests)


def resend(db: Connection, request_id: str, actor: str) -> Campaign:
    """Send all finished tasks again; an owner that holds the result answers with it.

    Args:
        db: a transaction that writes.
        request_id: the request.
        actor: who decides it.

    Raises:
        RequestError: if there is no such request, or the state of its campaign does not allow it.
    """
    campaign = find_campaign(db, request_id)
    if campaign.state not in (
        CampaignState.RUNNING,
        CampaignState.COMPLETE,
        CampaignState.PARTIAL,
    ):
        raise RequestError(
            f"Expected campaign {request_id!r} to be running, complete or partial, to send it "
            f"again, but it is {campaign.state}."
        )
    tasks = [read_task(row) for row in task_rows(db, request_id)]
    made = [task for task in tasks if task.state in _MADE and task.successor is not None]
    if made:
        _open(db, request_id, [replace(task, reason="sent again") for task in made])
        events = [make_event(AuditKind.RESENT, actor, request_id=request_id)]
        append_all(db, events)
        reopen(db, request_id)
    return find_campaign(db, request_id)


def _open(db: Connection, request_id: str, tasks: Sequence[Task]) -> None:
    """Put tasks back to pending; destroyed weights may exist again."""
    before = {task.model_id: task for task in tasks}
    put_tasks(db, request_id, [replace(task, state=TaskState.PENDING) for task in tasks], before)
    put_destruction(db, request_id, before, destroy_us=0, destroyed_us=0)
