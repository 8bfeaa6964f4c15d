"""Registered Fisher summaries: per-class sums of squared gradients over a model's training data.

From a summary any class request is answered with no data access at all; the data may already be
deleted, which is often the very reason for the request.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from disinherit.client.failures import explain
from disinherit.client.memory import ShrinkingBatches
from disinherit.client.owner import Owner, load_network
from disinherit.common.errors import FisherError, ScopeError
from disinherit.common.fisher import ClassFishers, fisher_diagonal
from disinherit.common.labels import class_indices
from disinherit.common.packets import encode_fisher
from disinherit.common.record_proto import record_to_proto
from disinherit.common.records import ModelRecord
from disinherit.common.scope import Head, find_head, resolve_scope
from disinherit.v1 import unlearning_pb2 as pb


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """Per-class Fisher sums of a model, and the scope they were computed in."""

    fishers: ClassFishers
    scope: str


def register(owner: Owner, task: pb.RegisterTask) -> pb.RegisterReply:
    """Make sure that the owner's models have Fisher summaries for a scope, and return the models.

    A model whose training data is gone, or that was never trained, is returned without one.

    Raises:
        StoreError: if a listed model does not exist.
        FisherError: if a summary cannot be computed; it names the model, and those registered
            before it stay so.
    """
    ids = list(task.model_ids) or [record.id for record in owner.store.records()]
    records = []
    for record in map(owner.store.record, ids):
        try:
            records.append(_registered(owner, record, task.scope))
        except Exception as error:  # also what the owner's loaders and networks raise
            reason = explain(error, f"compute the Fisher summary of model {record.id!r}")
            raise FisherError(f"Cannot register model {record.id!r}. {reason}") from error
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
) -> Summary:
    """Return the per-class Fisher sums of a model: the registered ones, else computed now.

    Args:
        owner: the owner of the model.
        record: the model.
        network: its module with its weights.
        names: parameters that the summary must cover.

    Raises:
        FisherError: if there is no summary for them and the training data is gone, or gives none.
        CheckpointError: if the registered summary is missing on disk or damaged.
    """
    registered = _covering(owner, record, names)
    if registered is not None:
        return registered
    batches = owner.training_data(record)
    if batches is None:
        raise FisherError(
            f"Expected a registered Fisher summary of model {record.id!r} for {', '.join(names)}, "
            "or its training data, but the owner has neither. Register the summary while the data "
            "exists."
        )
    scope = ",".join(names)
    fishers = ShrinkingBatches(batches).run(
        lambda fitting: fisher_diagonal(
            network.to(owner.device),
            fitting,
            scope=scope,
            per_class=True,
            num_classes=len(record.labels),
            device=owner.device,
        )
    )
    return Summary(fishers, scope)


def _covering(owner: Owner, record: ModelRecord, names: Sequence[str]) -> Summary | None:
    """Return the registered summary if it has all these parameters."""
    registered = owner.store.fishers(record.id)
    if registered is None or not set(names) <= registered[0].sums.keys():
        return None
    return Summary(*registered)


def _registered(owner: Owner, record: ModelRecord, scope: str) -> ModelRecord:
    names = resolve_scope(owner.network(record), scope)
    if _covering(owner, record, names) is not None or owner.training_data(record) is None:
        return record
    network = load_network(owner, record, owner.store.weights(record.id))
    summary = fisher_summary(owner, record, network, names)
    return owner.store.set_fishers(record.id, summary.fishers, scope)


def _root_fisher(owner: Owner, root: pb.Root, method: pb.Method) -> pb.RootFisher:
    started = time.perf_counter()
    try:
        packets = _class_packets(owner, root, method)
    except Exception as error:  # also what the owner's loaders and networks raise
        reason = explain(error, f"compute the Fisher information of model {root.model_id!r}")
        return pb.RootFisher(model_id=root.model_id, error=reason)
    return pb.RootFisher(
        model_id=root.model_id, packets=packets, seconds=time.perf_counter() - started
    )


def _class_packets(owner: Owner, root: pb.Root, method: pb.Method) -> list[pb.FisherPacket]:
    record = owner.store.record(root.model_id)
    indices = class_indices(record.labels, root.classes)
    network = load_network(owner, record, owner.store.weights(record.id))
    names = resolve_scope(network, method.scope)
    head = _head(network)
    summary = fisher_summary(owner, record, network, names)
    absent = [record.labels[c] for c in indices if not summary.fishers.counts[c]]
    if absent:
        raise FisherError(
            f"Expected root {record.id!r} to be trained directly on what is to be forgotten, but "
            f"it has no samples of {', '.join(absent)}. Name the models that were as roots."
        )
    fishers = summary.fishers.each(indices)
    return [
        encode_fisher(
            {name: fishers[index].values[name] for name in names},
            labels=record.labels,
            head_weight=head.weight if head else "",
            head_bias=(head.bias or "") if head else "",
            sources=[record.id],
            classes=[record.labels[index]],
            samples=fishers[index].count,
        )
        for index in indices
    ]


def _head(network: nn.Module) -> Head | None:
    """Return the head, or `None`: a scope of another kind does not need one."""
    try:
        return find_head(network)
    except ScopeError:
        return None
