"""Dampening of one model with the merged Fisher of its roots. Nothing is stored."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from disinherit.client.dampening.logits import CachedLogits
from disinherit.client.dampening.new_weights import LoadedOnce, NewWeights, copy_of
from disinherit.client.dampening.repair import repair
from disinherit.client.dampening.resolution import resolve_problem
from disinherit.client.dampening.summaries import (
    FisherSummary,
    class_fishers,
    fisher_summary,
    registered_summary,
    whole_fishers,
)
from disinherit.client.dampening.tuning import tune
from disinherit.client.dampening.unlearned_model import UnlearnedModel
from disinherit.client.owner.choosing import request_seed
from disinherit.client.owner.owner import Batches, Owner, load_network
from disinherit.client.privacy.remaining import (
    cleared_classes,
    split_training_data,
    training_data,
    tuning_data,
)
from disinherit.common.fiun.comparing import scaled
from disinherit.common.fiun.streaming import unlearn_each
from disinherit.common.fiun.unlearning import StrengthGrid, clear_rows
from disinherit.common.graph.identifiers import successor_id
from disinherit.common.graph.records import ModelRecord, ModelStatus
from disinherit.common.method import Method
from disinherit.common.tensors.lazy import LazyTensors
from disinherit.common.tensors.stored import kinds_of
from disinherit.common.wire.packets import PackedFisher
from disinherit.v1 import unlearning_pb2 as pb


def dampen_model(
    owner: Owner,
    record: ModelRecord,
    packet: PackedFisher,
    method: Method,
    samples: Sequence[str] | None = None,
    request_id: str = "",
    alike: PackedFisher | None = None,
) -> UnlearnedModel:
    """Compute the dampened weights of one model.

    Head rows are matched by class name.  Rows of the packet without a class of the model are left
    out; rows of the model without a class of the packet have Fisher zero.  With `row_scoped`, a
    model without forgotten classes has nothing selected in the head.  `row_scoped` does not apply
    to requests for samples.

    Args:
        owner: the owner of the model.
        record: the version to dampen.
        packet: the merged Fisher of its upstream roots.
        method: how to unlearn.
        samples: ids of its own training samples to forget, of which it has some in a request for
            samples.
        request_id: seed of the random choices of a repair.
        alike: the packet of the forgotten classes that it was trained on itself, if these are not
            all.

    Raises:
        DataError: if the owner has no sample ids, or the repair diverges.
        FisherError: if packet, method and model do not fit together, or the reference would be
            empty.
        LabelError: if the packet's label space does not fit its head.
        CheckpointError: if the stored weights are missing, damaged or do not fit the network.
        InputError: if a value of the method is out of range.
    """
    with owner.store.opened(record.id) as stored:
        return _dampened(owner, record, stored, packet, method, samples, request_id, alike)


def _dampened(
    owner: Owner,
    record: ModelRecord,
    stored: Mapping[str, Tensor],
    packet: PackedFisher,
    method: Method,
    samples: Sequence[str] | None,
    request_id: str,
    alike: PackedFisher | None,
) -> UnlearnedModel:
    """Compute the dampened weights of a model; a large one is neither loaded nor held."""
    started = time.perf_counter()
    loaded = LoadedOnce(owner, record, stored)
    problem = resolve_problem(owner, record, loaded.outline, packet, method, alike)
    load_seconds = time.perf_counter() - started

    started = time.perf_counter()
    line = (record.id, *(entry.model_id for entry in owner.store.made_by(record.id)))
    if samples is not None:
        _, retain = split_training_data(owner, record, samples)
        # The packet is of the root's weights, so a successor of the root is compared there, before
        # the changes of earlier requests.
        there = _network_of_root(owner, record, loaded.network, problem.sources, line)
        fishers = class_fishers(owner, record, there, problem.names, retain)
        summary = FisherSummary(fishers, method.scope)
        everything = training_data(owner, record) if method.reference == "all" else None
        if everything is not None:
            fishers = class_fishers(owner, record, there, problem.names, everything)
    else:
        known = registered_summary(owner, record, problem.names)
        summary = known or fisher_summary(
            owner, record, loaded.network, problem.names, method.scope
        )
        fishers = summary.fishers
        if problem.whole_rows and fishers.by_rows:
            fishers = whole_fishers(
                owner, record, loaded.network, problem.names, fishers, problem.forgotten
            )
    parameters = LazyTensors(problem.names, lambda name: copy_of(stored, name).to(owner.device))
    reference = problem.reference(record, fishers, parameters, owner.device)
    own = problem.own(record, fishers)
    inheritance = problem.inheritance(record, own)
    scale = problem.scale(line, own, reference, tuned=True)
    fisher_seconds = time.perf_counter() - started

    started = time.perf_counter()
    tuned = None
    batches = tuning_data(owner, record, keep=problem.forgotten) if problem.tunable else None
    if batches is not None:
        names = frozenset(problem.names)
        logits = CachedLogits(loaded.network, batches, names, owner.device)
        sweep = StrengthGrid(
            dict(parameters),
            dict(problem.forget),
            dict(scaled(reference, scale)),
            exponent=method.exponent,
            bound=method.bound,
            heads=problem.heads,
            forgotten_rows=problem.rows,
        )
        tuned = tune(sweep, logits, problem.forgotten, problem.pinned, rows_out=problem.taken_out)
    if tuned is None:
        scale = problem.scale(line, own, reference)
    reference = scaled(reference, scale)
    strength = tuned or problem.pinned.default()
    tune_seconds = time.perf_counter() - started

    started = time.perf_counter()
    cleared = cleared_classes(owner, record)
    with NewWeights(owner, record, stored, problem) as made:
        selected = unlearn_each(
            parameters,
            problem.forget,
            reference,
            made.write,
            alpha=strength.alpha,
            lam=strength.lam,
            exponent=method.exponent,
            bound=method.bound,
            gauge=strength.gauge,
            heads=problem.heads,
            forgotten_rows=problem.rows,
            cleared_rows=cleared,
        )
        count = sum(int(counts.sum()) for counts in selected.values())
        sizes = {name: math.prod(shape) for name, (_, shape) in kinds_of(stored).items()}
        result = pb.ModelResult(
            model_id=record.id,
            outcome=pb.OUTCOME_APPLIED,
            remedy=pb.REMEDY_SUPPRESSED,
            tuned=tuned is not None,
            selections=[
                pb.Selection(parameter=name, rows=rows.tolist(), total=sizes[name])
                for name, rows in selected.items()
            ],
            out_of_scope=problem.out_of_scope,
            not_covered=problem.not_covered,
            tied=problem.tied,
            inheritance=inheritance,
            scale=scale,
        )
        problem.report(strength, result)
        if method.repair_steps and count:
            kept = _kept(owner, record, samples)
            if kept is not None:
                result.repair_steps = method.repair_steps
                changed = repair(
                    loaded.network,
                    made.in_scope(),
                    kept,
                    problem.forgotten,
                    steps=method.repair_steps,
                    seed=request_seed(request_id, record.id),
                    device=owner.device,
                )
                # Training has changed the rows that they must lie below.
                gone = [*(problem.rows or () if problem.taken_out else ()), *cleared]
                clear_rows(changed, problem.heads, gone)
                for name, value in changed.items():
                    made.write(name, value)
        result.fisher_seconds = fisher_seconds
        result.tune_seconds = tune_seconds
        result.apply_seconds = load_seconds + time.perf_counter() - started
        return UnlearnedModel(
            result,
            made.weights() if count else made.before(),
            summary,
            problem.doubt(len(record.labels), cleared),
            changed=made.changed(),
            staged=made.staged,
        )


def _network_of_root(
    owner: Owner,
    record: ModelRecord,
    network: nn.Module,
    sources: Sequence[str],
    line: Sequence[str],
) -> nn.Module:
    """Return the network with the weights of the root from which unlearning made a version.

    Args:
        owner: the owner of both.
        record: the version.
        network: the network of the version.
        sources: the roots.
        line: the version and its predecessors by unlearning only.

    Returns:
        The given network for a root, for other models, and if the root's weights are gone.
    """
    for model in sources if record.id not in sources else ():
        if model in line and owner.store.destroyed(model) is None:
            return load_network(owner, owner.store.record(model), owner.store.weights(model))
    return network


def _kept(owner: Owner, record: ModelRecord, samples: Sequence[str] | None) -> Batches | None:
    """Return the data for a repair, without data forgotten now or earlier."""
    if samples is not None:
        return split_training_data(owner, record, samples)[1]
    return training_data(owner, record)


def make_successor(
    record: ModelRecord,
    task: pb.UnlearnTask,
    digest: str,
    fisher_digest: str = "",
    made_us: int = 0,
) -> ModelRecord:
    """Return the record of the successor that a request makes of a model.

    Args:
        record: the model.
        task: the task of the request.
        digest: `weights_digest` of the new weights.
        fisher_digest: digest of their Fisher summary.
        made_us: earlier creation time, if the successor is made again.
    """
    created_us = made_us or task.created_us
    return replace(
        record,
        id=successor_id(record.id, task.request_id),
        digest=digest,
        created_us=max(created_us, record.created_us + 1),
        provenance=None,
        fisher_digest=fisher_digest,
        status=ModelStatus.ACTIVE,
    )
