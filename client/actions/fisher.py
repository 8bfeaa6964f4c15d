"""Release of the Fisher information of forget sets, under the owner's policy."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from disinherit.client.actions.answering import answer_roots
from disinherit.client.actions.released_sets import ReleasedSets, largest_share
from disinherit.client.dampening.known_heads import find_structure
from disinherit.client.dampening.new_weights import LoadedOnce
from disinherit.client.dampening.summaries import (
    class_fishers,
    fisher_summary,
    registered_summary,
    whole_fishers,
)
from disinherit.client.owner.owner import Batches, Owner
from disinherit.client.privacy.noise import add_noise
from disinherit.client.privacy.policy import OPEN, ReleasePolicy, policy_of
from disinherit.client.privacy.release_ledger import Release
from disinherit.client.privacy.remaining import WithoutClasses, training_data
from disinherit.client.privacy.sample_keys import sample_key
from disinherit.client.privacy.samples import resolve_samples, split_by_ids
from disinherit.common.encodings import Encoding
from disinherit.common.errors import FisherError, ScopeError, WithheldError
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.fisher.pooled import Fisher
from disinherit.common.graph.labels import class_indices
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import Method
from disinherit.common.models.scope import resolve_scope
from disinherit.common.models.scope_text import is_head_scope
from disinherit.common.tensors.lazy import LazyTensors, select_names
from disinherit.common.wire.packets import encode_fisher, head_fields
from disinherit.common.wire.samples import samples_of
from disinherit.v1 import unlearning_pb2 as pb


def forget_fishers(
    owner: Owner, task: pb.FisherTask, policy: ReleasePolicy = OPEN
) -> pb.FisherReply:
    """Return the Fisher information of the forget set of every listed root.

    There is one packet per class, or one for all samples to forget.

    Args:
        owner: the owner of the roots.
        task: roots and method.
        policy: conditions on releases, added to the owner's own.
    """
    policy = policy.stricter(policy_of(owner))
    packets = partial(_packets, owner, policy=policy)
    return answer_roots(owner, task, packets, "compute the Fisher information of")


def _packets(
    owner: Owner, root: pb.Root, task: pb.FisherTask, policy: ReleasePolicy
) -> list[pb.FisherPacket]:
    """Return one packet per forgotten class, or one for all forgotten samples."""
    method = Method.from_proto(task.method)
    # The successor of a destroyed root has its summary, without the forgotten data.
    record = owner.store.standing_in(root.model_id)
    with owner.store.opened(record.id) as weights:
        loaded = LoadedOnce(owner, record, weights)
        packets = _released_packets(owner, record, root, method, loaded, policy)
        loaded.verify()  # a damaged version has nothing to say of its descendants
        return packets


def _released_packets(
    owner: Owner,
    record: ModelRecord,
    root: pb.Root,
    method: Method,
    loaded: LoadedOnce,
    policy: ReleasePolicy,
) -> list[pb.FisherPacket]:
    structure = find_structure(owner, record, loaded.outline)
    if is_head_scope(method.scope) and structure.head is None:
        raise ScopeError(structure.reason)
    names = resolve_scope(loaded.outline, method.scope, structure.head)
    fishers = _class_fishers if root.classes else _sample_fishers
    packets = []
    # Rows of several classes are taken out only if all of the head is in scope.
    whole = structure.head is not None and set(structure.head.parameters) <= set(names)
    rows = method.row_scoped and (len(root.classes) == 1 or whole)
    sets = ReleasedSets(owner, record)
    for released in fishers(owner, record, root, loaded, names, policy, rows):
        fisher = released.fisher
        policy.check_samples(record.id, fisher.count)
        if policy.max_sample_share < 1:
            _check_share(owner, record, loaded.network, names, policy, released)
        if policy.min_forget_samples > 1:
            sets.record(_set_of(sets, record, released), policy)
        values, clamped = select_names(fisher.values, names), 0
        if policy.noise_multiplier:
            deviation = policy.noise_multiplier * policy.clip_norm / fisher.count
            known = (record.digest, policy.noise_multiplier, policy.clip_norm, fisher.count)
            question = json.dumps([*known, _set_of(sets, record, released).name])
            values, clamped = add_noise(values, deviation, sample_key(owner.store.root), question)
        packet = encode_fisher(
            values,
            labels=record.labels,
            **head_fields(structure.head),
            sources=[root.model_id],
            classes=released.classes,
            samples=fisher.count,
            encoding=_encoding(method, policy, fisher),
        )
        packet.clip_norm, packet.noise_multiplier = policy.clip_norm, policy.noise_multiplier
        packet.clamped = clamped
        packets.append(packet)
    return packets


def _encoding(method: Method, policy: ReleasePolicy, fisher: Fisher) -> Encoding:
    """Return the shortest encoding that is asked for; what was factored travels so."""
    if isinstance(fisher.values, LazyTensors):
        return Encoding.FACTORED
    return Encoding.named(method.encoding).shorter(policy.encoding)


@dataclass(frozen=True, slots=True, eq=False)
class _Released:
    """Fisher information to release, with its set of samples.

    Attributes:
        classes: names of its classes; empty for single samples.
        fisher: the mean over the samples.
        counts: number of samples of each class of the model, `[C]`.
        ids: ids of the samples; `None` for all samples of the counted classes.
    """

    classes: list[str]
    fisher: Fisher
    counts: list[int]
    ids: list[str] | None


def _class_fishers(
    owner: Owner,
    record: ModelRecord,
    root: pb.Root,
    loaded: LoadedOnce,
    names: Sequence[str],
    policy: ReleasePolicy,
    own_rows: bool,
) -> Iterator[_Released]:
    indices = class_indices(record.labels, root.classes)
    apart = None if own_rows else indices
    all_fishers = _to_release(owner, record, loaded, names, policy, apart)
    absent = [record.labels[c] for c in indices if not all_fishers.counts[c]]
    if absent:
        raise FisherError(
            f"Expected root {record.id!r} to be trained directly on the classes to forget, but it "
            f"has no samples of {', '.join(absent)}. Name models with such samples as roots."
        )
    fishers = all_fishers.each(indices, indices if own_rows else None)
    for index in indices:
        counts = [
            int(all_fishers.counts[c]) if c == index else 0 for c in range(len(record.labels))
        ]
        yield _Released([record.labels[index]], fishers[index], counts, None)


def _sample_fishers(
    owner: Owner,
    record: ModelRecord,
    root: pb.Root,
    loaded: LoadedOnce,
    names: Sequence[str],
    policy: ReleasePolicy,
    own_rows: bool,
) -> Iterator[_Released]:
    """Yield the Fisher information of the listed samples, or of all training samples."""
    listed = samples_of(root)
    if listed is None:
        everything = _to_release(owner, record, loaded, names, policy)
        yield _Released([], everything.total(), everything.counts.tolist(), None)
        return
    ids = resolve_samples(owner, record, listed)
    forget, _ = split_by_ids(owner, record, ids)
    norm, form = policy.clip_norm, policy.summaries
    fishers = class_fishers(owner, record, loaded.network, names, forget, norm, form=form)
    yield _Released([], fishers.total(), fishers.counts.tolist(), ids)


def _set_of(sets: ReleasedSets, record: ModelRecord, released: _Released) -> Release:
    """Return the set of samples of a release."""
    counts = dict(zip(record.labels, released.counts, strict=True))
    if released.ids is None:
        return sets.of_classes(counts)
    return sets.of_samples(released.ids, counts)


def _check_share(
    owner: Owner,
    record: ModelRecord,
    network: nn.Module,
    names: Sequence[str],
    policy: ReleasePolicy,
    released: _Released,
) -> None:
    """Refuse a release in which one sample has a larger share than the policy allows."""
    batches: Batches | None
    if released.ids is not None:
        batches, _ = split_by_ids(owner, record, released.ids)
    else:
        batches = training_data(owner, record)
    if batches is None:
        raise WithheldError(
            f"Expected the training data of model {record.id!r}, to check each sample's share "
            "against its owner's max_sample_share, but it is gone."
        )
    others = tuple(index for index, count in enumerate(released.counts) if not count)
    chosen = WithoutClasses(batches, others)
    share = largest_share(owner, record, network, names, chosen, policy.clip_norm)
    policy.check_share(record.id, share)


def _to_release(
    owner: Owner,
    record: ModelRecord,
    loaded: LoadedOnce,
    names: Sequence[str],
    policy: ReleasePolicy,
    apart: Collection[int] | None = None,
) -> ClassFishers:
    """Return per-class sums over all training data; of clipped gradients if the policy has a bound.

    Args:
        owner: the owner of the root.
        record: the root.
        loaded: its network.
        names: parameters to cover.
        policy: the conditions.
        apart: classes that need all rows of the head; `None` for no class.
    """
    if not policy.clip_norm:
        known = registered_summary(owner, record, names)
        if known is None:
            known = fisher_summary(owner, record, loaded.network, names, form=policy.summaries)
        if apart is None or not known.fishers.by_rows:
            return known.fishers
        return whole_fishers(owner, record, loaded.network, names, known.fishers, apart)
    batches = training_data(owner, record)
    if batches is None:
        raise WithheldError(
            f"Expected the training data of model {record.id!r}, to clip each sample's gradient to "
            "its owner's clip_norm, but it is gone."
        )
    norm, form = policy.clip_norm, policy.summaries
    return class_fishers(owner, record, loaded.network, names, batches, norm, apart, form)
