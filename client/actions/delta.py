"""Release of the changes of roots, under the owner's policy.

The policy is about what leaves the owner.  Where it withholds a change, the root is unlearned all
the same: the answer has the reason, and digests of the new weights without any value.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from functools import partial

from torch import Tensor

from disinherit.client.actions.answering import answer_roots
from disinherit.client.actions.released_sets import ReleasedSets
from disinherit.client.dampening.known_heads import find_structure
from disinherit.client.dampening.own_changes import change_again
from disinherit.client.deltas.repeating import again, forgotten_before, made_before
from disinherit.client.deltas.unlearned_roots import unlearned_root
from disinherit.client.owner.failures import explain
from disinherit.client.owner.owner import Owner, load_network
from disinherit.client.privacy.own_deltas import forgot_everything
from disinherit.client.privacy.policy import OPEN, ReleasePolicy, policy_of
from disinherit.client.privacy.remaining import (
    as_trained,
    cleared_classes,
    cleared_samples,
    training_data,
)
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

_log = logging.getLogger(__name__)


def root_deltas(owner: Owner, task: pb.FisherTask, policy: ReleasePolicy = OPEN) -> pb.FisherReply:
    """Unlearn every listed root, keep its new weights, and return what changed.

    Samples that an earlier request made a root forget have the change of that request.  The root
    stays as it is then, and so do descendants that have the change.

    Args:
        owner: the owner of the roots.
        task: roots and method.
        policy: conditions on releases, added to the owner's own.
    """
    policy = policy.stricter(policy_of(owner)).for_deltas()
    reply = answer_roots(owner, task, partial(_packets, owner, policy=policy), "unlearn root")
    asked = {root.model_id: root for root in task.roots}
    for answer in reply.roots:
        if answer.withheld:
            _unlearn_alone(owner, asked[answer.model_id], task, answer)
    return reply


def _packets(
    owner: Owner, root: pb.Root, task: pb.FisherTask, policy: ReleasePolicy
) -> list[pb.FisherPacket]:
    policy.check_delta(root.model_id)
    asked = _Asked(owner, root, task)
    policy.check_samples(asked.record.id, asked.counts.total())
    origin, change = asked.change()
    policy.check_delta(asked.record.id, origin.root_method)
    if policy.min_forget_samples > 1:
        asked.record_release(policy)
    return [asked.packet(origin, change)]


def _unlearn_alone(owner: Owner, root: pb.Root, task: pb.FisherTask, answer: pb.RootFisher) -> None:
    """Unlearn a root whose change is withheld, and add digests of its new weights to the answer.

    A root that has forgotten already needs none, unless descendants of the same owner do.
    """
    try:
        asked = _Asked(owner, root, task)
        if (done := asked.done) is None:
            origin, _ = asked.change()
        elif root.model_id in task.inherited_by_own:
            origin = done
        else:
            return
        answer.packets.append(asked.packet(origin, {}))
    except Exception as error:  # including errors of the owner's loaders and networks
        reason = explain(error, f"unlearn root {root.model_id!r}")
        answer.error = f"{answer.error} The root cannot be unlearned, either: {reason}"
        _log.warning("%s", answer.error)


class _Asked:
    """What is asked of one root.

    Args:
        owner: the owner of the root.
        root: the root in the message.
        task: the message.

    Attributes:
        record: its present version, with the provenance of its training.
        counts: class -> number of samples that are to be taken away.
    """

    def __init__(self, owner: Owner, root: pb.Root, task: pb.FisherTask) -> None:
        self._owner, self._root, self._task = owner, root, task
        self._method = Method.from_proto(task.method)
        # The root may have forgotten other data meanwhile.
        self.record = as_trained(owner, owner.store.present(root.model_id, task.request_id))
        listed = samples_of(root)
        self._samples = None if listed is None else resolve_samples(owner, self.record, listed)
        self.counts = _counts(owner, self.record, self._samples)
        _check_classes(root, self.counts)
        self._structure = find_structure(
            owner,
            self.record,
            load_network(owner, self.record, owner.store.weights(self.record.id)),
        )

    @property
    def done(self) -> pb.Delta | None:
        """Where the change comes from that the request made of the root; `None` before that."""
        owner, task = self._owner, self._task
        entry = owner.store.applied(task.request_id, self.record.digest, self.record.id)
        if entry is None:
            return None
        return made_before(owner, self.record, entry, task.request_digest)

    def change(self) -> tuple[pb.Delta, Mapping[str, Tensor]]:
        """Return where the root's change comes from, and the change."""
        owner, record, task = self._owner, self.record, self._task
        entries = forgotten_before(owner, record, self._samples, self._method.root_method)
        if entries:
            origin = again(owner, record, entries, task.request_digest)
            return origin, change_again(owner, entries, self._structure.ties)
        made = unlearned_root(
            owner, record, self._method, task.request_id, task.request_digest, self._samples
        )
        before = owner.store.weights(record.id)
        return made.origin, difference(before, made.weights, self._structure.ties)

    def record_release(self, policy: ReleasePolicy) -> None:
        """Enter the change in the ledger of releases, if the policy allows it.

        Raises:
            WithheldError: if it does not.
        """
        sets = ReleasedSets(self._owner, self.record)
        if self._samples is None:
            released = sets.of_classes(self.counts)
        else:
            released = sets.of_samples(self._samples, self.counts)
        sets.record(released, policy)

    def packet(self, origin: pb.Delta, change: Mapping[str, Tensor]) -> pb.FisherPacket:
        """Return the packet of a change."""
        delta = pb.Delta()
        delta.CopyFrom(origin)
        delta.encoding = self._method.to_proto().delta_encoding
        delta.rank = self._method.delta_rank
        delta.ClearField("note")
        packet = encode_delta(
            change,
            labels=self.record.labels,
            **head_fields(self._structure.head),
            source=self._root.model_id,
            samples=self.counts.total(),
            delta=delta,
        )
        packet.classes.extend(self._root.classes)
        return packet


def _counts(owner: Owner, record: ModelRecord, samples: list[str] | None) -> Counter[str]:
    """Return the number of samples of each class that are taken away.

    All of a model that forgot nothing before are known from its record, so a client's data may be
    gone where its models can be put back to their starts without.

    Raises:
        DataError: if the samples are gone.
    """
    if samples is not None:
        chosen, _ = split_by_ids(owner, record, samples)
    elif (everything := training_data(owner, record)) is not None:
        chosen = everything
    elif forgot_everything(owner, record) and (gone := owner.training_data(record)) is not None:
        chosen = gone
    elif (known := record.provenance) and not (
        cleared_classes(owner, record) or cleared_samples(owner, record)
    ):
        return Counter({label: count for label, count in known.samples_per_class.items() if count})
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
