"""One round of notices: tell owners of affected versions for which there is nothing to do.

A version may be exempt, because its owner's contribution is to be forgotten and it must be retired,
or failed, because the class cannot be followed to it, or not reached, because the class is lost on
the way.  No task is sent for it, so its owner would not learn that it is affected.
"""

from disinherit.common.text import one_line
from disinherit.server.campaign.collect import Say
from disinherit.server.states import TaskState
from disinherit.server.store.leases import Lease
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.transport.answers import reply_of
from disinherit.server.transport.base import Ask, Transport
from disinherit.v1 import unlearning_pb2 as pb

_AS_IT_IS = (TaskState.EXEMPT, TaskState.FAILED, TaskState.NOT_REACHED)


def tell_owners(
    store: CoordinatorStore, lease: Lease, transport: Transport, timeout: float, say: Say
) -> None:
    """Send notices about versions that stay as they are, to owners who have not got word yet.

    Who cannot be reached is told by the next pass, if there is one; the log says who was not.

    Args:
        store: graph, requests and tasks.
        lease: the right to drive the campaign.
        transport: the way to the owners.
        timeout: seconds to wait for an owner's answer.
        say: told what is happening.

    Raises:
        StoreError: if the lease was lost.
    """
    told = store.told(lease.request_id)
    notices: dict[str, pb.NoticeTask] = {}
    for model, task in store.tasks(lease.request_id).items():
        if task.state in _AS_IT_IS and model not in told:
            notice = notices.setdefault(task.owner, pb.NoticeTask(request_id=lease.request_id))
            notice.models.add(model_id=model, state=task.state.value, reason=task.reason)
    if not notices:
        return
    say("telling owners of affected versions that stay as they are")
    asks = [Ask(owner, "query.notice", notice) for owner, notice in notices.items()]
    for answer in transport.ask(asks, timeout):
        owner = answer.ask.owner
        reply, error = reply_of(answer, pb.NoticeReply)
        if reply is not None:
            named = {notice.model_id for notice in notices[owner].models}
            models = sorted(named.intersection(reply.model_ids))
            store.record_told(lease.request_id, owner, models, lease=lease)
        say(one_line(error) or f"{owner} was told")
