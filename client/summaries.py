"""Registered Fisher summaries: per-class sums of squared gradients over a model's training data.

From a summary any class request is answered with no data access at all; the data may already be
deleted, which is often the very reason for the request.
"""

import time
from collections.abc import Sequence

from torch import nn

from disinherit.client.owner import Owner
from disinherit.common.errors import DisinheritError, FisherError
from disinherit.common.fisher import ClassFishers, fisher_diagonal
from disinherit.common.graph_formats import record_to_proto
from disinherit.common.labels import class_indices
from disinherit.common.packets import encode_fisher
from disinherit.common.records import ModelRecord
from disinherit.common.scope import find_head, resolve_scope
from disinherit.v1 import unlearning_pb2 as pb


def register(owner: Owner, task: pb.RegisterTask) -> pb.RegisterReply:
    """Make sure that the owner's models have Fisher summaries for a scope, and return the models.

    A model whose training data is gone, or that was never trained, is returned without one.

    Raises:
        StoreError: if a listed model does not exist.
        ScopeError: if the scope does not fit a model.
    """
    ids = list(task.model_ids) or [record.id for record in owner.store.records()]
    records = []
    for record in map(owner.store.record, ids):
        network = owner.network(record)
        names = resolve_scope(network, task.scope)
        if not _covers(owner, record, names) and owner.training_data(record) is not None:
            network.load_state_dict(owner.store.weights(record.id))
            summary = fisher_summary(owner, record, network, names)
            record = owner.store.set_fishers(record.id, summary, task.scope)
        records.append(record)
    return pb.RegisterReply(
        owner=owner.store.owner, models=[record_to_proto(record) for record in records]
    )


def forget_fishers(owner: Owner, task: pb.FisherTask) -> pb.FisherReply:
    """Return the Fisher information of the data to forget for every listed root, class by class.

    A root that cannot answer is reported with the reason; the others are answered all the same.
    """
    return pb.FisherReply(roots=[_root_fisher(owner, root, task.method) for root in task.roots])


def fisher_summary(
    owner: Owner, record: ModelRecord, network: nn.Module, names: Sequence[str]
) -> ClassFishers:
    """Return the per-class Fisher sums of a model: the registered ones, else computed now.

    Args:
        owner: the owner of the model.
        record: the model.
        network: its module with its weights.
        names: parameters that the summary must cover.

    Raises:
        FisherError: if there is no summary for them and the training data is gone.
    """
    registered = owner.store.fishers(record.id)
    if registered is not None and set(names) <= registered[0].sums.keys():
        return registered[0]
    batches = owner.training_data(record)
    if batches is None:
        raise FisherError(
            f"Expected a registered Fisher summary of model {record.id!r} for {', '.join(names)}, "
            "or its training data, but the owner has neither. Register the summary while the data "
            "exists."
        )
    return fisher_diagonal(
        network.to(owner.device),
        batches,
        scope=",".join(names),
        per_class=True,
        num_classes=len(record.labels),
        device=owner.device,
    )


def _covers(owner: Owner, record: ModelRecord, names: Sequence[str]) -> bool:
    registered = owner.store.fishers(record.id)
    return registered is not None and set(names) <= registered[0].sums.keys()


def _root_fisher(owner: Owner, root: pb.Root, method: pb.Method) -> pb.RootFisher:
    started = time.perf_counter()
    try:
        record = owner.store.record(root.model_id)
        indices = class_indices(record.labels, root.classes)
        network = owner.network(record)
        network.load_state_dict(owner.store.weights(record.id))
        names = resolve_scope(network, method.scope)
        head = find_head(network)
        fishers = fisher_summary(owner, record, network, names).each(indices)
        packets = [
            encode_fisher(
                {name: fishers[index].values[name] for name in names},
                labels=record.labels,
                head_weight=head.weight,
                head_bias=head.bias or "",
                sources=[record.id],
                classes=[record.labels[index]],
                samples=fishers[index].count,
            )
            for index in indices
        ]
    except DisinheritError as error:
        return pb.RootFisher(model_id=root.model_id, error=str(error))
    return pb.RootFisher(
        model_id=root.model_id, packets=packets, seconds=time.perf_counter() - started
    )
