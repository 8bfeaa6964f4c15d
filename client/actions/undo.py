"""The owner's side of rolling back: put back the versions that a request superseded.

The superseded weights are still there, so nothing is computed: the version is current again, what
was made of it is retired, and the ledger knows that the request is not to be applied to it again.
"""

from disinherit.client.owner.failures import explain
from disinherit.client.owner.owner import Owner
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
