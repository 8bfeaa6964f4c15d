"""The end of a campaign's retention windows: have owners destroy what the request superseded.

Every answer is stored as it arrives.  Owners that cannot be reached are asked again by the next
pass, and so is one that could not do it.
"""

from collections.abc import Iterable, Mapping
from typing import cast

from disinherit.common.printable import one_line
from disinherit.common.records import ModelRecord
from disinherit.server.answers import refusal_of, reply_of, unhandled
from disinherit.server.audit_words import request_digest
from disinherit.server.destruction_rows import DestroyedModel
from disinherit.server.leases import Lease
from disinherit.server.preparation import Say
from disinherit.server.store import CoordinatorStore
from disinherit.server.transport import Answer, Ask, Transport
from disinherit.v1 import unlearning_pb2 as pb


def destroy_due(
    store: CoordinatorStore, lease: Lease, transport: Transport, timeout: float, say: Say
) -> None:
    """Ask the owners of versions whose windows have passed to destroy them.

    Args:
        store: graph, requests and tasks.
        lease: the right to drive the campaign.
        transport: the way to the owners.
        timeout: seconds to wait for an owner's answer.
        say: told what is happening.

    Raises:
        StoreError: if the lease was lost.
    """
    due = store.due_destructions(lease.request_id).get(lease.request_id, [])
    if not due:
        return
    records = store.records(due)
    digest = request_digest(store.request(lease.request_id))
    messages: dict[str, pb.DestroyTask] = {}
    for model in due:
        owner = records[model].owner
        message = messages.setdefault(
            owner, pb.DestroyTask(request_id=lease.request_id, request_digest=digest)
        )
        message.models.add(model_id=model, digest=records[model].digest)
    say("the retention window has passed: destroying what was superseded")
    asks = [Ask(owner, "train.destroy", message) for owner, message in messages.items()]
    for answer in transport.ask(asks, timeout):
        if not answer.unreachable:
            found = _destroyed(records, answer)
            store.record_destruction(lease.request_id, found, lease=lease)
        say(one_line(answer.error) or f"{answer.ask.owner} answered")


def _destroyed(records: Mapping[str, ModelRecord], answer: Answer) -> list[DestroyedModel]:
    try:
        return list(_read(records, answer))
    except Exception as error:  # one owner's answer must not end the others
        reason = unhandled(answer, error)
        asked = cast("pb.DestroyTask", answer.ask.task).models
        return [DestroyedModel(model.model_id, refusal=reason) for model in asked]


def _read(records: Mapping[str, ModelRecord], answer: Answer) -> Iterable[DestroyedModel]:
    reply, error = reply_of(answer, pb.DestroyReply)
    results = {result.model_id: result for result in reply.models} if reply is not None else {}
    for model in cast("pb.DestroyTask", answer.ask.task).models:
        id, result = model.model_id, results.get(model.model_id)
        expected = records[id].digest
        refusal = error or refusal_of(result, expected, "destroyed")
        if result is None or refusal:
            yield DestroyedModel(id, refusal=refusal)
        else:
            yield DestroyedModel(id, digest=expected, held_by=one_line(result.held_by)[:128])
