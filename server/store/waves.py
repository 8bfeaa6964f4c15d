"""Waves in the database: their begin, the halt of a campaign, and its resumption by a person."""

from dataclasses import replace

from sqlalchemy import Connection, update

from disinherit.server.planning.gates import Halt
from disinherit.server.states import CampaignEvent, CampaignState, TaskState
from disinherit.server.store.audit import append
from disinherit.server.store.audit_events import AuditKind
from disinherit.server.store.campaigns import find_campaign
from disinherit.server.store.request_rows import read_task, task_rows
from disinherit.server.store.tables import CAMPAIGNS
from disinherit.server.store.tasks import change_tasks
from disinherit.server.store.transitions import put_event

_NOT_APPLIED = (TaskState.PENDING, TaskState.SENT)
_MAYBE = "; it had been sent before, so its owner may have applied it all the same"


def begin_wave(db: Connection, request_id: str, open_waves: int) -> None:
    """Begin the next wave of a campaign.

    Args:
        db: a transaction that writes.
        request_id: the request.
        open_waves: the number of begun waves, with this one.
    """
    _put(db, request_id, open_waves=open_waves)
    details = {"wave": open_waves}
    append(db, AuditKind.WAVE_DECIDED, request_id=request_id, parameters=details)


def halt(db: Connection, request_id: str, why: Halt) -> None:
    """Halt a campaign and its tasks that are not applied yet, unless it is stopped already.

    Failed tasks keep their state and reason.

    Args:
        db: a transaction that writes.
        request_id: the request.
        why: the threshold that was exceeded.
    """
    if not find_campaign(db, request_id).state.advances:
        return
    put_event(db, request_id, CampaignEvent.HALT, None, details=dict(why.details))
    _put(db, request_id, halt_reason=why.reason)
    tasks = [read_task(row) for row in task_rows(db, request_id)]
    halted = [
        replace(
            task,
            state=TaskState.HALTED,
            reason=why.reason + (_MAYBE if task.state is TaskState.SENT else ""),
        )
        for task in tasks
        if task.state in _NOT_APPLIED
    ]
    change_tasks(db, request_id, halted)


def accept(db: Connection, request_id: str) -> None:
    """Accept the begun waves of a halted campaign, whatever their results.

    Args:
        db: a transaction that writes, and resumes the campaign.
        request_id: the request.
    """
    campaign = find_campaign(db, request_id)
    if campaign.state is not CampaignState.HALTED:
        return
    _put(db, request_id, accepted_waves=campaign.open_waves, halt_reason="")
    tasks = [read_task(row) for row in task_rows(db, request_id)]
    waiting = [
        replace(t, state=TaskState.PENDING, reason="") for t in tasks if t.state is TaskState.HALTED
    ]
    change_tasks(db, request_id, waiting)


def retry_unforgotten(db: Connection, request_id: str) -> None:
    """Repeat tasks whose owners answered, but whose models have not forgotten.

    A task with a successor is left out.  It must be rolled back first: dampening twice differs from
    dampening once.

    Args:
        db: a transaction that writes, and resumes the campaign.
        request_id: the request.
    """
    tasks = [read_task(row) for row in task_rows(db, request_id)]
    again = [
        replace(task, state=TaskState.PENDING, reason="", result=None)
        for task in tasks
        if task.state.unforgotten and task.successor is None and not task.is_unreached
    ]
    change_tasks(db, request_id, again)


def _put(db: Connection, request_id: str, **values: int | str) -> None:
    db.execute(update(CAMPAIGNS).where(CAMPAIGNS.c.request_id == request_id).values(**values))
