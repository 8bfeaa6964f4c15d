"""The version that a request makes of a model."""

from dataclasses import replace

from disinherit.common.graph.records import ModelRecord, ModelStatus
from disinherit.common.graph.successor_ids import successor_id
from disinherit.v1 import unlearning_pb2 as pb


def make_successor(
    record: ModelRecord,
    task: pb.UnlearnTask,
    digest: str,
    fisher_digest: str = "",
    made_us: int = 0,
) -> ModelRecord:
    """Return the record of what a request makes of a model.

    Args:
        record: the model.
        task: the request's message.
        digest: `weights_digest` of the new weights.
        fisher_digest: that of their Fisher summary.
        made_us: when it was made before, if it is made again.
    """
    created_us = made_us or task.created_us
    return replace(
        record,
        id=successor_id(record.id, task.request_id),
        digest=digest,
        created_us=max(created_us, record.created_us + 1),
        provenance=None,
        fisher_digest=fisher_digest,
        status=ModelStatus.ACTIVE,
    )
