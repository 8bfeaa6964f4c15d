"""Samples to forget and to keep, for models that are measured on those of a root."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from disinherit.client.dampening.task_inputs import TaskInputs
from disinherit.client.owner.owner import Batches
from disinherit.client.privacy.remaining import split_training_data
from disinherit.common.errors import DisinheritError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.inputs import Inputs, take_rows
from disinherit.v1 import unlearning_pb2 as pb


def find_samples(
    inputs: TaskInputs, model: pb.ModelTask, record: ModelRecord
) -> tuple[Batches, Batches] | tuple[None, None]:
    """Return the samples to forget and those to keep, with the model's own class indices.

    The owner of a root has them; the owner of a descendant may have them for a root of its own.

    Args:
        inputs: inputs from the request's message.
        model: the message's entry for the model.
        record: the model.

    Returns:
        Batches of both; `None` twice if the owner has no samples to forget.

    Raises:
        DataError: if the owner of a root cannot provide them.
    """
    owner, task = inputs.owner, inputs.task
    own = inputs.samples(record, model)
    if own is not None:
        return split_training_data(owner, record, own)
    for root in task.roots:
        if root.model_id not in inputs.held:
            continue
        origin = owner.store.record(root.model_id)
        try:
            ids = inputs.samples(origin, root)
            if ids is None:
                continue
            forget, kept = split_training_data(owner, origin, ids)
        except DisinheritError:  # the data is gone, so nothing can be measured
            continue
        names = origin.labels, record.labels
        return _Renumbered(forget, *names), _Renumbered(kept, *names)
    return None, None


@dataclass(frozen=True, slots=True, eq=False)
class _Renumbered:
    """Batches with class indices of another label space; samples of other classes are left out."""

    batches: Batches
    source: tuple[str, ...]
    target: tuple[str, ...]

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        places = {name: place for place, name in enumerate(self.target)}
        numbers = torch.tensor([places.get(name, -1) for name in self.source])
        for inputs, targets in self.batches:
            renumbered = numbers[targets.cpu()]
            kept = renumbered >= 0
            if kept.any():
                yield take_rows(inputs, kept), renumbered[kept]
