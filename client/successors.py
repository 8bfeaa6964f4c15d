"""The version that a request makes of a model."""

import hashlib
from dataclasses import replace

from disinherit.common.records import ModelRecord, ModelStatus
from disinherit.v1 import unlearning_pb2 as pb

_ID_LENGTH = 128
"""Of a model id, at most."""


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


def successor_id(model_id: str, request_id: str) -> str:
    """Return the id of the version that a request makes of a model.

    It names both.  Where that is too long for an id, as after many requests, its beginning stands
    with a digest of the whole.

    Example:
        >>> successor_id("r6", "forget-cats")
        'r6~forget-cats'
        >>> len(successor_id("m" * 128, "forget-cats"))
        128
    """
    full = f"{model_id}~{request_id}"
    if len(full) <= _ID_LENGTH:
        return full
    digest = hashlib.sha256(full.encode()).hexdigest()[:32]
    return f"{full[: _ID_LENGTH - len(digest) - 1]}~{digest}"
