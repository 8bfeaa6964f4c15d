"""How much of what is to be kept a model still tells apart, before and after unlearning."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from disinherit.client.evaluating import confusion_counts
from disinherit.client.owner import Owner, load_network
from disinherit.common.records import ModelRecord


def measure_retain(
    owner: Owner, record: ModelRecord, weights: Mapping[str, Tensor], forgotten: Sequence[int]
) -> float | None:
    """Return the accuracy on all classes but the forgotten ones.

    It is counted on the owner's evaluation split, or on its tuning split where there is no other.

    Args:
        owner: the owner of the model.
        record: the version.
        weights: its weights, or what is to become of them.
        forgotten: class indices; none where samples are to be forgotten.

    Returns:
        The accuracy in [0, 1]; `None` without data of a class that is kept.

    Raises:
        DataError: if the data does not fit the model.
        CheckpointError: if the weights do not fit the owner's network.
    """
    batches = owner.evaluation_data(record)
    if batches is None:
        batches = owner.tuning_data(record)
    if batches is None:
        return None
    network = load_network(owner, record, weights)
    counts = confusion_counts(network, batches, len(record.labels), owner.device)
    kept = torch.ones(len(record.labels), dtype=torch.bool)
    kept[list(forgotten)] = False
    total = int(counts[kept].sum())
    return int(counts.diagonal()[kept].sum()) / total if total else None
