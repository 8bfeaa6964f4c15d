"""Release of the changes of roots, under the owner's policy."""

from collections import Counter
from functools import partial

from disinherit.client.actions.answering import answer_roots
from disinherit.client.actions.released_sets import ReleasedSets
from disinherit.client.dampening.known_heads import find_structure
from disinherit.client.deltas.unlearned_roots import unlearned_root
from disinherit.client.owner.owner import Owner, load_network
from disinherit.client.privacy.policy import OPEN, ReleasePolicy, policy_of
from disinherit.client.privacy.remaining import as_trained, training_data
from disinherit.client.privacy.samples import resolve_samples, split_by_ids
from disinherit.common.deltas.changes import difference
from disinherit.common.deltas.packets import encode_delta
from disinherit.common.errors import DataError, RequestError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.limits import clipped
from disinherit.common.method import Method
from disinherit.common.wire.packets import head_fields
from disinherit.common.wire.samples import samples_of
from disinherit.v1 import unlearning_pb2 as pb


def root_deltas(owner: Owner, task: pb.FisherTask, policy: ReleasePolicy = OPEN) -> pb.FisherReply:
    """Unlearn every listed root, keep its new weights, and return what changed.

    Args:
        owner: the owner of the roots.
        task: roots and method.
        policy: conditions on releases, added to the owner's own.
    """
    policy = policy.stricter(policy_of(owner)).for_deltas()
    return answer_roots(owner, task, partial(_packets, owner, policy=policy), "unlearn root")


def _packets(
    owner: Owner, root: pb.Root, task: pb.FisherTask, policy: ReleasePolicy
) -> list[pb.FisherPacket]:
    policy.check_delta(root.model_id)
    method = Method.from_proto(task.method)
    # The root may have forgotten other data meanwhile.
    record = as_trained(owner, owner.store.present(root.model_id, task.request_id))
    listed = samples_of(root)
    samples = None if listed is None else resolve_samples(owner, record, listed)
    counts = _counts(owner, record, samples)
    _check_classes(root, counts)
    policy.check_samples(record.id, counts.total())
    made = unlearned_root(owner, record, method, task.request_id, task.request_digest, samples)
    policy.check_delta(record.id, made.origin.root_method)
    if policy.min_forget_samples > 1:
        sets = ReleasedSets(owner, record)
        released = sets.of_classes(counts) if samples is None else sets.of_samples(samples, counts)
        sets.record(released, policy)
    before = owner.store.weights(record.id)
    structure = find_structure(owner, record, load_network(owner, record, before))
    delta = pb.Delta()
    delta.CopyFrom(made.origin)
    delta.encoding = method.to_proto().delta_encoding
    delta.rank = method.delta_rank
    packet = encode_delta(
        difference(before, made.weights, structure.ties),
        labels=record.labels,
        **head_fields(structure.head),
        source=root.model_id,
        samples=counts.total(),
        delta=delta,
    )
    packet.classes.extend(root.classes)
    return [packet]


def _counts(owner: Owner, record: ModelRecord, samples: list[str] | None) -> Counter[str]:
    """Return the number of samples of each class that are taken away.

    Raises:
        DataError: if the samples are gone.
    """
    if samples is not None:
        chosen, _ = split_by_ids(owner, record, samples)
    elif (everything := training_data(owner, record)) is not None:
        chosen = everything
    else:
        raise DataError(
            f"Expected the training data of model {record.id!r}, all of which is to be forgotten, "
            "but it is gone. Restore it, or retire the model."
        )
    return Counter(record.labels[index] for _, y in chosen for index in y.tolist())


def _check_classes(root: pb.Root, counts: Counter[str]) -> None:
    """Refuse some classes of a root: its methods take samples, or all, and all is far too much.

    Raises:
        RequestError: if it was trained on others, too.
    """
    others = sorted(counts.keys() - set(root.classes))
    if root.classes and others:
        raise RequestError(
            f"Expected samples, or all classes of root {root.model_id!r}, to take out as a change, "
            f"but got {', '.join(root.classes)} of a model that was trained on "
            f"{clipped(', '.join(others))}, too. Name the mechanism fisher, or these samples."
        )
