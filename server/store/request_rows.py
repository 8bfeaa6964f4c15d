"""Rows of requests, and of their tasks."""

from collections.abc import Collection, Container, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from disinherit.common.errors import RequestError, StoreError
from disinherit.common.text import one_line
from disinherit.server.now import now_us
from disinherit.server.states import Task, TaskState
from disinherit.server.store.tables import MODELS, REQUESTS, TASKS, parse
from disinherit.v1.unlearning_pb2 import ModelResult, UnlearningRequest

# Made once: to make such a statement anew takes longer than to execute it.
_SOME_TASKS = select(TASKS).where(
    TASKS.c.request_id == bindparam("request"),
    TASKS.c.model_id.in_(bindparam("models", expanding=True)),
)
_INSERT_TASKS = insert(TASKS)
_UPDATE_TASKS = update(TASKS).where(
    TASKS.c.request_id == bindparam("of_request"), TASKS.c.model_id == bindparam("of_model")
)
_UPDATE_GIVEN = (
    update(TASKS)
    .where(
        TASKS.c.request_id == bindparam("of_request"),
        TASKS.c.given_us < bindparam("now"),
        TASKS.c.model_id.in_(bindparam("models", expanding=True)),
    )
    .values(given_us=bindparam("now"))
)


def read_task(row: Row[Any]) -> Task:
    """Return the task that a row holds.

    Raises:
        StoreError: if it is damaged, or this version does not know its state.
    """
    try:
        state = TaskState(row.state)
    except ValueError as error:
        raise StoreError(f"Expected a known task state in the database, but: {error}.") from None
    result = parse(ModelResult, row.result) if row.result else None
    return Task(
        row.model_id,
        row.owner,
        state,
        row.reason,
        result,
        row.wave,
        row.destroy_us,
        row.destroyed_us,
        bool(row.late),
    )


def find_submitted(db: Connection, request_id: str) -> UnlearningRequest | None:
    """Return a submitted request, or `None`."""
    data = db.execute(select(REQUESTS.c.request).where(REQUESTS.c.id == request_id)).scalar()
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
    query = (
        select(TASKS)
        .join(MODELS, MODELS.c.id == TASKS.c.model_id)
        .where(TASKS.c.request_id == request_id)
        .order_by(MODELS.c.created_us, MODELS.c.id)
    )
    return db.execute(query).all()


def find_tasks(db: Connection, request_id: str, models: Collection[str]) -> dict[str, Task]:
    """Return model -> task of a request, for the models that have one.

    Raises:
        StoreError: if one is damaged.
    """
    return {row.model_id: read_task(row) for row in some_task_rows(db, request_id, models)}


def some_task_rows(db: Connection, request_id: str, models: Collection[str]) -> Sequence[Row[Any]]:
    """Return the rows of a request's tasks for some models, in any order."""
    return db.execute(_SOME_TASKS, {"request": request_id, "models": list(models)}).all()


def put_tasks(
    db: Connection, request_id: str, tasks: Iterable[Task], known: Container[str]
) -> None:
    """Add or change the rows of tasks.

    The times of destruction are kept, since a pass may hold an outdated task.

    Args:
        db: a transaction that writes.
        request_id: the request.
        tasks: the tasks, at most one for a model.
        known: models that have a row.
    """
    now = now_us()
    new, changed, sent = [], [], []
    for task in tasks:
        if task.state is TaskState.SENT:
            sent.append(task.model_id)
        values = {
            "owner": task.owner,
            "state": task.state.value,
            "reason": one_line(task.reason),
            "result": task.result.SerializeToString(deterministic=True) if task.result else b"",
            "updated_us": now,
            "wave": task.wave,
        }
        if task.model_id in known:
            changed.append({"of_request": request_id, "of_model": task.model_id, **values})
        else:
            late = int(task.late)
            new.append(
                {"request_id": request_id, "model_id": task.model_id, "late": late, **values}
            )
    if new:
        db.execute(_INSERT_TASKS, new)
    if changed:
        db.execute(_UPDATE_TASKS, changed)
    if sent:
        db.execute(_UPDATE_GIVEN, {"of_request": request_id, "models": sent, "now": now})
