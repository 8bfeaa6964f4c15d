"""Changed models: the changes of roots added to a descendant, or a root's own new weights.

Nothing is stored.  Beside the weights of the model, its network and the packets, the sum needs at
most a piece of a tensor; and however many models there are, one is held at a time.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from disinherit.client.dampening.known_heads import find_structure
from disinherit.client.dampening.repair import repair
from disinherit.client.dampening.summaries import FisherSummary, class_fishers
from disinherit.client.dampening.task_inputs import TaskInputs
from disinherit.client.dampening.unlearned_model import UnlearnedModel
from disinherit.client.deltas.fitting import (
    check_length,
    check_share,
    fitting,
    in_scope,
    is_all,
    places,
)
from disinherit.client.deltas.rebuilding import rebuild
from disinherit.client.deltas.remaining_update import left_of_update
from disinherit.client.deltas.statistics import (
    norm_layers,
    recompute_statistics,
    statistics_of,
)
from disinherit.client.deltas.unlearned_roots import announced_root
from disinherit.client.owner.choosing import request_seed
from disinherit.client.owner.owner import Owner, load_network
from disinherit.client.privacy.remaining import (
    cleared_classes,
    split_training_data,
    training_data,
)
from disinherit.client.store.structure import Structure
from disinherit.common.deltas.changes import add, is_running_statistic
from disinherit.common.fiun.unlearning import clear_rows
from disinherit.common.graph.records import ModelRecord
from disinherit.common.wire.messages import packets_for
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


def change_model(
    inputs: TaskInputs,
    record: ModelRecord,
    model: pb.ModelTask,
    samples: Sequence[str] | None,
) -> UnlearnedModel | RefusedModel:
    """Compute the weights of one model with the changes of its roots.

    A root itself takes the new weights that its owner kept.  If other roots are upstream of it,
    their changes are added, as to any model.  A model that was computed from its parents is
    computed again, if the owner holds them.

    Args:
        inputs: inputs from the request's message.
        record: the version, with the provenance of its training (`as_trained`).
        model: its entry in the message.
        samples: ids of its own training samples to forget, in a root of a request for samples.

    Raises:
        FisherError: if a packet is damaged or does not fit the model, a coefficient or change is
            too large, or a sum overflows.
        LabelError: if its label space does not fit its head.
        StoreError: if a root's new weights are gone.
        CheckpointError: if the stored weights are missing, damaged or do not fit the network.
        DataError: if the repair diverges.
        ScopeError: if the model has nothing in scope.
    """
    owner, task = inputs.owner, inputs.task
    started = time.perf_counter()
    packets = packets_for(task, model)
    weights = owner.store.weights(record.id)
    own = any(share.own for share in model.shares)
    result = pb.ModelResult(model_id=record.id, outcome=pb.OUTCOME_APPLIED, scale=1.0)
    if model.HasField("rebuilding") and not own:
        rebuilt = rebuild(owner, record, weights, task.request_id, model.rebuilding)
        if rebuilt is not None:
            _report(result, _changed(weights, rebuilt.weights), weights)
            result.remedy = pb.REMEDY_REBUILT if rebuilt.exact else pb.REMEDY_APPROXIMATED
            known = owner.store.fishers(record.id)
            summary = FisherSummary(*known) if known is not None else None
            result.apply_seconds = time.perf_counter() - started
            return UnlearnedModel(result, rebuilt.weights, summary, exact=rebuilt.exact)
    network = load_network(owner, record, weights)
    structure = find_structure(owner, record, network)
    trained = _has_trained(record, model)
    scope = in_scope(inputs.method.scope, network, structure, weights)
    shares: list[tuple[dict[str, Tensor], float]] = []
    unchanged: list[str] = []
    for share, packet in zip(model.shares, packets, strict=True):
        applied = result.deltas.add(
            root=packet.sources[0],
            packet=packet.digest,
            coefficient=share.coefficient,
            applied=share.coefficient,
            root_method=packet.delta.root_method,
        )
        if share.own:
            continue
        check_share(share, packet.sources[0])
        free = places(packet, record, structure, scope)
        change = inputs.change(model, share.packet, {name: weights[name] for name in free})
        if not change.values and not change.left_out:
            unchanged.append(packet.sources[0])
            continue
        left = left_of_update(inputs, packet.sources[0], weights)
        if left is not None:
            applied.measured = left
            least = max(inputs.method.min_inheritance, LEAST_LEFT * share.coefficient)
            if left < least:
                result.error = (
                    f"model {record.id!r} was left unchanged: {left:.2f} of the update of root "
                    f"{packet.sources[0]!r} is left in it, where {share.coefficient:.2f} was "
                    f"expected and {least:.2f} is needed, so that its change does not fit: retrain "
                    "the model"
                )
                return RefusedModel(result)
        values = fitting(change, record, inputs.method.scope, result)
        if trained:  # statistics of its own data are computed again
            values = {n: v for n, v in values.items() if not is_running_statistic(n)}
        check_length(values, share.coefficient, weights, packet.sources[0])
        shares.append((values, share.coefficient))
    if len(unchanged) == len(packets):
        result.error = (
            f"model {record.id!r} was left unchanged, since nothing changed in "
            f"{', '.join(unchanged)}: ask with another root method, or retrain it if it knows what "
            "is to be forgotten"
        )
        return RefusedModel(result)
    counts: dict[str, int] = {}
    if own:
        place = next(at for at, share in enumerate(model.shares) if share.own)
        before, weights = weights, announced_root(owner, record, task, packets[place], samples)
        counts = _changed(before, weights)
        del before
    for name, count in add(weights, shares, structure.ties).items():
        counts[name] = max(count, counts.get(name, 0))
    _report(result, counts, weights)
    if shares and any(counts.values()):
        _settle_in(inputs, record, network, structure, weights, samples, scope, result)
        # A change, or a repair, may lift rows that an earlier request had taken out.
        heads = structure.head.names if structure.head is not None else ()
        clear_rows(weights, heads, cleared_classes(owner, record))
    exact = own and not shares and all(packet.delta.exact for packet in packets)
    result.remedy = pb.REMEDY_REPLAYED if exact else pb.REMEDY_APPROXIMATED
    summary = _summary(owner, record, network, weights, samples if own else None)
    result.apply_seconds = time.perf_counter() - started
    changed = None if own and shares else any(counts.values())  # two changes may cancel
    return UnlearnedModel(result, weights, summary, exact=exact, changed=changed)


def _changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: int((after[name] != old).sum()) for name, old in before.items()}


def _report(
    result: pb.ModelResult, counts: Mapping[str, int], weights: Mapping[str, Tensor]
) -> None:
    """Report how many values of each tensor changed."""
    result.selections.extend(
        pb.Selection(parameter=name, rows=[count], total=weights[name].numel())
        for name, count in counts.items()
        if count
    )


def _has_trained(record: ModelRecord, model: pb.ModelTask) -> bool:
    """Whether a version was trained after it inherited, so that its statistics are its own.

    One without provenance may have been, unless it is known to be computed from its parents.
    """
    if record.provenance is None:
        return not model.HasField("rebuilding")
    return any(record.provenance.samples_per_class.values())


@torch.no_grad()
def _settle_in(
    inputs: TaskInputs,
    record: ModelRecord,
    network: nn.Module,
    structure: Structure,
    weights: dict[str, Tensor],
    samples: Sequence[str] | None,
    scope: Collection[str],
    result: pb.ModelResult,
) -> None:
    """Compute running statistics again and take the steps of repair, in place.

    Both need retained data of the model; without any, it stays as it is.  So does what is frozen
    or out of scope.
    """
    owner, steps = inputs.owner, inputs.method.repair_steps
    if samples is not None:
        kept = split_training_data(owner, record, samples)[1]
    else:
        everything = training_data(owner, record)
        if everything is None:
            return
        kept = everything
    network.load_state_dict(weights)  # buffers, too
    if is_all(inputs.method.scope) and norm_layers(network):
        recompute_statistics(network, kept, owner.device)
        weights |= statistics_of(network)
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
        weights |= dict.fromkeys(structure.names_of(name), value.cpu())
    result.repair_steps = steps


def _summary(
    owner: Owner,
    record: ModelRecord,
    network: nn.Module,
    weights: Mapping[str, Tensor],
    samples: Sequence[str] | None,
) -> FisherSummary | None:
    """Return the Fisher summary of a new version.

    A descendant keeps that of before, which has nothing of the roots' samples.  In the summary of a
    root they are, so it is computed again without them.
    """
    known = owner.store.fishers(record.id)
    if known is None:
        return None
    fishers, scope = known
    if samples is None:
        return FisherSummary(fishers, scope)
    network.load_state_dict(weights)
    _, retain = split_training_data(owner, record, samples)
    fishers = class_fishers(owner, record, network, list(fishers.sums), retain)
    return FisherSummary(fishers, scope)
