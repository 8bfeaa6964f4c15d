"""Unlearning (FIUn) in an owner's models.

For each model: check its digest and the ledger, dampen it, measure the outcome, and commit weights
and ledger entry together.  The failure of one model does not affect the others.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from disinherit.client.dampening.many import Stacking
from disinherit.client.dampening.one import dampen_model, make_successor
from disinherit.client.dampening.summaries import FisherSummary
from disinherit.client.dampening.task_inputs import TaskInputs
from disinherit.client.dampening.unlearned_model import UnlearnedModel
from disinherit.client.deltas.changing import change_model
from disinherit.client.deltas.inheriting import RefusedModel
from disinherit.client.deltas.rebuilding import recompute
from disinherit.client.outcome.outcomes import Decided, decide, nothing_kept
from disinherit.client.owner.failures import explain
from disinherit.client.owner.owner import Owner
from disinherit.client.privacy.acceptance import ANYBODY, AcceptancePolicy
from disinherit.client.privacy.remaining import as_trained, training_data
from disinherit.client.store.checks import check_not_rolled_back
from disinherit.client.store.ledger import Commit
from disinherit.client.store.objects import fishers_digest
from disinherit.common.errors import InputError, RequestError, StoreError
from disinherit.common.graph.identifiers import check_id
from disinherit.common.graph.labels import class_indices
from disinherit.common.graph.proto import record_to_proto
from disinherit.common.graph.records import ModelRecord
from disinherit.common.wire.messages import packets_for
from disinherit.v1 import unlearning_pb2 as pb

_log = logging.getLogger(__name__)


def unlearn(
    owner: Owner, task: pb.UnlearnTask, acceptance: AcceptancePolicy = ANYBODY
) -> pb.UnlearnReply:
    """Dampen every model of a task and return the results.

    A model that cannot be dampened is unchanged and reported as failed, with the reason.  One that
    would not forget, or would lose too much, is unchanged and has that outcome.  If the request was
    applied before, the recorded result is returned, with outcome `OUTCOME_ALREADY_APPLIED`.

    Args:
        owner: the owner of the models.
        task: the message.
        acceptance: conditions on changes of others, added to the owner's own.
    """
    try:
        owner.store.check_content(task.request_id, task.request_digest)
        opened = TaskInputs(owner, task, acceptance)
    except (InputError, StoreError) as error:
        return pb.UnlearnReply(
            models=[_failed(model.model_id, str(error)) for model in task.models]
        )
    with opened as inputs:
        together = Stacking(inputs).unlearn(task.models)

        def result(model: pb.ModelTask) -> pb.ModelResult:
            if model.model_id in together:  # a second mention finds the ledger entry
                return together.pop(model.model_id)
            return _unlearned(inputs, model)

        reply = pb.UnlearnReply()
        for model in task.models:  # one by one, so that no result is held beside its copy in there
            reply.models.append(result(model))
        return reply


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
    packets = packets_for(task, model)
    classes = tuple(dict.fromkeys(name for packet in packets for name in packet.classes))
    nothing = nothing_kept(owner, record, classes)
    if nothing:
        return _untouched(task, pb.ModelResult(model_id=record.id, error=nothing))
    made: UnlearnedModel | RefusedModel
    if model.shares:
        made = change_model(inputs, record, model, samples)
        if isinstance(made, RefusedModel):
            return _untouched(task, made.result)
    else:
        again = _computed_again(inputs, model, record, classes, samples)
        if isinstance(again, pb.ModelResult):
            return again
        packet, alike = inputs.packet(model), inputs.alike(model)
        try:
            named = inputs.left_out(record, samples)
            made = dampen_model(owner, record, packet, inputs.method, named, task.request_id, alike)
        except InputError as error:
            if not again:
                raise
            raise InputError(f"{error} {again}") from error
    with made:
        started = time.perf_counter()
        decided = decide(inputs, model, record, classes, made)
        return _commit(inputs, model, record, made, decided, samples, started)


def _computed_again(
    inputs: TaskInputs,
    model: pb.ModelTask,
    record: ModelRecord,
    classes: Sequence[str],
    samples: Sequence[str] | None,
) -> pb.ModelResult | str:
    """Compute a version again from its parents, where its owner's data shows that it forgets so.

    Returns:
        Its result.  If it is to be dampened like any other, a sentence on why it was not stored as
        computed again; `""` if that was not possible.
    """
    if not model.HasField("rebuilding"):
        return ""
    owner, request = inputs.owner, inputs.task.request_id
    made = recompute(owner, record, request, model.rebuilding)
    if made is None:
        return ""
    started = time.perf_counter()
    decided = decide(inputs, model, record, classes, made)
    unmeasured = decided.measured.undecided
    if decided.outcome == pb.OUTCOME_APPLIED and not unmeasured:
        return _commit(inputs, model, record, made, decided, samples, started)
    shown = "it has not forgotten, or would lose too much"
    if decided.outcome == pb.OUTCOME_APPLIED:
        shown = "no data of its owner shows whether it forgets: give its owner evaluation data"
    _log.info("model %s is not kept as computed again: %s", record.id, decided.reason or shown)
    return f"Computed again from its parents, {shown}."


def _commit(
    inputs: TaskInputs,
    model: pb.ModelTask,
    record: ModelRecord,
    made: UnlearnedModel,
    decided: Decided,
    samples: Sequence[str] | None,
    started: float,
) -> pb.ModelResult:
    """Commit weights and ledger entry unless the outcome forbids that.

    `started` is when measuring it began, which counts as part of the work.
    """
    owner, task = inputs.owner, inputs.task
    if samples is not None:
        made.result.unknown_samples = len(model.samples) - len(samples)
    result = _with(made.result, task, decided)
    if not decided.stored:
        result.apply_seconds += time.perf_counter() - started
        return result
    # The successor inherits the summary from before dampening, without the forgotten classes.  It
    # is often the only one, since the data may be gone.
    forgotten = class_indices(record.labels, decided.forgotten.classes)
    keeps = made.keeps_summary and not forgotten
    summary = made.summary
    if made.keeps_summary and forgotten and (known := owner.store.fishers(record.id)) is not None:
        summary = FisherSummary(*known)
    fishers = summary.fishers.without(forgotten) if summary is not None else None
    successor = make_successor(record, task, made.digest, made_us=model.created_us)
    digest = fishers_digest(fishers) if fishers else record.fisher_digest if keeps else ""
    result.successor.CopyFrom(record_to_proto(replace(successor, fisher_digest=digest)))
    application = Commit(
        request_id=task.request_id,
        model_id=record.id,
        expected_digest=record.digest,
        successor=successor,
        weights=made.weights,
        result=result.SerializeToString(deterministic=True),
        fishers=fishers,
        fisher_scope=summary.scope if summary is not None else "",
        keeps_summary=keeps,
        keeps_curvature=_keeps_curvature(owner, record, model, forgotten),
        # Its own change without those of other roots, to be sent again.
        keeps_prepared=len(model.shares) > 1 and any(share.own for share in model.shares),
        request_digest=task.request_digest,
        forgotten=decided.forgotten,
    )
    stored = owner.store.apply(application).result
    if stored != application.result:  # another process was faster
        return _recorded(stored)
    result.apply_seconds += time.perf_counter() - started
    return result


def _keeps_curvature(
    owner: Owner, record: ModelRecord, model: pb.ModelTask, forgotten: Sequence[int]
) -> bool:
    """Whether a successor inherits the curvature, which cannot be measured again.

    It is of the model's own training data.  So it goes where some of that is to be forgotten: what
    samples and classes add to it, and to the basis that it is in, would stay.
    """
    own = bool(model.samples) or any(share.own for share in model.shares)
    if own or forgotten or not owner.store.has_curvature(record.id):
        return False
    return training_data(owner, as_trained(owner, record)) is None


def _untouched(task: pb.UnlearnTask, result: pb.ModelResult) -> pb.ModelResult:
    """Return the result of a model that is left as it is, with the reason as its error."""
    result.outcome, result.remedy = pb.OUTCOME_INEFFECTIVE, pb.REMEDY_REFUSED
    result.request_digest = task.request_digest
    return result


def _with(result: pb.ModelResult, task: pb.UnlearnTask, decided: Decided) -> pb.ModelResult:
    """Return a result with decision and measurements."""
    measured = decided.measured
    result.outcome, result.error = decided.outcome, decided.reason
    result.cleared_before = decided.cleared_before
    result.request_digest = task.request_digest
    if not decided.stored:
        harmful = decided.outcome == pb.OUTCOME_HARMFUL
        result.remedy = pb.REMEDY_REFUSED if harmful else pb.REMEDY_UNTOUCHED
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
