"""Confusion counts of the owner's models on its evaluation split."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from disinherit.client.owner import Batches, Owner
from disinherit.client.unlearning import dampen_model
from disinherit.common.checkpoints import weights_digest
from disinherit.common.errors import DataError, DisinheritError
from disinherit.common.records import ModelRecord
from disinherit.v1 import unlearning_pb2 as pb


def evaluate(owner: Owner, task: pb.EvaluateTask) -> pb.EvaluateReply:
    """Return the confusion counts of every listed model.

    The weights are read back from disk and their digest is reported, so an answer also verifies
    what is stored.  A model that cannot be evaluated is reported with the reason.
    """
    return pb.EvaluateReply(models=[_one(owner, model_id) for model_id in task.model_ids])


@torch.inference_mode()
def confusion_counts(
    model: nn.Module, batches: Batches, classes: int, device: torch.device
) -> Tensor:
    """Count true against predicted classes.

    Args:
        model: a classifier; evaluated in eval mode.
        batches: inputs and class indices.
        classes: number of classes C.
        device: where to compute.

    Returns:
        Counts `[C, C]` as int64; row = true class, column = predicted class.
    """
    model = model.to(device).eval()
    counts = torch.zeros(classes * classes, dtype=torch.int64, device=device)
    for inputs, targets in batches:
        predicted = model(inputs.to(device)).argmax(dim=1)
        counts += torch.bincount(
            targets.to(device) * classes + predicted, minlength=classes * classes
        )
    return counts.view(classes, classes).cpu()


def preview(owner: Owner, task: pb.UnlearnTask) -> pb.EvaluateReply:
    """Return what the listed models would answer after a task; nothing is stored."""
    return pb.EvaluateReply(models=[_preview_one(owner, task, model) for model in task.models])


def _one(owner: Owner, model_id: str) -> pb.Evaluation:
    try:
        record = owner.store.record(model_id)
        return _evaluation(owner, record, owner.store.weights(record.id))
    except DisinheritError as error:
        return pb.Evaluation(model_id=model_id, error=str(error))


def _preview_one(owner: Owner, task: pb.UnlearnTask, model: pb.ModelTask) -> pb.Evaluation:
    try:
        record = owner.store.record(model.model_id)
        _, weights = dampen_model(owner, record, task.fishers[model.fisher], task.method)
        return _evaluation(owner, replace(record, digest=weights_digest(weights)), weights)
    except DisinheritError as error:
        return pb.Evaluation(model_id=model.model_id, error=str(error))


def _evaluation(owner: Owner, record: ModelRecord, weights: Mapping[str, Tensor]) -> pb.Evaluation:
    batches = owner.evaluation_data(record)
    if batches is None:
        raise DataError(f"Expected evaluation data for model {record.id!r}, but there is none.")
    network = owner.network(record)
    network.load_state_dict(weights)
    counts = confusion_counts(network, batches, len(record.labels), owner.device)
    return pb.Evaluation(
        model_id=record.id,
        digest=record.digest,
        labels=record.labels,
        confusion=counts.flatten().tolist(),
    )
