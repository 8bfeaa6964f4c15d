"""Confusion counts of the owner's models on its evaluation split."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from disinherit.client.dampening.one import dampen_model
from disinherit.client.dampening.task_inputs import TaskInputs
from disinherit.client.dampening.unlearned_model import UnlearnedModel
from disinherit.client.deltas.changing import change_model
from disinherit.client.deltas.inheriting import RefusedModel
from disinherit.client.owner.batches import ShrinkingBatches, check_logits
from disinherit.client.owner.failures import explain
from disinherit.client.owner.owner import Batches, Owner, load_network
from disinherit.common.errors import StoreError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.inputs import to_device
from disinherit.v1 import unlearning_pb2 as pb


def evaluate(owner: Owner, task: pb.EvaluateTask) -> pb.EvaluateReply:
    """Return the confusion counts of every listed model.

    The reply has the digest of the weights read back from disk, so it also verifies the stored
    version.  A task may ask for digests only.  A model that cannot be evaluated has the reason.
    """

    def one(model_id: str) -> pb.Evaluation:
        record = known.get(model_id) if task.presence_only else owner.store.record(model_id)
        if record is None:
            raise StoreError(f"Expected a model in the store, but {model_id!r} is not there.")
        if task.presence_only:
            return pb.Evaluation(model_id=record.id, digest=record.digest)
        weights = owner.store.weights(record.id)
        if task.digests_only:  # the store compared the weights with the record
            return pb.Evaluation(model_id=record.id, digest=record.digest)
        return _evaluation(owner, record, weights)

    known = {record.id: record for record in owner.store.records()}
    reply = pb.EvaluateReply(models=[_evaluated(m, partial(one, m)) for m in task.model_ids])
    for found in reply.models:
        found.missing = found.model_id not in known
    return reply


def preview(owner: Owner, task: pb.UnlearnTask) -> pb.EvaluateReply:
    """Return the confusion counts that the listed models would have after a task; store nothing."""

    def one(model: pb.ModelTask) -> pb.Evaluation:
        record = inputs.record(model)
        samples = inputs.samples(record, model)
        made: UnlearnedModel | RefusedModel
        if model.shares:
            made = change_model(inputs, record, model, samples)
            if isinstance(made, RefusedModel):
                return pb.Evaluation(model_id=record.id, error=made.result.error)
        else:
            packet, alike = inputs.packet(model), inputs.alike(model)
            named = inputs.left_out(record, samples)
            made = dampen_model(owner, record, packet, inputs.method, named, task.request_id, alike)
        with made:
            return _evaluation(owner, replace(record, digest=made.digest), made.weights)

    with TaskInputs(owner, task) as inputs:
        return pb.EvaluateReply(
            models=[_evaluated(m.model_id, partial(one, m)) for m in task.models]
        )


def confusion_counts(
    model: nn.Module, batches: Batches, classes: int, device: torch.device
) -> Tensor:
    """Return the confusion counts of a classifier.

    Args:
        model: the classifier; evaluated in eval mode.
        batches: inputs and class indices.
        classes: number of classes C.
        device: device of the computation.

    Returns:
        Counts `[C, C]` as int64; row = true class, column = predicted class.

    Raises:
        DataError: if the model does not have C outputs, or a class index is not in `[0, C)`.
    """
    model = model.to(device).eval()

    @torch.inference_mode()
    def count(fitting: Iterable[tuple[tuple[Tensor, ...], Tensor]]) -> Tensor:
        counts = torch.zeros(classes * classes, dtype=torch.int64)
        for inputs, targets in fitting:
            if len(targets):
                logits = model(*to_device(inputs, device))
                check_logits(logits, targets, classes)
                pairs = targets.cpu() * classes + logits.argmax(dim=1).cpu()
                counts += torch.bincount(pairs, minlength=classes * classes)
        return counts.view(classes, classes)

    return ShrinkingBatches(batches).run(count)


def _evaluated(model_id: str, evaluation: Callable[[], pb.Evaluation]) -> pb.Evaluation:
    try:
        return evaluation()
    except Exception as error:  # including errors of the owner's loaders and networks
        reason = explain(error, f"evaluate model {model_id!r}")
        return pb.Evaluation(model_id=model_id, error=reason)


def _evaluation(owner: Owner, record: ModelRecord, weights: Mapping[str, Tensor]) -> pb.Evaluation:
    batches = owner.evaluation_data(record)
    if batches is None:
        # The digest of the weights on disk was checked, so it still verifies the version.
        reason = f"Expected evaluation data for model {record.id!r}, but got none."
        return pb.Evaluation(model_id=record.id, digest=record.digest, error=reason)
    network = load_network(owner, record, weights)
    counts = confusion_counts(network, batches, len(record.labels), owner.device)
    return pb.Evaluation(
        model_id=record.id,
        digest=record.digest,
        labels=record.labels,
        confusion=counts.flatten().tolist(),
    )
