"""The owner's side of rolling back: put back the versions that a request superseded.

The superseded weights are still there, so nothing is computed: the version is current again, what
was made of it is retired, and the ledger knows that the request is not to be applied to it again.
"""

from disinherit.client.owner.failures import explain
from disinherit.client.owner.owner import Owner
from disinherit.client.store.ledger import Destruction
from disinherit.common.errors import RequestError
from disinherit.common.graph.records import check_id
from disinherit.v1 import unlearning_pb2 as pb


def roll_back(owner: Owner, task: pb.RollBackTask) -> pb.RollBackReply:
    """Put back every model of a task and return what was done to each.

    A model that cannot be put back is reported as failed, with the reason, and left as it is.  One
    that was put back before is left as it is too, and has what was recorded as the answer.
    """
    return pb.RollBackReply(models=[_one(owner, task, model) for model in task.models])


def _one(owner: Owner, task: pb.RollBackTask, model: pb.ModelRollBack) -> pb.RollBackResult:
    try:
        request_id = check_id(task.request_id, "request id", RequestError)
        owner.store.check_content(request_id, task.request_digest)
        known = owner.store.rolled_back(request_id, model.model_id)
        made = known or owner.store.roll_back(
            request_id, model.model_id, model.digest, task.request_digest
        )
    except Exception as error:  # one model's failure must not touch another
        reason = explain(error, f"roll back model {model.model_id!r}")
        return pb.RollBackResult(model_id=model.model_id, outcome=pb.OUTCOME_FAILED, error=reason)
    return pb.RollBackResult(
        model_id=model.model_id,
        outcome=pb.OUTCOME_ALREADY_APPLIED if known else pb.OUTCOME_APPLIED,
        digest=made.digest,
        retired_id=made.retired_id,
    )


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
