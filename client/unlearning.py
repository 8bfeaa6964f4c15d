"""The owner's side of FIUn: dampen the models it owns with what they inherited.

For each listed model: check that it is the expected version and was not dampened before (ledger),
dampen it, and make weights and ledger entry visible together.  One model's failure never touches
another.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from disinherit.client.checks import check_not_rolled_back
from disinherit.client.dampening import dampen_model, find_task
from disinherit.client.failures import explain
from disinherit.client.objects import fishers_digest
from disinherit.client.owner import Owner
from disinherit.client.store import Application
from disinherit.common.checkpoints import weights_digest
from disinherit.common.fisher import ClassFishers
from disinherit.common.record_proto import record_to_proto
from disinherit.common.records import ModelRecord, ModelStatus, check_id
from disinherit.v1 import unlearning_pb2 as pb

_ID_LENGTH = 128
"""Of a model id, at most."""


def unlearn(owner: Owner, task: pb.UnlearnTask) -> pb.UnlearnReply:
    """Dampen every model of a task and return what was done to each.

    A model that cannot be dampened is reported as failed, with the reason, and left as it is.  One
    that this request was applied to before is left as it is too, and has its recorded result as
    the answer, with outcome `OUTCOME_ALREADY_APPLIED`.
    """
    return pb.UnlearnReply(models=[_one(owner, task, model) for model in task.models])


def _one(owner: Owner, task: pb.UnlearnTask, model: pb.ModelTask) -> pb.ModelResult:
    try:
        return _apply(owner, task, model)
    except Exception as error:  # also what the owner's loaders and networks raise
        reason = explain(error, f"unlearn in model {model.model_id!r}")
        return pb.ModelResult(model_id=model.model_id, outcome=pb.OUTCOME_FAILED, error=reason)


def _apply(owner: Owner, task: pb.UnlearnTask, model: pb.ModelTask) -> pb.ModelResult:
    check_id(task.request_id, "request id")
    record, packet = find_task(owner, task, model)
    entry = owner.store.applied(task.request_id, record.digest, record.id)
    if entry is not None:
        return _recorded(entry.result)
    check_not_rolled_back(owner.store.rolled_back(task.request_id, record.id))
    dampened = dampen_model(owner, record, packet, task.method, model.samples, task.request_id)
    started = time.perf_counter()
    fishers = _remaining(dampened.summary.fishers, record.labels, packet.classes)
    successor = _successor(record, task, dampened.weights)
    result = dampened.result
    result.successor.CopyFrom(
        record_to_proto(replace(successor, fisher_digest=fishers_digest(fishers)))
    )
    application = Application(
        request_id=task.request_id,
        model_id=record.id,
        expected_digest=record.digest,
        successor=successor,
        weights=dampened.weights,
        result=result.SerializeToString(deterministic=True),
        fishers=fishers,
        fisher_scope=dampened.summary.scope,
    )
    stored = owner.store.apply(application).result
    if stored != application.result:  # another process was faster
        return _recorded(stored)
    result.apply_seconds += time.perf_counter() - started
    return result


def _recorded(result: bytes) -> pb.ModelResult:
    recorded = pb.ModelResult.FromString(result)
    recorded.outcome = pb.OUTCOME_ALREADY_APPLIED
    return recorded


def _successor(
    record: ModelRecord, task: pb.UnlearnTask, weights: Mapping[str, Tensor]
) -> ModelRecord:
    return replace(
        record,
        id=successor_id(record.id, task.request_id),
        digest=weights_digest(weights),
        created_us=max(task.created_us, record.created_us + 1),
        provenance=None,
        fisher_digest="",
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


def _remaining(
    fishers: ClassFishers, labels: Sequence[str], forgotten: Sequence[str]
) -> ClassFishers:
    """Return the summary to hand on to the successor: without the forgotten classes.

    It is that of the weights before dampening.  The data may be gone, so there is often no other.
    """
    kept = torch.tensor([name not in forgotten for name in labels])
    sums = {
        name: torch.where(kept.to(value.device).view(-1, *[1] * (value.dim() - 1)), value, 0.0)
        for name, value in fishers.sums.items()
    }
    return ClassFishers(sums, fishers.counts * kept)
