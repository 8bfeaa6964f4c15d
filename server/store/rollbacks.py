"""Rollbacks in the database: decisions, and what owners answered."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from disinherit.common.errors import RequestError
from disinherit.common.graph.records import InheritanceKind, ModelStatus
from disinherit.common.text import one_line
from disinherit.server.states import CampaignEvent, Task, TaskState
from disinherit.server.store.audit_events import owner_actor
from disinherit.server.store.campaigns import Campaign, find_campaign
from disinherit.server.store.graph import find_edges, find_recorders
from disinherit.server.store.model_rows import find_record, put_statuses
from disinherit.server.store.request_rows import find_tasks, read_task, task_rows
from disinherit.server.store.retention import check_kept
from disinherit.server.store.tables import EDGES
from disinherit.server.store.tasks import take_back_task
from disinherit.server.store.transitions import put_event
from disinherit.v1.unlearning_pb2 import OUTCOME_INEFFECTIVE


@dataclass(frozen=True, slots=True)
class TakenBack:
    """An owner's answer about one model to put back.

    Attributes:
        model_id: the model.
        digest: SHA-256 of its weights now.
        refusal: why it was not put back; `""` if it was.
    """

    model_id: str
    digest: str = ""
    refusal: str = ""


def decide(
    db: Connection, request_id: str, models: Collection[str], reason: str, actor: str
) -> Campaign:
    """Decide to roll a campaign back; repeating a decision changes nothing.

    Args:
        db: a transaction that writes.
        request_id: the request.
        models: only these models; empty for all that are affected and not exempt.
        reason: for people to read.
        actor: who decides it.

    Raises:
        RequestError: if there is no such request, it cannot be rolled back now, or a model is not
            affected, is exempt, has descendants since, or had its old weights destroyed.
    """
    campaign = find_campaign(db, request_id)
    tasks = {row.model_id: read_task(row) for row in task_rows(db, request_id)}
    chosen = list(dict.fromkeys(models)) or [
        model for model, task in tasks.items() if task.state is not TaskState.EXEMPT
    ]
    for model in chosen:
        if model not in tasks or tasks[model].state is TaskState.EXEMPT:
            raise RequestError(
                f"Expected models that request {request_id!r} is to change, but got {model!r}."
            )
    todo = [tasks[model] for model in chosen if not tasks[model].state.undone]
    if chosen and not todo:
        return campaign
    campaign = put_event(db, request_id, CampaignEvent.ROLL_BACK, None, actor)
    for task in todo:
        check_kept(task)
        why = reason
        if (made := task.successor) is not None:
            claimed = check_not_built_upon(db, task.model_id, made.id)
            if claimed:
                why += f" (others say that they derived {', '.join(claimed)} from {made.id})"
        undone = replace(task, state=TaskState.ROLLING_BACK, reason=one_line(why))
        take_back_task(db, request_id, undone, actor=actor)
    return campaign


def record(db: Connection, request_id: str, answers: Iterable[TakenBack]) -> None:
    """Store an owner's answers: each model is put back, or its owner refused.

    Args:
        db: a transaction that writes.
        request_id: the request.
        answers: answers about models that are being rolled back.
    """
    for answer in answers:
        task = find_tasks(db, request_id, [answer.model_id]).get(answer.model_id)
        if task is None or task.state is not TaskState.ROLLING_BACK:
            continue
        if answer.refusal:
            take_back_task(db, request_id, _left(task, answer.refusal))
            continue
        if (made := task.successor) is not None:
            put_back(db, task.model_id, made.id)
        done = replace(task, state=TaskState.ROLLED_BACK)
        take_back_task(db, request_id, done, answer.digest, owner_actor(task.owner))


def _left(task: Task, refusal: str) -> Task:
    state = TaskState.FAILED if task.successor is None else TaskState.APPLIED
    if task.result is not None and task.result.outcome == OUTCOME_INEFFECTIVE:
        state = TaskState.INEFFECTIVE
    return replace(task, state=state, reason=f"not rolled back: {refusal}")


def put_back(db: Connection, model_id: str, successor_id: str) -> None:
    """Make a version current again, and retire its successor.

    Args:
        db: a transaction that writes.
        model_id: the version.
        successor_id: its successor, which may be unknown.
    """
    model, successor = find_record(db, model_id), find_record(db, successor_id)
    if successor is not None:
        put_statuses(db, [successor], ModelStatus.RETIRED)
    if model is not None and model.status is ModelStatus.SUPERSEDED:
        put_statuses(db, [model], ModelStatus.ACTIVE)


def check_not_built_upon(db: Connection, model_id: str, successor_id: str) -> tuple[str, ...]:
    """Raise `RequestError` if a successor has a child that is not retired.

    Only edges count that the coordinator observed, or that the successor's owner registered.
    Claims of others do not bind the owner.

    Args:
        db: a transaction.
        model_id: the version to put back.
        successor_id: its successor.

    Returns:
        The children that only others claim, which do not count.
    """
    successor = find_record(db, successor_id)
    owner = owner_actor(successor.owner) if successor is not None else ""
    recorders = find_recorders(db, successor_id)
    claimed = []
    for edge in find_edges(db, EDGES.c.parent, [successor_id]):
        if recorders[edge.child] not in ("", owner):
            claimed.append(edge.child)
            continue
        if edge.kind is not InheritanceKind.UNLEARNED:
            raise RequestError(
                f"Expected nothing to be derived from {successor_id!r}, which takes the place of "
                f"{model_id!r}, but {edge.child!r} was. Forget anew instead, or leave "
                f"{model_id!r} out."
            )
        if not _is_retired(db, edge.child):
            raise RequestError(
                f"Expected {successor_id!r}, which takes the place of {model_id!r}, to be the "
                f"latest version, but another request made {edge.child!r} of it. Roll that request "
                "back first."
            )
    return tuple(claimed)


def _is_retired(db: Connection, model_id: str) -> bool:
    record = find_record(db, model_id)
    return record is not None and record.status is ModelStatus.RETIRED
