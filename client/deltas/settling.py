"""What follows an addition: statistics of the model's own data, steps of repair, cleared rows.

The model's network is in memory for it, with the staged weights; what changes is written anew.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from disinherit.client.dampening.repair import repair
from disinherit.client.dampening.summaries import FisherSummary, class_fishers
from disinherit.client.dampening.task_inputs import TaskInputs
from disinherit.client.deltas.fitting import is_all
from disinherit.client.deltas.statistics import norm_layers, recompute_statistics, statistics_of
from disinherit.client.owner.choosing import request_seed
from disinherit.client.owner.owner import Owner, load_network
from disinherit.client.privacy.remaining import (
    cleared_classes,
    split_training_data,
    training_data,
)
from disinherit.client.store.structure import Structure
from disinherit.common.errors import NoSamplesError
from disinherit.common.fiun.unlearning import clear_rows
from disinherit.common.graph.records import ModelRecord
from disinherit.common.tensors.shards import ShardWriter
from disinherit.v1 import unlearning_pb2 as pb


@torch.no_grad()
def settle_in(
    inputs: TaskInputs,
    record: ModelRecord,
    structure: Structure,
    staged: ShardWriter,
    samples: Sequence[str] | None,
    scope: Collection[str],
    result: pb.ModelResult,
) -> None:
    """Compute running statistics again and take the steps of repair, in the staged weights.

    Both need retained data of the model, without samples that any root of the request is to forget;
    without any, it stays as it is.  So does what is frozen or out of scope.

    Args:
        inputs: inputs from the request's message.
        record: the version.
        structure: its head and tied parameters.
        staged: its new weights.
        samples: ids of its own training samples to forget; `None` for no list.
        scope: its names in scope.
        result: gets the number of steps.

    Raises:
        DataError: if the repair diverges, or the samples cannot be told from the others.
        CheckpointError: if the weights do not fit the network, or cannot be written.
    """
    owner, steps = inputs.owner, inputs.method.repair_steps
    kept = training_data(owner, record)
    if kept is None:
        return
    if named := inputs.left_out(record, samples):
        kept = split_training_data(owner, record, named)[1]
        if not any(len(targets) for _, targets in kept):
            return
    network = load_network(owner, record, staged.opened())
    if is_all(inputs.method.scope) and norm_layers(network):
        recompute_statistics(network, kept, owner.device)
        for name, value in statistics_of(network).items():
            staged.write(name, value.to(staged.kinds[name][0]))
    trainable = {
        name: parameter
        for name, parameter in network.named_parameters()
        if name in scope and parameter.requires_grad
    }
    if not steps or not trainable:
        return
    new = repair(
        network,
        trainable,
        kept,
        (),
        steps=steps,
        seed=request_seed(inputs.task.request_id, record.id),
        device=owner.device,
    )
    for name, value in new.items():
        for alias in structure.names_of(name):
            staged.write(alias, value.cpu().to(staged.kinds[alias][0]))
    result.repair_steps = steps


def clear_again(
    owner: Owner, record: ModelRecord, structure: Structure, staged: ShardWriter
) -> None:
    """Put rows of the head that earlier requests took out at its bottom again.

    Args:
        owner: the owner of the model.
        record: the version.
        structure: its head.
        staged: its new weights.
    """
    cleared = cleared_classes(owner, record)
    if not cleared or structure.head is None:
        return
    stored = staged.opened()
    head = {name: stored[name] for name in structure.head.parameters if name in stored}
    clear_rows(head, structure.head.names, cleared)
    for name, value in head.items():
        staged.write(name, value)


def summary_without(
    owner: Owner, record: ModelRecord, weights: Mapping[str, Tensor], samples: Sequence[str]
) -> FisherSummary | None:
    """Return the Fisher summary of a root's new version.

    `None` if the one before has none, or no sample is left to compute one of.

    Its samples are in the summary of before, so it is computed again without them.  A descendant
    keeps that of before, which has nothing of the roots' samples.

    Args:
        owner: the owner of the root.
        record: its version.
        weights: its new weights.
        samples: ids of the samples that it forgets.
    """
    known = owner.store.fishers(record.id)
    if known is None:
        return None
    fishers, scope = known
    _, retain = split_training_data(owner, record, samples)
    network = load_network(owner, record, weights)
    try:
        left = class_fishers(owner, record, network, list(fishers.sums), retain)
    except NoSamplesError:
        return None
    return FisherSummary(left, scope)
