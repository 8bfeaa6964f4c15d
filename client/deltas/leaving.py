"""The average of a round of a federation without the clients that leave it.

An average G of updates U, all trained from a start S, is without those i that leave::

    G' = G + Σ_i w_i / (1 - W) (G - U_i) + T (S' - S)        W = Σ_i w_i

The sum is exact: with it, G is the average of the others.  The rest is to first order: they would
have started from S', what became of the start, and of that change they have kept T.  Only the
updates that leave are needed, and they are known from their changes, which go back to S.  The owner
of G holds G and S, as a server does that keeps its global models.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from disinherit.client.dampening.task_inputs import TaskInputs
from disinherit.client.deltas.fitting import check_length, is_all
from disinherit.client.deltas.inheriting import add_delta
from disinherit.client.deltas.repeating import Made, made_for
from disinherit.common.deltas.changes import left_in, lengths_of
from disinherit.common.errors import DisinheritError, FisherError
from disinherit.common.fisher.gradients import widest
from disinherit.common.graph.records import ModelRecord
from disinherit.v1 import unlearning_pb2 as pb

FADED = (
    "less of it is left than its share: taken out, it costs accuracy, which rounds of calibration "
    "restore"
)
"""Note on an update where later ones of the others lead elsewhere (docs/method.md, section 20)."""


@dataclass(frozen=True, slots=True, eq=False)
class WithoutClient:
    """The change of an average whose clients leave.

    Attributes:
        values: name -> change, of tensors with floating-point values.
        factors: update that leaves -> its w / (1 - W).
        left: update that leaves -> how much of it is left in the average, `left_of_update`.
    """

    values: dict[str, Tensor]
    factors: Mapping[str, float]
    left: Mapping[str, float]


@torch.no_grad()
def without_client(
    inputs: TaskInputs,
    record: ModelRecord,
    weights: Mapping[str, Tensor],
    model: pb.ModelTask,
    packets: Sequence[pb.FisherPacket],
    ties: Sequence[Sequence[str]],
    had: Mapping[Made, bool],
) -> WithoutClient | None:
    """Return the change of an average that clients leave, where its owner can tell it.

    Args:
        inputs: inputs from the request's message.
        record: the average.
        weights: its weights.
        model: its entry in the message.
        packets: the changes of its roots, in the order of its shares.
        ties: names of its tied parameters, which change once, under the first name.
        had: changes that are in it, of earlier requests.

    Returns:
        The change.  `None` unless the owner holds the start of the updates as it was and, if it
        is affected, as it is now, all that the updates changed is in their packets and allowed by
        its policy, none of it was added before, and others are left.

    Raises:
        FisherError: if a packet is damaged or does not fit the model.
        CheckpointError: if stored weights are missing or damaged.
    """
    rebuilding = model.rebuilding
    leaving = {parent.model_id: parent.weight for parent in rebuilding.parents if parent.leaves}
    gone = math.fsum(leaving.values())
    if not rebuilding.start or not 0 <= gone < 1 or not is_all(inputs.method.scope):
        return None
    started = _start(inputs, rebuilding)
    if started is None:
        return None
    start, start_change = started
    changes: dict[str, Mapping[str, Tensor]] = {}
    for share, packet in zip(model.shares, packets, strict=True):
        root = packet.sources[0]
        known = root in inputs.held or not inputs.acceptance.refusal(root, share.owner)
        made = made_for(packet, inputs.task.request_id, had)
        if not known or share.coefficient == 0 or not had.keys().isdisjoint(made):
            return None
        if root in leaving:
            change = inputs.change(model, share.packet, weights)
            if change.left_out or tuple(packet.labels) != record.labels:
                return None
            changes[root] = change.values
    if changes.keys() != leaving.keys() or not _alike(start, weights):
        return None
    factors = {root: weight / (1 - gone) for root, weight in leaving.items()}
    values = {}
    aliases = {name for names in ties for name in names[1:]}
    for name, value in weights.items():
        # Of a mean of integers, the updates are not known.
        if not (value.is_floating_point() and start[name].is_floating_point()) or name in aliases:
            continue
        wide = widest(value.device)
        old = value.to(wide)
        total = start_change[name].to(wide) if start_change else torch.zeros_like(old)
        for root, factor in factors.items():
            # G - U = G - S + (S - U), the last of which is the change of the root.
            total += factor * (old - start[name].to(wide))
            if name in changes[root]:
                total += factor * changes[root][name].to(wide)
        values[name] = total.to(torch.promote_types(value.dtype, torch.float32))
    left = {root: _left(weights, start, change) for root, change in changes.items()}
    return WithoutClient(values, factors, left)


def taken_out(
    part: WithoutClient,
    model: pb.ModelTask,
    packets: Sequence[pb.FisherPacket],
    weights: Mapping[str, Tensor],
    result: pb.ModelResult,
) -> dict[str, Tensor]:
    """Return the change of an average that clients leave, and enter it in a result.

    Args:
        part: the change.
        model: the average's entry in the message.
        packets: the changes of its roots, in the order of its shares.
        weights: its weights.
        result: gets what is added of each root.

    Raises:
        FisherError: if it is too long.
    """
    for share, packet in zip(model.shares, packets, strict=True):
        root, applied = packet.sources[0], add_delta(result, share, packet)
        if root in part.factors:
            applied.applied, applied.measured = part.factors[root], part.left[root]
            if part.left[root] < share.coefficient:
                applied.note = FADED
    check_length(
        lengths_of(part.values), 1.0, weights, ", ".join(part.factors) or packets[0].sources[0]
    )
    return part.values


def _start(
    inputs: TaskInputs, rebuilding: pb.Rebuilding
) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
    """Return the start of the updates, and T times its change; `None` if they are not there."""
    store, request = inputs.owner.store, inputs.task.request_id
    try:
        before = store.present(rebuilding.start, request)
        start = store.weights(before.id)
        if not rebuilding.kept:
            return start, {}
        entry = store.applied(request, before.digest, before.id)
        if entry is None:
            return None
        after = store.weights(entry.successor_id)
    except DisinheritError:  # it is another owner's, or its weights are gone
        return None
    kept = rebuilding.kept
    return start, {
        name: kept * (after[name].to(widest(old.device)) - old)
        for name, old in start.items()
        if old.is_floating_point()
    }


def _alike(start: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    return start.keys() == weights.keys() and all(
        start[name].shape == value.shape for name, value in weights.items()
    )


def _left(
    weights: Mapping[str, Tensor], start: Mapping[str, Tensor], change: Mapping[str, Tensor]
) -> float:
    """Return how much of an update is left in an average; 0 of one that changed nothing."""
    update = {name: start[name] - value for name, value in change.items()}
    try:
        return left_in(weights, start, update, start)
    except FisherError:
        return 0.0
