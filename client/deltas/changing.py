"""Changed models: the changes of roots added to a descendant, or a root's own new weights.

Nothing is stored.  Beside the weights of the model, its network and the packets, the sum needs at
most a piece of a tensor; and however many models there are, one is held at a time.
"""

import time
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disinherit.client.dampening.known_heads import find_structure
from disinherit.client.dampening.repair import repair
from disinherit.client.dampening.summaries import FisherSummary, class_fishers
from disinherit.client.dampening.task_inputs import TaskInputs
from disinherit.client.dampening.unlearned_model import UnlearnedModel
from disinherit.client.deltas.fitting import in_scope, is_all
from disinherit.client.deltas.inheriting import RefusedModel, add_delta, inherited, refused
from disinherit.client.deltas.leaving import taken_out, without_client
from disinherit.client.deltas.rebuilding import rebuild
from disinherit.client.deltas.repeating import HAD_BEFORE, changes_before, made_for
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
    tuning_data,
)
from disinherit.client.roots.unseen import outputs
from disinherit.client.store.structure import Structure
from disinherit.common.curvature.attenuation import attenuated
from disinherit.common.deltas.changes import add
from disinherit.common.fiun.unlearning import clear_rows
from disinherit.common.graph.labels import has_classes
from disinherit.common.graph.records import ModelRecord
from disinherit.common.wire.messages import packets_for
from disinherit.v1 import unlearning_pb2 as pb

_IN_OWN_CURVATURE = "attenuated in the model's own curvature"


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
    result = pb.ModelResult(model_id=record.id, outcome=pb.OUTCOME_APPLIED, scale=1.0)
    had = changes_before(owner, record)
    made = {one for packet in packets for one in made_for(packet, task.request_id)}
    if had.keys() >= made:
        return _had_all(owner, record, model, packets, made, had, result)
    weights = owner.store.weights(record.id)
    own = any(share.own for share in model.shares)
    if model.HasField("rebuilding") and not own:
        rebuilt = rebuild(owner, record, weights, task.request_id, model.rebuilding)
        if rebuilt is not None:
            _report(result, _changed(weights, rebuilt.weights), weights)
            result.remedy = pb.REMEDY_REBUILT if rebuilt.exact else pb.REMEDY_APPROXIMATED
            result.apply_seconds = time.perf_counter() - started
            summary = _known_summary(owner, record)
            return UnlearnedModel(result, rebuilt.weights, summary, exact=rebuilt.exact)
    network = load_network(owner, record, weights)
    structure = find_structure(owner, record, network)
    scope = in_scope(inputs.method.scope, network, structure, weights)
    ties = structure.ties
    part = None if own else without_client(inputs, record, weights, model, packets, ties, had)
    shares: list[tuple[dict[str, Tensor], float]] | RefusedModel
    if part is not None:
        shares = [(taken_out(part, model, packets, weights, result), 1.0)]
    else:
        shares = inherited(inputs, record, model, packets, structure, scope, weights, had, result)
    if isinstance(shares, RefusedModel):
        return shares
    if part is None and not own:
        shares = _gentlest(inputs, record, network, weights, shares, ties, result)
    counts: dict[str, int] = {}
    if own:
        place = next(at for at, share in enumerate(model.shares) if share.own)
        new = announced_root(owner, record, task, packets[place], samples)
        result.deltas[place].note = new.origin.note
        before, weights = weights, new.weights
        counts = _changed(before, weights)
        del before, new
    for name, count in add(weights, shares, ties).items():
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


def _had_all(
    owner: Owner,
    record: ModelRecord,
    model: pb.ModelTask,
    packets: Sequence[pb.FisherPacket],
    made: Collection[str],
    had: Mapping[str, bool],
    result: pb.ModelResult,
) -> UnlearnedModel | RefusedModel:
    """Return a model as it is, which got all changes before.

    It counts as cleared if the requests for which it got them had effect in it.
    """
    for share, packet in zip(model.shares, packets, strict=True):
        applied = add_delta(result, share, packet)
        applied.applied, applied.note = 0.0, HAD_BEFORE
    if vain := sorted(one for one in made if not had[one]):
        return refused(
            result,
            f": it got the same changes for {', '.join(vain)}, without effect: roll these back, "
            "and ask with another root method, or retrain it",
        )
    result.remedy = pb.REMEDY_UNTOUCHED
    weights = owner.store.weights(record.id)
    return UnlearnedModel(
        result, weights, _known_summary(owner, record), changed=False, cleared=True
    )


def _known_summary(owner: Owner, record: ModelRecord) -> FisherSummary | None:
    known = owner.store.fishers(record.id)
    return FisherSummary(*known) if known is not None else None


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


def _gentlest(
    inputs: TaskInputs,
    record: ModelRecord,
    network: nn.Module,
    weights: Mapping[str, Tensor],
    shares: list[tuple[dict[str, Tensor], float]],
    ties: Sequence[Sequence[str]],
    result: pb.ModelResult,
) -> list[tuple[dict[str, Tensor], float]]:
    """Return changes attenuated in the model's registered curvature, where its own data gain by it.

    The owner's tuning split decides; without one, or without curvature, they are as they came.
    """
    owner = inputs.owner
    curvature = owner.store.curvature(record.id) if shares else None
    tuning = tuning_data(owner, record) if has_classes(record.labels) else None
    if curvature is None or tuning is None:
        return shares
    gentle = [(attenuated(values, curvature), share) for values, share in shares]
    losses = []
    for some in (shares, gentle):
        changed = {name: value.clone() for name, value in weights.items()}
        add(changed, some, ties)
        network.load_state_dict(changed)
        losses.append(F.cross_entropy(*outputs(network, tuning)).item())
    if not losses[1] < losses[0]:
        return shares
    note = f"{_IN_OWN_CURVATURE}, loss on the tuning split {losses[1]:.3f}, else {losses[0]:.3f}"
    for delta in (one for one in result.deltas if one.applied):
        delta.note = "; ".join(filter(None, (delta.note, note)))
    return gentle


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
