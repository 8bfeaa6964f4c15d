"""One pass over a campaign that is rolled back: ask owners to put back what it superseded.

Every answer is stored as it arrives.  Owners that cannot be reached are asked again by the next
pass; one that refuses is not, and its model stays as it is, with the reason.
"""

from collections.abc import Iterable, Mapping
from typing import cast

from disinherit.common.printable import one_line
from disinherit.common.records import ModelRecord
from disinherit.server.answers import refusal_of, reply_of, unhandled
from disinherit.server.audit_words import request_digest
from disinherit.server.leases import Lease
from disinherit.server.preparation import Say
from disinherit.server.roll_back_rows import TakenBack
from disinherit.server.store import CoordinatorStore
from disinherit.server.tasks import TaskState
from disinherit.server.transport import Answer, Ask, Transport
from disinherit.v1 import unlearning_pb2 as pb


def roll_back(
    store: CoordinatorStore, lease: Lease, transport: Transport, timeout: float, say: Say
) -> tuple[str, ...]:
    """Ask the owners of models that are to be put back, and return those that were.

    Args:
        store: graph, requests and tasks.
        lease: the right to drive the campaign.
        transport: the way to the owners.
        timeout: seconds to wait for an owner's answer.
        say: told what is happening.

    Raises:
        StoreError: if the lease was lost.
    """
    tasks = store.tasks(lease.request_id)
    records = store.records(tasks)
    digest = request_digest(store.request(lease.request_id))
    messages: dict[str, pb.RollBackTask] = {}
    for model, task in tasks.items():
        if task.state is TaskState.ROLLING_BACK:
            message = messages.setdefault(
                task.owner, pb.RollBackTask(request_id=lease.request_id, request_digest=digest)
            )
            message.models.add(model_id=model, digest=records[model].digest)
    say("putting back what was superseded, all owners at once")
    asks = [Ask(owner, "train.rollback", message) for owner, message in messages.items()]
    done: list[str] = []
    for answer in transport.ask(asks, timeout) if asks else ():
        if not answer.unreachable:
            found = _taken_back(records, answer)
            store.record_roll_back(lease.request_id, found, lease=lease)
            done += [one.model_id for one in found if not one.refusal]
        say(one_line(answer.error) or f"{answer.ask.owner} answered")
    return tuple(done)


def _taken_back(records: Mapping[str, ModelRecord], answer: Answer) -> list[TakenBack]:
    try:
        return list(_read(records, answer))
    except Exception as error:  # one owner's answer must not end the others
        reason = unhandled(answer, error)
        asked = cast("pb.RollBackTask", answer.ask.task).models
        return [TakenBack(model.model_id, refusal=reason) for model in asked]


def _read(records: Mapping[str, ModelRecord], answer: Answer) -> Iterable[TakenBack]:
    reply, error = reply_of(answer, pb.RollBackReply)
    results = {result.model_id: result for result in reply.models} if reply is not None else {}
    for model in cast("pb.RollBackTask", answer.ask.task).models:
        id = model.model_id
        refusal = error or refusal_of(results.get(id), records[id].digest, "holds")
        yield TakenBack(id, "" if refusal else records[id].digest, refusal)
