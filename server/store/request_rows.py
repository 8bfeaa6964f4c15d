"""Rows of requests, and of their tasks.

Whatever changes a task's row is here, and counts that in the row of its campaign.  So a pass knows
whether its tasks are as it left them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, case, insert, select, update

from disinherit.common.errors import RequestError, StoreError
from disinherit.common.text import one_line
from disinherit.server.now import now_us
from disinherit.server.states import Task, TaskState
from disinherit.server.store.queries import Query, WriteQuery
from disinherit.server.store.tables import CAMPAIGNS, MODELS, REQUESTS, TASKS, parse
from disinherit.v1.unlearning_pb2 import ModelResult, UnlearningRequest

# Made once: to make such a statement anew takes longer than to execute it.
_SOME_TASKS = Query(
    select(TASKS).where(
        TASKS.c.request_id == bindparam("request"),
        TASKS.c.model_id.in_(bindparam("models", expanding=True)),
    )
)
_REQUEST = Query(select(REQUESTS.c.request).where(REQUESTS.c.id == bindparam("request")))
_ALL_TASKS = Query(
    select(TASKS)
    .join(MODELS, MODELS.c.id == TASKS.c.model_id)
    .where(TASKS.c.request_id == bindparam("request"))
    .order_by(MODELS.c.created_us, MODELS.c.id)
)
_INSERT_TASKS = WriteQuery(insert(TASKS))
_CHANGE_TASKS = (
    update(TASKS)
    .where(TASKS.c.request_id == bindparam("of_request"))
    .values(
        given_us=case(
            (TASKS.c.given_us < bindparam("given"), bindparam("given")), else_=TASKS.c.given_us
        ),
        told_us=case((TASKS.c.told_us == 0, bindparam("told")), else_=TASKS.c.told_us),
    )
)
_UPDATE_TASKS = WriteQuery(_CHANGE_TASKS.where(TASKS.c.model_id == bindparam("of_model")))
_UPDATE_ALIKE = WriteQuery(
    _CHANGE_TASKS.where(TASKS.c.model_id.in_(bindparam("of_models", expanding=True)))
)
_COUNT_CHANGE = WriteQuery(
    update(CAMPAIGNS)
    .where(CAMPAIGNS.c.request_id == bindparam("of_request"))
    .values(task_changes=CAMPAIGNS.c.task_changes + 1)
)
_AT_ONCE = 500
"""Rows that one statement names."""


_COLUMNS = len(TASKS.c)


def read_task(row: Row[Any]) -> Task:
    """Return the task in a row of the columns of the tasks.

    Raises:
        StoreError: if it is damaged, or this version does not know its state.
    """
    _, model, owner, known, reason, data, _, wave, destroy, destroyed, late, given, *_ = row[
        :_COLUMNS
    ]
    try:
        state = TaskState(known)
    except ValueError as error:
        raise StoreError(f"Expected a known task state in the database, but: {error}.") from None
    result = parse(ModelResult, data) if data else None
    return Task(model, owner, state, reason, result, wave, destroy, destroyed, bool(late), given)


def read_request(db: Connection, request_id: str) -> bytes | None:
    """Return a submitted request as it is stored, or `None`."""
    data: bytes | None = _REQUEST.scalar(db, {"request": request_id})
    return data


def find_submitted(db: Connection, request_id: str) -> UnlearningRequest | None:
    """Return a submitted request, or `None`."""
    data = read_request(db, request_id)
    return None if data is None else parse(UnlearningRequest, data)


def check_same(request: UnlearningRequest, stored: UnlearningRequest | None) -> None:
    """Raise `RequestError` if another request was submitted under the same id."""
    if stored is not None and request.SerializeToString(
        deterministic=True
    ) != stored.SerializeToString(deterministic=True):
        raise RequestError(
            f"Expected a new request id, but {request.id!r} was already used for another "
            "request. Submit it under another id."
        )


def find_request(db: Connection, request_id: str) -> UnlearningRequest:
    """Return a submitted request.

    Raises:
        RequestError: if there is no such request.
    """
    request = find_submitted(db, request_id)
    if request is None:
        raise RequestError(f"Expected the id of a submitted request, but got {request_id!r}.")
    return request


def task_rows(db: Connection, request_id: str) -> Sequence[Row[Any]]:
    """Return the rows of a request's tasks, ancestors first."""
    return _ALL_TASKS.all(db, {"request": request_id})


def find_tasks(db: Connection, request_id: str, models: Collection[str]) -> dict[str, Task]:
    """Return model -> task of a request, for the models that have one.

    Raises:
        StoreError: if one is damaged.
    """
    named = list(models)
    found: dict[str, Task] = {}
    for begin in range(0, len(named), _AT_ONCE):
        some = {"request": request_id, "models": named[begin : begin + _AT_ONCE]}
        found |= {task.model_id: task for task in map(read_task, _SOME_TASKS.all(db, some))}
    return found


def put_tasks(
    db: Connection,
    request_id: str,
    tasks: Iterable[Task],
    before: Mapping[str, Task],
    told: Collection[str] = (),
) -> None:
    """Add or change the rows of tasks, those that change alike by one statement, as one change.

    Times of destruction are kept, since a pass may hold an outdated task; owners do not change.

    Args:
        db: a transaction that writes.
        request_id: the request.
        tasks: the tasks, at most one for a model.
        before: model -> its task with the result in its row, of those that have one.
        told: models whose owners answered the message with their task.
    """
    tasks = list(tasks)
    if not tasks:
        return
    new, answered = [], []
    alike: dict[tuple[str, str, int, int, int], list[str]] = {}
    now = now_us()
    for task in tasks:
        known = before.get(task.model_id)
        sent = known.given_us if known is not None and task.model_id in told else 0
        changed = (task.state.value, one_line(task.reason), task.wave, task.given_us, sent)
        if known is not None and task.result == known.result:
            alike.setdefault(changed, []).append(task.model_id)
            continue
        row = _changed(*changed, now)
        row["result"] = task.result.SerializeToString(deterministic=True) if task.result else b""
        if known is not None:
            answered.append({"of_request": request_id, "of_model": task.model_id, **row})
            continue
        row |= {"request_id": request_id, "model_id": task.model_id, "owner": task.owner}
        row |= {"late": int(task.late), "given_us": row.pop("given"), "told_us": row.pop("told")}
        new.append(row)
    if new:
        _INSERT_TASKS.run(db, *new)
    if answered:
        _UPDATE_TASKS.run(db, *answered)
    for changed, models in alike.items():
        row = {"of_request": request_id, **_changed(*changed, now)}
        for begin in range(0, len(models), _AT_ONCE):
            _UPDATE_ALIKE.run(db, row | {"of_models": models[begin : begin + _AT_ONCE]})
    _count_change(db, request_id)


def put_destruction(
    db: Connection, request_id: str, models: Collection[str], **values: str | int
) -> None:
    """Change what the rows of tasks have about the destruction of superseded versions.

    Args:
        db: a transaction that writes.
        request_id: the request.
        models: the models of the tasks.
        **values: the changed columns.
    """
    change = update(TASKS).where(TASKS.c.request_id == request_id)
    for model in models:
        db.execute(change.where(TASKS.c.model_id == model).values(**values))
    _count_change(db, request_id)


def schedule_destruction(db: Connection, request_id: str, due_us: int) -> None:
    """Set when the versions that verified tasks superseded are destroyed, where it is not set.

    Args:
        db: a transaction that writes.
        request_id: the request.
        due_us: microseconds since the epoch.
    """
    done = update(TASKS).where(
        TASKS.c.request_id == request_id,
        TASKS.c.state == TaskState.VERIFIED,
        TASKS.c.destroy_us == 0,
        TASKS.c.destroyed_us == 0,
    )
    db.execute(done.values(destroy_us=due_us))
    _count_change(db, request_id)


def _count_change(db: Connection, request_id: str) -> None:
    _COUNT_CHANGE.run(db, {"of_request": request_id})


def _changed(state: str, reason: str, wave: int, given: int, told: int, now: int) -> dict[str, Any]:
    row = {"state": state, "reason": reason, "wave": wave, "updated_us": now}
    return row | {"given": given, "told": told}
