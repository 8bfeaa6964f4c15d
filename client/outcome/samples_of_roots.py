"""Samples to forget and to keep, for models that are measured on those of a root."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from disinherit.client.dampening.task_inputs import TaskInputs
from disinherit.client.owner.owner import Batches
from disinherit.client.privacy.remaining import (
    as_trained,
    cleared_samples,
    split_training_data,
)
from disinherit.common.errors import DisinheritError
from disinherit.common.graph.identifiers import line_name
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.inputs import Inputs, take_rows
from disinherit.common.wire.messages import sources_of
from disinherit.v1 import unlearning_pb2 as pb


def find_samples(
    inputs: TaskInputs, model: pb.ModelTask, record: ModelRecord
) -> tuple[Batches, Batches] | tuple[None, None]:
    """Return the samples to forget and those to keep, with the model's own class indices.

    The owner of a root has them; the owner of a descendant may have them for roots of its own.  Of
    several, all are taken, and each sample once.

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
    forget: list[Batches] = []
    kept: list[Batches] = []
    seen: set[str] = set()
    own = inputs.samples(record, model)
    if own is not None:
        seen.update(own)
        chosen, rest = _split(inputs, record, own)
        forget.append(chosen)
        kept.append(rest)
    sources = sources_of(task, model)
    for root in task.roots:
        is_own = own is not None and line_name(root.model_id) == line_name(record.id)
        if is_own or root.model_id not in sources & inputs.held:
            continue
        origin = as_trained(owner, owner.store.record(root.model_id))
        try:
            ids = inputs.samples(origin, root)
            if not (more := sorted(set(ids or ()) - seen)):
                continue
            seen.update(more)
            chosen, rest = _split(inputs, origin, more)
        except DisinheritError:  # the data is gone, so nothing can be measured
            continue
        names = origin.labels, record.labels
        forget.append(_Renumbered(chosen, *names))
        kept.append(_Renumbered(rest, *names))
    return (_Chained(tuple(forget)), _Chained(tuple(kept))) if forget else (None, None)


def _split(
    inputs: TaskInputs, record: ModelRecord, samples: Sequence[str]
) -> tuple[Batches, Batches]:
    """Return some samples of a model, and those of its own that no root is to forget."""
    chosen, rest = split_training_data(inputs.owner, record, samples)
    named = inputs.own_samples(record)
    if not named.issubset(samples):
        rest = split_training_data(inputs.owner, record, sorted(named.union(samples)))[1]
    return chosen, rest


def count_unnamed(inputs: TaskInputs, model: pb.ModelTask, record: ModelRecord) -> int:
    """Return how many samples that its roots are to forget a model was itself trained on, unasked.

    The request names them there, so that nothing takes out what this model learned itself.
    What earlier requests made it forget does not count.

    Args:
        inputs: inputs from the request's message.
        model: the message's entry for the model.
        record: the model, with the provenance of its training (`as_trained`).
    """
    own = inputs.own_samples(record, sources_of(inputs.task, model))
    if own and (listed := inputs.samples(record, model)) is not None:
        own = own.difference(listed)
    if own:
        own = own.difference(cleared_samples(inputs.owner, record, effective=True))
    return len(own)


@dataclass(frozen=True, slots=True, eq=False)
class _Chained:
    """Batches one after the other."""

    parts: tuple[Batches, ...]

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        for part in self.parts:
            yield from part


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
