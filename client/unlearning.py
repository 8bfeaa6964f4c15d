"""The owner's side of FIUn: dampen the models it owns with what they inherited.

For each listed model: check that it is the expected version and was not dampened before (ledger),
take its reference Fisher from the registered summary (or compute it from the training data), choose
the strength on the tuning split, dampen, and make weights and ledger entry visible together.  One
model's failure never touches another.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from disinherit.client.features import CachedLogits
from disinherit.client.owner import Owner
from disinherit.client.store import Application
from disinherit.client.summaries import fisher_summary
from disinherit.client.tuning import Pinned, Strength, tune
from disinherit.common.checkpoints import weights_digest
from disinherit.common.errors import DisinheritError, FisherError, StoreError
from disinherit.common.fisher import ClassFishers
from disinherit.common.fiun import Dampened, unlearn_parameters
from disinherit.common.graph_formats import record_to_proto
from disinherit.common.labels import class_indices
from disinherit.common.packets import align_head, head_names
from disinherit.common.records import ModelRecord, ModelStatus
from disinherit.v1 import unlearning_pb2 as pb


def unlearn(owner: Owner, task: pb.UnlearnTask) -> pb.UnlearnReply:
    """Dampen every model of a task and return what was done to each.

    A model that cannot be dampened is reported as failed, with the reason, and left as it is.
    """
    return pb.UnlearnReply(models=[_one(owner, task, model) for model in task.models])


def _one(owner: Owner, task: pb.UnlearnTask, model: pb.ModelTask) -> pb.ModelResult:
    try:
        record = owner.store.record(model.model_id)
        if record.digest != model.digest:
            raise StoreError(
                f"Expected model {record.id!r} with digest {model.digest!r}, but the owner holds "
                f"{record.digest!r}. Register the owner's models again."
            )
        entry = owner.store.applied(task.request_id, record.digest, record.id)
        if entry is not None:
            recorded = pb.ModelResult.FromString(entry.result)
            recorded.outcome = pb.OUTCOME_ALREADY_APPLIED
            return recorded
        if model.fisher >= len(task.fishers):
            raise FisherError(
                f"Expected the index of one of {len(task.fishers)} Fisher packets for model "
                f"{record.id!r}, but got {model.fisher}."
            )
        packet = task.fishers[model.fisher]
        result, weights = dampen_model(owner, record, packet, task.method)
        started = time.perf_counter()
        successor = _successor(record, task, weights)
        result.successor.CopyFrom(record_to_proto(successor))
        fishers, scope = _remaining_summary(owner, record, packet.classes)
        stored = owner.store.apply(
            Application(
                request_id=task.request_id,
                model_id=record.id,
                expected_digest=record.digest,
                successor=successor,
                weights=weights,
                result=result.SerializeToString(deterministic=True),
                fishers=fishers,
                fisher_scope=scope,
            )
        )
        result = pb.ModelResult.FromString(stored.result)
        result.apply_seconds += time.perf_counter() - started
        return result
    except DisinheritError as error:
        return pb.ModelResult(model_id=model.model_id, outcome=pb.OUTCOME_FAILED, error=str(error))


def dampen_model(
    owner: Owner, record: ModelRecord, packet: pb.FisherPacket, method: pb.Method
) -> tuple[pb.ModelResult, dict[str, Tensor]]:
    """Compute the dampened weights of one model; nothing is stored.

    Args:
        owner: the owner of the model.
        record: the version to dampen.
        packet: the merged Fisher of its upstream roots.
        method: how to unlearn.

    Returns:
        What was chosen and selected, and the complete new weights.

    Raises:
        FisherError: if packet and model do not fit together.
        LabelError: if their label spaces do not.
        CheckpointError: if the stored weights are missing or damaged.
    """
    weights = owner.store.weights(record.id)
    network = owner.network(record)
    network.load_state_dict(weights)
    parameters = dict(network.named_parameters())
    forget = align_head(packet, record.labels)
    out_of_scope = sorted(name for name in forget if name not in parameters)
    forget = {name: value.to(owner.device) for name, value in forget.items() if name in parameters}
    if not forget:
        raise FisherError(
            f"Expected a Fisher packet for parameters of model {record.id!r}, but it has none of "
            f"{out_of_scope}."
        )
    inherited = [name for name in packet.classes if name in record.labels]
    forgotten = class_indices(record.labels, inherited)

    started = time.perf_counter()
    reference = _reference(owner, record, network, tuple(forget), method.reference, forgotten)
    fisher_seconds = time.perf_counter() - started

    heads = [name for name in head_names(packet) if name in forget]
    row_scoped = method.row_scoped and bool(packet.classes) and bool(heads)
    in_scope = {name: parameters[name].detach().to(owner.device) for name in forget}

    def dampened(strength: Strength) -> Dampened:
        return unlearn_parameters(
            in_scope,
            forget,
            reference,
            alpha=strength.alpha,
            lam=strength.lam,
            exponent=method.exponent,
            bound=method.bound,
            gauge=strength.gauge,
            head=(packet.head_weight, packet.head_bias or None) if heads else None,
            forgotten_rows=forgotten if row_scoped else None,
        )

    started = time.perf_counter()
    pinned = Pinned(
        method.alpha if method.HasField("alpha") else None,
        method.lam if method.HasField("lam") else None,
        method.gauge if method.HasField("gauge") else None,
    )
    tuned = None
    batches = None if pinned.complete else owner.tuning_data(record)
    if batches is not None:
        logits = CachedLogits(network, batches, frozenset(forget), owner.device)
        tuned = tune(dampened, logits, logits.targets, forgotten, pinned)
    strength = tuned or pinned.default()
    tune_seconds = time.perf_counter() - started

    started = time.perf_counter()
    outcome = dampened(strength)
    changed = {name: value.to(weights[name].device) for name, value in outcome.parameters.items()}
    result = pb.ModelResult(
        model_id=record.id,
        outcome=pb.OUTCOME_APPLIED,
        alpha=strength.alpha,
        lam=strength.lam,
        gauge=strength.gauge,
        tuned=tuned is not None,
        selections=[
            pb.Selection(parameter=name, rows=rows.tolist(), total=in_scope[name].numel())
            for name, rows in outcome.selected.items()
        ],
        out_of_scope=out_of_scope,
        fisher_seconds=fisher_seconds,
        tune_seconds=tune_seconds,
        apply_seconds=time.perf_counter() - started,
    )
    return result, {**weights, **changed}


def _reference(
    owner: Owner,
    record: ModelRecord,
    network: nn.Module,
    names: tuple[str, ...],
    reference: str,
    forgotten: Sequence[int],
) -> dict[str, Tensor]:
    """Return F_ref: over the retained classes, or over all own training data (the paper's)."""
    summary = fisher_summary(owner, record, network, names)
    fisher = summary.total() if reference == "all" else summary.excluding(forgotten)
    return {name: fisher.values[name].to(owner.device) for name in names}


def _successor(
    record: ModelRecord, task: pb.UnlearnTask, weights: dict[str, Tensor]
) -> ModelRecord:
    return replace(
        record,
        id=f"{record.id}~{task.request_id}",
        digest=weights_digest(weights),
        created_us=max(task.created_us, record.created_us + 1),
        provenance=None,
        fisher_digest="",
        status=ModelStatus.ACTIVE,
    )


def _remaining_summary(
    owner: Owner, record: ModelRecord, classes: Sequence[str]
) -> tuple[ClassFishers | None, str]:
    """Return the Fisher summary to hand on to the successor: without the forgotten classes."""
    registered = owner.store.fishers(record.id)
    if registered is None:
        return None, ""
    summary, scope = registered
    kept = torch.tensor([name not in classes for name in record.labels])
    sums = {
        name: torch.where(kept.view(-1, *[1] * (value.dim() - 1)), value, 0.0)
        for name, value in summary.sums.items()
    }
    return ClassFishers(sums, summary.counts * kept), scope
