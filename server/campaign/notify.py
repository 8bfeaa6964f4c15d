"""Notices to owners of affected versions that get no task.

A version may be exempt, since its owner's contribution is to be forgotten and it must be retired.
It may have failed, since the class cannot be followed to it, or not be reached, since the class is
lost on the way.  Without a notice its owner would not learn that it is affected.
"""

from disinherit.common.text import one_line
from disinherit.server.campaign.campaign_pass import Pass
from disinherit.server.states import TaskState
from disinherit.server.store.notifications import find_notified
from disinherit.server.transport.answers import reply_of
from disinherit.server.transport.base import Ask
from disinherit.v1 import unlearning_pb2 as pb

_AS_IT_IS = (TaskState.EXEMPT, TaskState.FAILED, TaskState.NOT_REACHED)


def notify(one: Pass) -> None:
    """Send notices about unchanged versions to owners that were not notified yet.

    The next pass, if any, notifies owners that cannot be reached; the log records the others.

    Raises:
        StoreError: if the lease was lost.
    """
    tasks = [task for task in one.tasks.values() if task.state in _AS_IT_IS]
    if not tasks:
        return
    with one.store.reading() as db:
        notified = find_notified(db, one.request.id)
    notices: dict[str, pb.NoticeTask] = {}
    for task in tasks:
        if task.model_id not in notified:
            notice = notices.setdefault(task.owner, pb.NoticeTask(request_id=one.request.id))
            notice.models.add(model_id=task.model_id, state=task.state.value, reason=task.reason)
    if not notices:
        return
    one.say("notifying the owners of affected versions that stay as they are")
    asks = [Ask(owner, "query.notice", notice) for owner, notice in notices.items()]
    for answer in one.ask(asks):
        owner = answer.ask.owner
        reply, error = reply_of(answer, pb.NoticeReply)
        if reply is not None:
            named = {notice.model_id for notice in notices[owner].models}
            with one.writing() as change:
                change.notified(owner, sorted(named.intersection(reply.model_ids)))
        one.say(one_line(error) or f"{owner} was notified")
