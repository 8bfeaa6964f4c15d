"""Unlearning (FIUn) in an owner's models.

For each model: check its digest and the ledger, dampen it, measure the outcome, and commit weights
and ledger entry together.  The failure of one model does not affect the others.
"""

import logging
import time
from dataclasses import replace

from disinherit.client.dampening.many import Stacking
from disinherit.client.dampening.one import dampen_model, make_successor
from disinherit.client.dampening.task_inputs import TaskInputs
from disinherit.client.outcome.outcomes import Decided, decide, nothing_kept
from disinherit.client.owner.failures import explain
from disinherit.client.owner.owner import Owner
from disinherit.client.store.checks import check_not_rolled_back
from disinherit.client.store.ledger import Commit
from disinherit.client.store.objects import fishers_digest
from disinherit.common.errors import InputError, RequestError, StoreError
from disinherit.common.graph.labels import class_indices
from disinherit.common.graph.proto import record_to_proto
from disinherit.common.graph.records import check_id
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.v1 import unlearning_pb2 as pb

_log = logging.getLogger(__name__)


def unlearn(owner: Owner, task: pb.UnlearnTask) -> pb.UnlearnReply:
    """Dampen every model of a task and return the results.

    A model that cannot be dampened is unchanged and reported as failed, with the reason.  One that
    would not forget, or would lose too much, is unchanged and has that outcome.  If the request was
    applied before, the recorded result is returned, with outcome `OUTCOME_ALREADY_APPLIED`.
    """
    try:
        owner.store.check_content(task.request_id, task.request_digest)
        inputs = TaskInputs(owner, task)
    except (InputError, StoreError) as error:
        return pb.UnlearnReply(
            models=[_failed(model.model_id, str(error)) for model in task.models]
        )
    together = Stacking(inputs).unlearn(task.models)

    def result(model: pb.ModelTask) -> pb.ModelResult:
        if model.model_id in together:  # a second mention finds the ledger entry
            return together.pop(model.model_id)
        return _unlearned(inputs, model)

    return pb.UnlearnReply(models=[result(model) for model in task.models])


def _unlearned(inputs: TaskInputs, model: pb.ModelTask) -> pb.ModelResult:
    try:
        return _apply(inputs, model)
    except Exception as error:  # including errors of the owner's loaders and networks
        reason = explain(error, f"unlearn in model {model.model_id!r}")
        _log.warning(
            "request %r was not applied to model %r: %s",
            inputs.task.request_id,
            model.model_id,
            reason,
        )
        return _failed(model.model_id, reason)


def _failed(model_id: str, reason: str) -> pb.ModelResult:
    return pb.ModelResult(model_id=model_id, outcome=pb.OUTCOME_FAILED, error=reason)


def _apply(inputs: TaskInputs, model: pb.ModelTask) -> pb.ModelResult:
    owner, task = inputs.owner, inputs.task
    check_id(task.request_id, "request id", RequestError)
    record = inputs.record(model)
    entry = owner.store.applied(task.request_id, record.digest, record.id)
    if entry is not None:
        return _recorded(entry.result)
    check_not_rolled_back(owner.store.rolled_back(task.request_id, record.id))
    samples = inputs.samples(record, model)
    packet, alike = inputs.packet(model), inputs.alike(model)
    nothing = nothing_kept(owner, record, packet)
    if nothing:
        return pb.ModelResult(
            model_id=record.id,
            outcome=pb.OUTCOME_INEFFECTIVE,
            error=nothing,
            request_digest=task.request_digest,
        )
    dampened = dampen_model(owner, record, packet, inputs.method, samples, task.request_id, alike)
    started = time.perf_counter()
    if samples is not None:
        dampened.result.unknown_samples = len(model.samples) - len(samples)
    decided = decide(inputs, model, record, packet, dampened)
    result = _with(dampened.result, task, decided)
    if not decided.stored:
        result.apply_seconds += time.perf_counter() - started
        return result
    # The successor inherits the summary from before dampening, without the forgotten classes.  It
    # is often the only one, since the data may be gone.
    forgotten = class_indices(record.labels, decided.forgotten.classes)
    fishers = dampened.summary.fishers.without(forgotten)
    successor = make_successor(
        record, task, weights_digest(dampened.weights), made_us=model.created_us
    )
    result.successor.CopyFrom(
        record_to_proto(replace(successor, fisher_digest=fishers_digest(fishers)))
    )
    application = Commit(
        request_id=task.request_id,
        model_id=record.id,
        expected_digest=record.digest,
        successor=successor,
        weights=dampened.weights,
        result=result.SerializeToString(deterministic=True),
        fishers=fishers,
        fisher_scope=dampened.summary.scope,
        request_digest=task.request_digest,
        forgotten=decided.forgotten,
    )
    stored = owner.store.apply(application).result
    if stored != application.result:  # another process was faster
        return _recorded(stored)
    result.apply_seconds += time.perf_counter() - started
    return result


def _with(result: pb.ModelResult, task: pb.UnlearnTask, decided: Decided) -> pb.ModelResult:
    """Return a result with decision and measurements."""
    measured = decided.measured
    result.outcome, result.error = decided.outcome, decided.reason
    result.cleared_before = decided.cleared_before
    result.request_digest = task.request_digest
    if measured.forget is not None:
        result.forget.CopyFrom(measured.forget)
    if measured.retain_before is not None and measured.retain_after is not None:
        result.retain_before, result.retain_after = measured.retain_before, measured.retain_after
        result.retain_samples = measured.retain_samples
    return result


def _recorded(result: bytes) -> pb.ModelResult:
    """Return the recorded result, as already applied unless it was ineffective."""
    recorded = pb.ModelResult.FromString(result)
    if recorded.outcome != pb.OUTCOME_INEFFECTIVE:
        recorded.outcome = pb.OUTCOME_ALREADY_APPLIED
    return recorded
