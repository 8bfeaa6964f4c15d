"""Dampening one model with the merged Fisher of what it inherited; nothing is stored here."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from disinherit.client.features import CachedLogits
from disinherit.client.owner import Batches, Owner, load_network
from disinherit.client.repairing import repair, repair_seed
from disinherit.client.summaries import Summary, class_fishers, fisher_summary, split_samples
from disinherit.client.tuning import PLAIN, ROWS_ONLY, SAMPLES, Pinned, Strength, tune
from disinherit.common.errors import FisherError, StoreError
from disinherit.common.fiun import Dampened, unlearn_parameters
from disinherit.common.labels import class_indices
from disinherit.common.packets import align, decode
from disinherit.common.records import ModelRecord
from disinherit.v1 import unlearning_pb2 as pb


@dataclass(frozen=True, slots=True, eq=False)
class DampenedModel:
    """What became of one model.

    Attributes:
        result: what was chosen and selected; without a successor.
        weights: the complete new weights on the CPU, dtypes as before.  Where nothing was selected
            they are the old ones: the gauge alone is not worth a new version.
        summary: the Fisher summary that the reference was taken from.
    """

    result: pb.ModelResult
    weights: dict[str, Tensor]
    summary: Summary


def find_task(
    owner: Owner, task: pb.UnlearnTask, model: pb.ModelTask
) -> tuple[ModelRecord, pb.FisherPacket]:
    """Return the version that one entry of a task is about, and the packet meant for it.

    Raises:
        StoreError: if the owner has no such version, or with other weights.
        FisherError: if there is no such packet.
    """
    record = owner.store.record(model.model_id)
    if record.digest != model.digest:
        raise StoreError(
            f"Expected model {record.id!r} with digest {model.digest!r}, but the owner holds "
            f"{record.digest!r}. Register the owner's models again."
        )
    if model.fisher >= len(task.fishers):
        raise FisherError(
            f"Expected the index of one of {len(task.fishers)} Fisher packets for model "
            f"{record.id!r}, but got {model.fisher}."
        )
    return record, task.fishers[model.fisher]


def dampen_model(
    owner: Owner,
    record: ModelRecord,
    packet: pb.FisherPacket,
    method: pb.Method,
    samples: Sequence[str] = (),
    request_id: str = "",
) -> DampenedModel:
    """Compute the dampened weights of one model.

    Class names say what belongs together: rows of the packet's head whose class the model does not
    know are left out, and its rows that the packet does not know have a Fisher of zero.  With
    `row_scoped` and no forgotten class among the model's, nothing is selected in the head; where
    samples are to be forgotten, and no class, it does not apply.

    Args:
        owner: the owner of the model.
        record: the version to dampen.
        packet: the merged Fisher of its upstream roots.
        method: how to unlearn.
        samples: ids of its own training samples that are to be forgotten.
        request_id: what is random in a repair follows from it.

    Raises:
        DataError: if the owner does not know one of the samples, or the repair diverges.
        FisherError: if packet, method and model do not fit together, or there is nothing to take
            the reference from.
        LabelError: if the packet's label space does not fit its head.
        CheckpointError: if the stored weights are missing or damaged, or not the network's.
        InputError: if a value of the method is out of range.
    """
    started = time.perf_counter()
    stored = owner.store.weights(record.id)
    network = load_network(owner, record, stored)
    fisher = decode(packet)
    aligned = align(fisher, record.labels)
    names = [name for name, _ in network.named_parameters() if name in aligned]
    out_of_scope = sorted(aligned.keys() - set(names))
    _check_fits(record, packet, {name: aligned[name] for name in names}, stored, out_of_scope)
    parameters = {name: stored[name].to(owner.device) for name in names}
    forget = {name: aligned[name].to(owner.device) for name in names}
    forgotten = class_indices(record.labels, [c for c in packet.classes if c in record.labels])
    head = [name for name in fisher.head if name in forget]
    rows = forgotten if method.row_scoped and head and packet.classes else None
    load_seconds = time.perf_counter() - started

    started = time.perf_counter()
    if samples:
        _, retain = split_samples(owner, record, samples)
        summary = Summary(class_fishers(owner, record, network, names, retain), ",".join(names))
    else:
        summary = fisher_summary(owner, record, network, names)
    only_rows = rows is not None and set(head) == set(names)
    reference = _reference(record, summary, parameters, method.reference, forgotten, only_rows)
    fisher_seconds = time.perf_counter() - started

    def dampened(strength: Strength, *, in_place: bool = False) -> Dampened:
        return unlearn_parameters(
            parameters,
            forget,
            reference,
            alpha=strength.alpha,
            lam=strength.lam,
            exponent=method.exponent,
            bound=method.bound,
            gauge=strength.gauge,
            head=(packet.head_weight, packet.head_bias or None) if head else None,
            forgotten_rows=rows,
            in_place=in_place,
        )

    started = time.perf_counter()
    pinned = Pinned(
        method.alpha if method.HasField("alpha") else None,
        method.lam if method.HasField("lam") else None,
        method.gauge if method.HasField("gauge") else None,
        otherwise=ROWS_ONLY if only_rows else PLAIN if packet.classes else SAMPLES,
    )
    tuned = None
    batches = None if pinned.complete or not forgotten else owner.tuning_data(record)
    if batches is not None:
        logits = CachedLogits(network, batches, frozenset(names), owner.device)
        tuned = tune(dampened, logits, logits.targets, forgotten, pinned)
    strength = tuned or pinned.default()
    tune_seconds = time.perf_counter() - started

    started = time.perf_counter()
    outcome = dampened(strength, in_place=True)  # the stored weights are not needed as they were
    result = pb.ModelResult(
        model_id=record.id,
        outcome=pb.OUTCOME_APPLIED,
        alpha=strength.alpha,
        lam=strength.lam,
        gauge=strength.gauge,
        tuned=tuned is not None,
        selections=[
            pb.Selection(parameter=name, rows=rows.tolist(), total=parameters[name].numel())
            for name, rows in outcome.selected.items()
        ],
        out_of_scope=out_of_scope,
    )
    changed = outcome.parameters
    if method.repair_steps and outcome.selected_count:
        kept = _kept(owner, record, samples)
        if kept is not None:
            result.repair_steps = method.repair_steps
            changed = repair(
                network,
                changed,
                kept,
                forgotten,
                steps=method.repair_steps,
                seed=repair_seed(request_id, record.id),
                device=owner.device,
            )
    weights = _changed(network, stored, changed) if outcome.selected_count else stored
    result.fisher_seconds = fisher_seconds
    result.tune_seconds = tune_seconds
    result.apply_seconds = load_seconds + time.perf_counter() - started
    return DampenedModel(result, weights, summary)


def _kept(owner: Owner, record: ModelRecord, samples: Sequence[str]) -> Batches | None:
    """Return a model's direct training data without some samples; `None` if it is gone."""
    if samples:
        return split_samples(owner, record, samples)[1]
    return owner.training_data(record)


def _check_fits(
    record: ModelRecord,
    packet: pb.FisherPacket,
    forget: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    out_of_scope: Sequence[str],
) -> None:
    roots = ", ".join(packet.sources) or "an unknown root"
    if not forget:
        raise FisherError(
            f"Expected a Fisher packet for parameters of model {record.id!r}, but that of {roots} "
            f"is for {', '.join(out_of_scope) or 'none'}, which the model does not have."
        )
    for name, value in forget.items():
        if value.shape != weights[name].shape:
            raise FisherError(
                f"Expected a Fisher of shape {list(weights[name].shape)} for parameter {name!r} as "
                f"in model {record.id!r}, but that of {roots} has {list(value.shape)}. Unlearn in "
                "a scope that both have in common."
            )


def _reference(
    record: ModelRecord,
    summary: Summary,
    parameters: Mapping[str, Tensor],
    reference: str,
    forgotten: Sequence[int],
    only_rows: bool,
) -> dict[str, Tensor]:
    """Return F_ref: over the retained classes, or over all own training data (the paper's)."""
    if reference not in ("retain", "all"):
        raise FisherError(f"Expected reference 'retain' or 'all', but got {reference!r}.")
    left_out = set(forgotten) if reference == "retain" else set()
    classes = [c for c in range(len(record.labels)) if c not in left_out]
    fishers = summary.fishers
    if not fishers.counts[classes].sum():
        # Nothing of its own to keep: the limit F_ref -> 0 of dampening is to clear what is
        # selected.  That is right for the forgotten classes' rows, and ruins everything else.
        if only_rows:
            return {name: torch.zeros_like(value) for name, value in parameters.items()}
        raise FisherError(
            f"Expected model {record.id!r} to be trained on something that is to be kept, to "
            f"compare with, but all its {int(fishers.counts.sum())} samples are of classes to "
            "forget. Select only in the head's rows of these classes, or take reference 'all'."
        )
    fisher = fishers.over(classes)
    return {name: fisher.values[name].to(value.device) for name, value in parameters.items()}


def _changed(
    network: nn.Module, stored: Mapping[str, Tensor], new: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the stored weights with the new values, under every name a tied parameter has."""
    first = {id(parameter): name for name, parameter in network.named_parameters()}
    weights = dict(stored)
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if first[id(parameter)] in new:
            weights[name] = new[first[id(parameter)]].to(stored[name].device)
    return weights
