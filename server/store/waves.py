"""Waves in the database: the next one begins, a campaign is halted, a person lets it go on."""

from dataclasses import replace

from sqlalchemy import Connection, update

from disinherit.server.planning.gates import Halt
from disinherit.server.states import CampaignEvent, CampaignState, TaskState
from disinherit.server.store.audit import append
from disinherit.server.store.audit_events import AuditKind
from disinherit.server.store.campaigns import find_campaign, put_event
from disinherit.server.store.tables import CAMPAIGNS, read_task, task_rows
from disinherit.server.store.tasks import change_tasks

_NOT_APPLIED = (TaskState.PENDING, TaskState.SENT)
_MAYBE = "; it had been sent before, so its owner may have applied it all the same"


def begin_wave(db: Connection, request_id: str, open_waves: int) -> None:
    """Let a campaign go on with its next wave.

    Args:
        db: a transaction that writes.
        request_id: the request.
        open_waves: how many waves have begun then.
    """
    _put(db, request_id, open_waves=open_waves)
    said = {"wave": open_waves}
    append(db, AuditKind.WAVE_DECIDED, request_id=request_id, parameters=said)


def halt(db: Connection, request_id: str, why: Halt) -> None:
    """Halt a campaign: what was not applied stays as it is. One that is stopped already is left.

    What failed stays failed, with its own reason.

    Args:
        db: a transaction that writes.
        request_id: the request.
        why: the threshold that was passed.
    """
    if not find_campaign(db, request_id).state.advances:
        return
    put_event(db, request_id, CampaignEvent.HALT, None, said=dict(why.details))
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
    """Let the waves that have begun pass, whatever came of them, if a campaign is halted.

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
    """Let owners be asked again for models that they answered for and that have not forgotten.

    One of which there is a successor is left: it has to be rolled back first, since what is done
    to it a second time is not what would have been done at once.

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
