"""Registered Fisher summaries: per-class sums of squared gradients over a model's training data.

From a summary any class request is answered with no data access at all; the data may already be
deleted, which is often the very reason for the request.
"""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from disinherit.client.failures import explain
from disinherit.client.memory import ShrinkingBatches
from disinherit.client.noise import add_noise
from disinherit.client.owner import Batches, Owner, load_network
from disinherit.client.release import OPEN, ReleasePolicy, policy_of
from disinherit.client.samples import resolve_samples, sample_key, split_samples
from disinherit.common.encodings import Encoding
from disinherit.common.errors import FisherError, ScopeError, WithheldError
from disinherit.common.fisher import ClassFishers, Fisher, fisher_diagonal
from disinherit.common.labels import class_indices
from disinherit.common.packets import encode_fisher
from disinherit.common.record_proto import record_to_proto
from disinherit.common.records import FisherScale, ModelRecord
from disinherit.common.sample_digests import samples_of
from disinherit.common.scope import Head, find_head, resolve_scope
from disinherit.v1 import unlearning_pb2 as pb

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """Per-class Fisher sums of a model, and the scope they were computed in."""

    fishers: ClassFishers
    scope: str


def register(owner: Owner, task: pb.RegisterTask, policy: ReleasePolicy = OPEN) -> pb.RegisterReply:
    """Make sure that the owner's models have Fisher summaries for a scope, and return the models.

    A model whose training data is gone, or that was never trained, is returned without one.

    Args:
        owner: the owner of the models.
        task: which, and the scope.
        policy: conditions on what is released, beside the owner's own.

    Raises:
        StoreError: if a listed model does not exist.
        FisherError: if a summary cannot be computed; it names the model, and those registered
            before it stay so.
    """
    ids = list(task.model_ids) or [record.id for record in owner.store.records()]
    policy = policy.stricter(policy_of(owner))
    records = []
    for record in map(owner.store.record, ids):
        try:
            records.append(_registered(owner, record, task.scope, policy))
        except Exception as error:  # also what the owner's loaders and networks raise
            reason = explain(error, f"compute the Fisher summary of model {record.id!r}")
            raise FisherError(f"Cannot register model {record.id!r}. {reason}") from error
    return pb.RegisterReply(
        owner=owner.store.owner, models=[record_to_proto(record) for record in records]
    )


def forget_fishers(
    owner: Owner, task: pb.FisherTask, policy: ReleasePolicy = OPEN
) -> pb.FisherReply:
    """Return the Fisher information of the data to forget for every listed root.

    It is given class by class, or for all samples to forget together.

    A root that cannot answer, or of which the owner releases nothing, is reported with the reason;
    the others are answered all the same.

    Args:
        owner: the owner of the roots.
        task: what is asked for.
        policy: conditions on what is released, beside the owner's own.
    """
    policy = policy.stricter(policy_of(owner))
    roots = [_root_fisher(owner, root, task.method, policy) for root in task.roots]
    return pb.FisherReply(roots=roots)


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
    return Summary(class_fishers(owner, record, network, names, batches), ",".join(names))


def class_fishers(
    owner: Owner,
    record: ModelRecord,
    network: nn.Module,
    names: Sequence[str],
    batches: Batches,
    clip_norm: float = 0.0,
) -> ClassFishers:
    """Return the per-class Fisher sums of a model over some of its data, computed now.

    Args:
        owner: the owner of the model.
        record: the model.
        network: its module with its weights.
        names: parameters to cover.
        batches: the data.
        clip_norm: bound on each sample's squared gradient (`fisher_diagonal`); 0 for none.

    Raises:
        FisherError: if the data gives none.
    """
    return ShrinkingBatches(batches).run(
        lambda fitting: fisher_diagonal(
            network.to(owner.device),
            fitting,
            scope=",".join(names),
            per_class=True,
            num_classes=len(record.labels),
            device=owner.device,
            clip_norm=clip_norm or None,
        )
    )


def _covering(owner: Owner, record: ModelRecord, names: Sequence[str]) -> Summary | None:
    """Return the registered summary if it has all these parameters."""
    registered = owner.store.fishers(record.id)
    if registered is None or not set(names) <= registered[0].sums.keys():
        return None
    return Summary(*registered)


def _registered(
    owner: Owner, record: ModelRecord, scope: str, policy: ReleasePolicy
) -> ModelRecord:
    if owner.store.destroyed(record.id) is not None:
        return record
    names = resolve_scope(owner.network(record), scope)
    summary = _covering(owner, record, names)
    if summary is None:
        if owner.training_data(record) is None:
            return record
        network = load_network(owner, record, owner.store.weights(record.id))
        summary = replace(fisher_summary(owner, record, network, names), scope=scope)
        record = owner.store.set_fishers(record.id, summary.fishers, scope)
    return replace(record, fisher_scale=_scale(summary, policy))


def _scale(summary: Summary, policy: ReleasePolicy) -> FisherScale | None:
    """Return how large a summary is; `None` if that would tell of too few samples."""
    fishers = summary.fishers
    if any(0 < count < policy.min_forget_samples for count in fishers.counts.tolist()):
        return None
    sums = torch.zeros(fishers.num_classes, dtype=torch.float64)
    for value in fishers.sums.values():
        sums += value.flatten(1).sum(1, dtype=torch.float64).cpu()
    return FisherScale(summary.scope, tuple(sums.tolist()))


def _root_fisher(
    owner: Owner, root: pb.Root, method: pb.Method, policy: ReleasePolicy
) -> pb.RootFisher:
    started = time.perf_counter()
    try:
        packets = _packets(owner, root, method, policy)
    except Exception as error:  # also what the owner's loaders and networks raise
        reason = explain(error, f"compute the Fisher information of model {root.model_id!r}")
        withheld = isinstance(error, WithheldError)
        if withheld:
            _log.warning("Withheld from request: %s", reason)
        return pb.RootFisher(model_id=root.model_id, error=reason, withheld=withheld)
    return pb.RootFisher(
        model_id=root.model_id, packets=packets, seconds=time.perf_counter() - started
    )


def _packets(
    owner: Owner, root: pb.Root, method: pb.Method, policy: ReleasePolicy
) -> list[pb.FisherPacket]:
    """Return one packet per class to forget, or one for all samples to forget."""
    # Of a root that was destroyed, its successor has the summary, but for what was forgotten then.
    record = owner.store.standing_in(root.model_id)
    network = load_network(owner, record, owner.store.weights(record.id))
    names = resolve_scope(network, method.scope)
    fishers = _class_fishers if root.classes else _sample_fishers
    head = _head(network)
    packets = []
    for released in fishers(owner, record, root, network, names, policy):
        fisher = released.fisher
        policy.check_samples(record.id, fisher.count)
        values, clamped = {name: fisher.values[name] for name in names}, 0
        if policy.noise_multiplier:
            deviation = policy.noise_multiplier * policy.clip_norm / fisher.count
            known = (record.digest, policy.noise_multiplier, policy.clip_norm, fisher.count)
            about = json.dumps([*known, released.about])
            values, clamped = add_noise(values, deviation, sample_key(owner.store.root), about)
        packet = encode_fisher(
            values,
            labels=record.labels,
            head_weight=head.weight if head else "",
            head_bias=(head.bias or "") if head else "",
            sources=[root.model_id],
            classes=released.classes,
            samples=fisher.count,
            encoding=Encoding.from_proto(method.encoding).shorter(policy.encoding),
        )
        packet.clip_norm, packet.noise_multiplier = policy.clip_norm, policy.noise_multiplier
        packet.clamped = clamped
        packets.append(packet)
    return packets


@dataclass(frozen=True, slots=True, eq=False)
class _Released:
    """Fisher information to release, of some classes or none, and what samples it is of."""

    classes: list[str]
    fisher: Fisher
    about: str


def _class_fishers(
    owner: Owner,
    record: ModelRecord,
    root: pb.Root,
    network: nn.Module,
    names: Sequence[str],
    policy: ReleasePolicy,
) -> Iterator[_Released]:
    indices = class_indices(record.labels, root.classes)
    all_fishers = _to_release(owner, record, network, names, policy)
    absent = [record.labels[c] for c in indices if not all_fishers.counts[c]]
    if absent:
        raise FisherError(
            f"Expected root {record.id!r} to be trained directly on what is to be forgotten, but "
            f"it has no samples of {', '.join(absent)}. Name the models that were as roots."
        )
    fishers = all_fishers.each(indices)
    for index in indices:
        label = record.labels[index]
        yield _Released([label], fishers[index], f"class {label}")


def _sample_fishers(
    owner: Owner,
    record: ModelRecord,
    root: pb.Root,
    network: nn.Module,
    names: Sequence[str],
    policy: ReleasePolicy,
) -> Iterator[_Released]:
    """Yield the Fisher information of the listed samples, or of all that it was trained on."""
    listed = samples_of(root)
    if listed is None:
        yield _Released([], _to_release(owner, record, network, names, policy).total(), "all")
        return
    forget, _ = split_samples(owner, record, listed)
    fishers = class_fishers(owner, record, network, names, forget, policy.clip_norm)
    ids = sorted(resolve_samples(owner, record, listed))
    yield _Released([], fishers.total(), f"samples {json.dumps(ids)}")


def _to_release(
    owner: Owner,
    record: ModelRecord,
    network: nn.Module,
    names: Sequence[str],
    policy: ReleasePolicy,
) -> ClassFishers:
    """Return per-class sums over all training data; of clipped gradients if the policy says so."""
    if not policy.clip_norm:
        return fisher_summary(owner, record, network, names).fishers
    batches = owner.training_data(record)
    if batches is None:
        raise WithheldError(
            f"Expected the training data of model {record.id!r}, to clip each sample's gradient as "
            "its owner's clip_norm says, but it is gone."
        )
    return class_fishers(owner, record, network, names, batches, policy.clip_norm)


def _head(network: nn.Module) -> Head | None:
    """Return the head, or `None`: a scope of another kind does not need one."""
    try:
        return find_head(network)
    except ScopeError:
        return None
