"""The owner's side of the end of a retention window: superseded versions leave the disk."""

from disinherit.client.owner.failures import explain
from disinherit.client.owner.owner import Owner
from disinherit.client.store.ledger import Destruction
from disinherit.common.errors import RequestError
from disinherit.common.graph.records import check_id
from disinherit.v1 import unlearning_pb2 as pb


def destroy(owner: Owner, task: pb.DestroyTask) -> pb.DestroyReply:
    """Destroy every version of a task and return what was done to each.

    One that cannot be destroyed is reported as failed, with the reason, and left as it is.  One
    that was destroyed before has what was recorded as the answer.
    """
    models = [model.model_id for model in task.models]
    try:
        check_id(task.request_id, "request id", RequestError)
        before = {model for model in models if owner.store.destroyed(model) is not None}
        expected = {model.model_id: model.digest for model in task.models}
        found = owner.store.destroy(task.request_id, expected, task.request_digest)
    except Exception as error:  # nothing is recorded then
        reason = explain(error, "destroy superseded models")
        return pb.DestroyReply(models=[_failed(model, reason) for model in models])

    def result(model: str) -> pb.DestroyResult:
        if model in found.refused:
            return _failed(model, found.refused[model])
        return _destroyed(found.done[model], again=model in before)

    return pb.DestroyReply(models=[result(model) for model in models])


def _destroyed(made: Destruction, *, again: bool) -> pb.DestroyResult:
    return pb.DestroyResult(
        model_id=made.model_id,
        outcome=pb.OUTCOME_ALREADY_APPLIED if again else pb.OUTCOME_APPLIED,
        digest=made.digest,
        held_by=made.held_by,
    )


def _failed(model_id: str, reason: str) -> pb.DestroyResult:
    return pb.DestroyResult(model_id=model_id, outcome=pb.OUTCOME_FAILED, error=reason)
