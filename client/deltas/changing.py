"""Changed models: the changes of roots added to a descendant, or a root's own new weights.

One tensor at a time is read, changed and written, so that neither the model nor the changes of its
roots are in memory; and however many models there are, one is at work at a time.  Nothing is
committed.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack

from torch import Tensor
from torch.nn import functional as F

from disinherit.client.dampening.known_heads import find_structure, outlined_network
from disinherit.client.dampening.summaries import FisherSummary
from disinherit.client.dampening.task_inputs import TaskInputs
from disinherit.client.dampening.unlearned_model import UnlearnedModel
from disinherit.client.deltas.fitting import in_scope
from disinherit.client.deltas.inheriting import RefusedModel, add_delta, inherited, refused
from disinherit.client.deltas.leaving import taken_out, without_client
from disinherit.client.deltas.rebuilding import Rebuilt, count_changes, rebuild, report_changes
from disinherit.client.deltas.repeating import (
    HAD_BEFORE,
    PARENTS_HAD,
    Made,
    changes_before,
    got_before,
    made_for,
    missing_before,
    requests_of,
)
from disinherit.client.deltas.settling import clear_again, settle_in, summary_without
from disinherit.client.deltas.unlearned_roots import announced_root
from disinherit.client.owner.owner import MakesAgain, Owner, load_network
from disinherit.client.privacy.remaining import tuning_data
from disinherit.client.roots.replay import checked
from disinherit.client.roots.unseen import outputs
from disinherit.client.store.structure import Structure
from disinherit.common.curvature.attenuation import attenuated
from disinherit.common.deltas.alternatives import alternatives_to
from disinherit.common.deltas.changes import add
from disinherit.common.graph.labels import has_classes
from disinherit.common.graph.records import ModelRecord
from disinherit.common.tensors.lazy import (
    is_divided,
    row_blocks,
    rows_of,
    select_names,
    shape_of,
)
from disinherit.common.tensors.shards import ShardWriter
from disinherit.common.tensors.stored import kinds_of
from disinherit.common.wire.messages import packets_for
from disinherit.v1 import unlearning_pb2 as pb

_IN_PARENTS = "it has this change by its parents, from which it was computed again"
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
    made = {
        one
        for share, packet in zip(model.shares, packets, strict=True)
        if share.coefficient != 0
        for one in made_for(packet, task.request_id, had)
    }
    if had.keys() >= made:
        return _had_all(owner, record, model, packets, made, had, result)
    with owner.store.opened(record.id) as weights, ExitStack() as failing:
        staged = failing.enter_context(owner.store.stage(kinds_of(weights), record.id))
        changed = _change(inputs, record, model, samples, packets, had, result, weights, staged)
        if isinstance(changed, UnlearnedModel) and changed.staged is not None:
            failing.pop_all()  # it is closed with the model
        result.apply_seconds = time.perf_counter() - started
        return changed


def _change(
    inputs: TaskInputs,
    record: ModelRecord,
    model: pb.ModelTask,
    samples: Sequence[str] | None,
    packets: Sequence[pb.FisherPacket],
    had: Mapping[Made, bool],
    result: pb.ModelResult,
    weights: Mapping[str, Tensor],
    staged: ShardWriter,
) -> UnlearnedModel | RefusedModel:
    """Write the new weights of a model tensor by tensor, where it does not have all changes."""
    owner, task = inputs.owner, inputs.task
    own = any(share.own for share in model.shares)
    rebuilt = _made_again(inputs, record, model, packets, weights)
    if rebuilt is None and model.HasField("rebuilding") and not own:
        rebuilt = rebuild(owner, record, weights, task.request_id, model.rebuilding)
    if rebuilt is not None:
        for share, packet in zip(model.shares, packets, strict=True):
            added = add_delta(result, share, packet)
            if not share.own:
                added.applied, added.note = 0.0, _IN_PARENTS
        report_changes(result, count_changes(weights, rebuilt.weights), weights)
        result.remedy = pb.REMEDY_REBUILT if rebuilt.exact else pb.REMEDY_APPROXIMATED
        summary = _known_summary(owner, record)
        if own and samples is not None:
            summary = summary_without(owner, record, rebuilt.weights, samples)
        return UnlearnedModel(result, rebuilt.weights, summary, exact=rebuilt.exact)
    if others := _alternatives(inputs, record, model, packets, had):
        return refused(result, others)
    structure, scope = _described(inputs, record, weights)
    ties = structure.ties
    part = None if own else without_client(inputs, record, weights, model, packets, ties, had)
    shares: list[tuple[Mapping[str, Tensor], float]] | RefusedModel
    if part is not None:
        shares = [(taken_out(part, model, packets, weights, result), 1.0)]
    else:
        shares = inherited(inputs, record, model, packets, structure, scope, weights, had, result)
    if isinstance(shares, RefusedModel):
        return shares
    if part is None and not own:
        shares = _gentlest(inputs, record, weights, shares, ties, result)
    origin = weights
    if own:
        place = next(at for at, share in enumerate(model.shares) if share.own)
        new = announced_root(owner, record, task, packets[place], samples)
        result.deltas[place].note = new.origin.note
        origin = new.weights
    counts = _write(staged, weights, origin, shares, ties)
    report_changes(result, counts, weights)
    if shares and any(counts.values()):
        settle_in(inputs, record, structure, staged, samples, scope, result)
        # A change, or a repair, may lift rows that an earlier request had taken out.
        clear_again(owner, record, structure, staged)
    exact = own and not shares and all(packet.delta.exact for packet in packets)
    result.remedy = pb.REMEDY_REPLAYED if exact else pb.REMEDY_APPROXIMATED
    stored, summary = staged.opened(), None
    if own and samples is not None:  # which are in the summary of before
        summary = summary_without(owner, record, stored, samples)
    return UnlearnedModel(
        result,
        stored,
        summary,
        exact=exact,
        changed=None if own and shares else any(counts.values()),  # two changes may cancel
        staged=staged,
        keeps_summary=not own,  # if all its data are to be forgotten, nothing is left to sum up
    )


def _made_again(
    inputs: TaskInputs,
    record: ModelRecord,
    model: pb.ModelTask,
    packets: Sequence[pb.FisherPacket],
    weights: Mapping[str, Tensor],
) -> Rebuilt | None:
    """Return the version as its owner made it again for the request; `None` if it did not.

    A root that is exact by its own training alone needs none.
    """
    alone = len(model.shares) == 1 and model.shares[0].own and packets[0].delta.exact
    if alone or not isinstance(inputs.owner, MakesAgain):
        return None
    given = inputs.owner.made_again(record, inputs.task.request_id)
    return None if given is None else Rebuilt(checked(record, weights, given), exact=True)


def _alternatives(
    inputs: TaskInputs,
    record: ModelRecord,
    model: pb.ModelTask,
    packets: Sequence[pb.FisherPacket],
    had: Mapping[Made, bool],
) -> str:
    """Return why changes cannot be added to those that are in a model; `""` if they can."""
    owner, request = inputs.owner, inputs.task.request_id
    for share, packet in zip(model.shares, packets, strict=True):
        if share.own or share.coefficient == 0 or had.keys() >= made_for(packet, request, had):
            continue
        if not share.parents_had and (lacks := missing_before(packet, had)):
            return (
                f": the change of root {packet.sources[0]!r} takes the place of that for {lacks}, "
                "which it has not got: ask for the same samples without a root method first"
            )
        if some := alternatives_to(packet, request, got_before(owner, record)):
            listed = " and ".join(f"disinherit request rollback {one}" for one in some)
            return (
                f": it has the change of root {packet.sources[0]!r} for {', '.join(some)}, which "
                "that root did not take before it made this one, and both are too much: roll back "
                f"first ({listed}; if it still runs, abort it), then ask again"
            )
    return ""


def _described(
    inputs: TaskInputs, record: ModelRecord, weights: Mapping[str, Tensor]
) -> tuple[Structure, Collection[str]]:
    """Return the structure of a model and its names in scope; its network is not kept."""
    owner = inputs.owner
    network, _ = outlined_network(owner, record, weights)
    structure = find_structure(owner, record, network)
    return structure, in_scope(inputs.method.scope, network, structure, list(weights))


def _write(
    staged: ShardWriter,
    weights: Mapping[str, Tensor],
    origin: Mapping[str, Tensor],
    shares: Sequence[tuple[Mapping[str, Tensor], float]],
    ties: Sequence[Sequence[str]],
) -> dict[str, int]:
    """Write weights with their changes, and return name -> number of changed values.

    Args:
        staged: where they are written.
        weights: the model's weights.
        origin: what the changes are added to: these, or a root's own new ones.
        shares: changes and what to multiply them by.
        ties: names of tied parameters.
    """
    tied = {name: tuple(names) for names in ties for name in names}
    counts: dict[str, int] = {}
    for names in dict.fromkeys(tied.get(name, (name,)) for name in weights):
        given = [
            (select_names(change, [name for name in names if name in change]), coefficient)
            for change, coefficient in shares
            if any(name in change for name in names)
        ]
        if not given and origin is weights:
            for name in names:
                staged.keep(name, weights)
            continue
        values = {name: origin[name] for name in names[: 1 if given else None]}
        if origin is not weights:
            for name, value in values.items():
                counts[name] = int((value != weights[name]).sum())
        if given:
            values = dict.fromkeys(names, values[names[0]])
            count = _add(values, given, names)
            counts[names[0]] = max(count, counts.get(names[0], 0))
        for name, value in values.items():
            staged.write(name, value)
    return counts


def _add(
    values: Mapping[str, Tensor],
    given: Sequence[tuple[Mapping[str, Tensor], float]],
    names: Sequence[str],
) -> int:
    """Add changes to a parameter under all its names, and return how many values changed.

    A large change is decoded block by block.
    """
    parts = [(change, next(iter(change)), coefficient) for change, coefficient in given]
    shape = values[names[0]].shape
    if not any(is_divided(change, name) for change, name, _ in parts) or any(
        len(change) > 1 or tuple(shape_of(change, name)) != shape for change, name, _ in parts
    ):
        return sum(add(values, given, [names]).values())
    count = 0
    for rows in row_blocks(shape):
        block = {name: value[rows] for name, value in values.items()}
        some = [({name: rows_of(change, name, rows)}, share) for change, name, share in parts]
        count += sum(add(block, some, [names]).values())
    return count


def _had_all(
    owner: Owner,
    record: ModelRecord,
    model: pb.ModelTask,
    packets: Sequence[pb.FisherPacket],
    made: Collection[Made],
    had: Mapping[Made, bool],
    result: pb.ModelResult,
) -> UnlearnedModel | RefusedModel:
    """Return a model as it is, which got all changes before.

    It counts as cleared if the requests for which it got them had effect in it.
    """
    for share, packet in zip(model.shares, packets, strict=True):
        applied = add_delta(result, share, packet)
        applied.applied = 0.0
        applied.note = HAD_BEFORE if share.coefficient else PARENTS_HAD
    if vain := [one for one in made if not had[one]]:
        return refused(
            result,
            f": it got the same changes for {requests_of(vain)}, without effect: roll these back, "
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


def _gentlest(
    inputs: TaskInputs,
    record: ModelRecord,
    weights: Mapping[str, Tensor],
    shares: list[tuple[Mapping[str, Tensor], float]],
    ties: Sequence[Sequence[str]],
    result: pb.ModelResult,
) -> list[tuple[Mapping[str, Tensor], float]]:
    """Return changes attenuated in the model's registered curvature, where its own data gain by it.

    The owner's tuning split decides; without one, or without curvature, they are as they came.
    """
    owner = inputs.owner
    curvature = owner.store.curvature(record.id) if shares else None
    tuning = tuning_data(owner, record) if has_classes(record.labels) else None
    if curvature is None or tuning is None:
        return shares
    gentle: list[tuple[Mapping[str, Tensor], float]] = [
        (attenuated(values, curvature), share) for values, share in shares
    ]
    losses = []
    for some in (shares, gentle):
        changed = dict(weights.items())
        add(changed, some, ties)
        network = load_network(owner, record, changed)
        del changed
        losses.append(F.cross_entropy(*outputs(network, tuning)).item())
    if not losses[1] < losses[0]:
        return shares
    note = f"{_IN_OWN_CURVATURE}, loss on the tuning split {losses[1]:.3f}, else {losses[0]:.3f}"
    for delta in (one for one in result.deltas if one.applied):
        delta.note = "; ".join(filter(None, (delta.note, note)))
    return gentle
