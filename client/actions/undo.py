"""Roll-back and destruction of versions that a request superseded.

A roll-back computes nothing, since the superseded weights are still stored.  The version becomes
current again, its successor is retired, and the ledger refuses the request from then on.
"""

from disinherit.client.owner.failures import explain
from disinherit.client.owner.owner import Owner
from disinherit.client.store.ledger import Destruction
from disinherit.common.errors import RequestError
from disinherit.common.graph.identifiers import check_id
from disinherit.v1 import unlearning_pb2 as pb


def roll_back(owner: Owner, task: pb.RollBackTask) -> pb.RollBackReply:
    """Roll back every model of a task and return the results.

    A model that cannot be rolled back is unchanged and reported as failed, with the reason.  For
    one that was rolled back before, the recorded result is returned.
    """
    return pb.RollBackReply(models=[_rolled_back(owner, task, model) for model in task.models])


def _rolled_back(owner: Owner, task: pb.RollBackTask, model: pb.ModelRollBack) -> pb.RollBackResult:
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
    """Destroy every version of a task and return the results.

    A version that cannot be destroyed is unchanged and reported as failed, with the reason.  For
    one that was destroyed before, the recorded result is returned.
    """
    models = [model.model_id for model in task.models]
    try:
        check_id(task.request_id, "request id", RequestError)
        before = {model for model in models if owner.store.destroyed(model) is not None}
        expected = {model.model_id: model.digest for model in task.models}
        found = owner.store.destroy(task.request_id, expected, task.request_digest)
    except Exception as error:  # nothing was recorded
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
