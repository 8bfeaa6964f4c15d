"""Inherited changes: what a model gets of each root's change, or why it gets nothing.

Its owner's policy, what is left of the root's update in it, and its own size decide.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from disinherit.client.dampening.task_inputs import TaskInputs
from disinherit.client.deltas.fitting import check_length, check_share, fitting, places
from disinherit.client.deltas.remaining_update import left_of_update
from disinherit.client.deltas.repeating import (
    HAD_BEFORE,
    PARENTS_HAD,
    Made,
    made_for,
    requests_of,
)
from disinherit.client.store.structure import Structure
from disinherit.common.deltas.changes import is_running_statistic
from disinherit.common.graph.records import ModelRecord
from disinherit.common.tensors.lazy import select_names
from disinherit.common.tensors.stored import without_values
from disinherit.v1 import unlearning_pb2 as pb

LEAST_LEFT = 0.5
"""Part of its coefficient that must be left of a root's update in a model.

With less, the model is not what it is registered as, and the change would do harm.  Measured on
small networks (docs/figures/inheritance_limits.json, means): 0.96 of the coefficient or more in
descendants, whether fine-tuned at rates of 0.001 to 0.03, averaged with up to nine others, 50 deep,
or over other classes.  In a model trained apart it is -0.02, and the change costs 32 points of
accuracy; in one from the root's initialisation 0.15, and 16 points.  Not found out are models of
one initialisation that hardly trained (0.65 after 4 epochs), and those registered with a small
share: what they have in common with the root anyway is enough.
"""


@dataclass(frozen=True, slots=True, eq=False)
class RefusedModel:
    """A model that is left as it is, since its roots' changes do not fit it.

    Attributes:
        result: coefficients, with the reason as its error.
    """

    result: pb.ModelResult


def inherited(
    inputs: TaskInputs,
    record: ModelRecord,
    model: pb.ModelTask,
    packets: Sequence[pb.FisherPacket],
    structure: Structure,
    scope: Collection[str],
    weights: Mapping[str, Tensor],
    had: Mapping[Made, bool],
    result: pb.ModelResult,
) -> list[tuple[Mapping[str, Tensor], float]] | RefusedModel:
    """Return the changes of other roots with their shares, or why they are not added.

    Args:
        inputs: inputs from the request's message.
        record: the version, with the provenance of its training.
        model: its entry in the message.
        packets: a packet for each of its shares.
        structure: its head and tied parameters.
        scope: names that may change.
        weights: its weights.
        had: changes that are in it, of earlier requests.
        result: gets what is added of each, and what has no place in the model.

    Raises:
        FisherError: if a packet is damaged or does not fit, or share or change is too large.
        LabelError: if its label space does not fit its head.
    """
    shares: list[tuple[Mapping[str, Tensor], float]] = []
    unchanged: list[str] = []
    trained = _has_trained(record, model)
    for share, packet in zip(model.shares, packets, strict=True):
        root = packet.sources[0]
        applied = add_delta(result, share, packet)
        if share.own:
            continue
        if share.coefficient == 0:
            applied.note = PARENTS_HAD
            continue
        made = made_for(packet, inputs.task.request_id, had)
        if had.keys() >= made:
            applied.applied, applied.note = 0.0, HAD_BEFORE
            continue
        if some := had.keys() & made:
            return refused(
                result,
                f": of the change of root {root!r} it has what was made for {requests_of(some)} "
                f"and not all of {requests_of(made)}: ask for their samples one by one",
            )
        if root not in inputs.held and (why := inputs.acceptance.refusal(root, share.owner)):
            return refused(result, f": {why}: ask its owner, or retrain it")
        check_share(share, root)
        free = places(packet, record, structure, scope)
        change = inputs.change(model, share.packet, without_values(weights, free))
        if not change.values and not change.left_out:
            unchanged.append(root)
            continue
        left = left_of_update(inputs, root, weights)
        if isinstance(left, str):
            applied.note = f"what is left of its update was not measured: {left}"
        else:
            applied.measured = left
            least = max(inputs.method.min_inheritance, LEAST_LEFT * share.coefficient)
            if left < least:
                return refused(
                    result,
                    f": {left:.2f} of the update of root {root!r} is left in it, where "
                    f"{share.coefficient:.2f} was expected and {least:.2f} is needed, so that its "
                    "change does not fit: retrain the model",
                )
        values = fitting(change, record, inputs.method.scope, result)
        lengths = inputs.lengths(change, record.labels, values)
        if trained:  # statistics of its own data are computed again
            own = [name for name in values if not is_running_statistic(name)]
            values, lengths = select_names(values, own), replace(lengths, statistics=0.0)
        check_length(lengths, share.coefficient, weights, root)
        shares.append((values, share.coefficient))
    if len(unchanged) == len(packets):
        return refused(
            result,
            f", since nothing changed in {', '.join(unchanged)}: ask with another root method, or "
            "retrain it if it knows what is to be forgotten",
        )
    return shares


def add_delta(result: pb.ModelResult, share: pb.Share, packet: pb.FisherPacket) -> pb.AppliedDelta:
    """Enter the change in a packet in a result, and return the entry.

    Args:
        result: the result of a model.
        share: how much of the change the model inherits.
        packet: the packet.
    """
    return result.deltas.add(
        root=packet.sources[0],
        packet=packet.digest,
        coefficient=share.coefficient,
        applied=share.coefficient,
        root_method=packet.delta.root_method,
        repeats=packet.delta.repeats,
        before=packet.delta.before,
        after=packet.delta.after,
        line=packet.delta.line if packet.delta.HasField("line") else None,
        replaces=packet.delta.replaces,
    )


def refused(result: pb.ModelResult, why: str) -> RefusedModel:
    """Return a model that is left as it is.

    Args:
        result: its result.
        why: the reason, with the punctuation before it.
    """
    result.error = f"model {result.model_id!r} was left unchanged{why}"
    return RefusedModel(result)


def _has_trained(record: ModelRecord, model: pb.ModelTask) -> bool:
    """Whether a version was trained after it inherited, so that its statistics are its own.

    One without provenance may have been, unless it is known to be computed from its parents.
    """
    if record.provenance is None:
        return not model.HasField("rebuilding")
    return any(record.provenance.samples_per_class.values())
