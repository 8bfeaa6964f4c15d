"""Registered Fisher summaries: per-class sums of squared gradients over a model's training data.

A summary answers every request for classes without data, which may be deleted by then.  Beside it,
owners that ask for it register the curvature, which lets the root method `ekfac` forget samples.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from torch import nn

from disinherit.client.dampening.known_heads import find_structure
from disinherit.client.owner.batches import ShrinkingBatches
from disinherit.client.owner.failures import explain
from disinherit.client.owner.owner import (
    Batches,
    KeepsCurvature,
    Owner,
    load_network,
    outline_network,
)
from disinherit.client.privacy.policy import OPEN, ReleasePolicy, policy_of
from disinherit.client.privacy.remaining import training_data, without_cleared
from disinherit.client.store.structure import Structure, tied_names
from disinherit.common.curvature.ekfac import measure
from disinherit.common.encodings import SummaryForm
from disinherit.common.errors import FisherError, ScopeError
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.fisher.diagonal import fisher_diagonal
from disinherit.common.fisher.factors import is_shortened
from disinherit.common.graph.proto import record_to_proto
from disinherit.common.graph.records import FisherScale, ModelRecord
from disinherit.common.limits import clipped
from disinherit.common.models.scope import resolve_scope
from disinherit.common.models.scope_text import is_head_scope
from disinherit.v1 import unlearning_pb2 as pb

MOST_EXACT = 2**28
"""Most numbers, over all classes, of sums that are kept exactly by default: 1 GiB in float32."""


@dataclass(frozen=True, slots=True, eq=False)
class FisherSummary:
    """Per-class Fisher sums of a model, and their scope."""

    fishers: ClassFishers
    scope: str


def register(owner: Owner, task: pb.RegisterTask, policy: ReleasePolicy = OPEN) -> pb.RegisterReply:
    """Compute missing Fisher summaries of the owner's models, and return the models.

    A model without training data is returned without a summary.

    Args:
        owner: the owner of the models.
        task: models and scope.
        policy: conditions on releases, added to the owner's own.

    Raises:
        StoreError: if a listed model does not exist.
        FisherError: if a summary cannot be computed; models registered before remain registered.
    """
    ids = list(task.model_ids) or [record.id for record in owner.store.records()]
    policy = policy.stricter(policy_of(owner))
    records = []
    for record in map(owner.store.record, ids):
        try:
            records.append(_registered(owner, record, task.scope, policy))
        except Exception as error:  # including errors of the owner's loaders and networks
            reason = explain(error, f"compute the Fisher summary of model {record.id!r}")
            raise FisherError(f"Cannot register model {record.id!r}. {reason}") from error
    return pb.RegisterReply(
        owner=owner.store.owner, models=[record_to_proto(record) for record in records]
    )


def fisher_summary(
    owner: Owner,
    record: ModelRecord,
    network: nn.Module,
    names: Sequence[str],
    scope: str = "",
    form: SummaryForm | None = None,
) -> FisherSummary:
    """Return the registered per-class Fisher sums of a model, else compute them.

    Args:
        owner: the owner of the model.
        record: the model.
        network: its module with its weights.
        names: parameters that the summary must cover.
        scope: name of these parameters in a new summary.
        form: form of a new summary; `None` for that of the owner's policy.

    Raises:
        FisherError: if no summary covers them and the training data is gone or unusable.
        CheckpointError: if the registered summary is missing on disk or damaged.
    """
    registered = registered_summary(owner, record, names)
    if registered is not None:
        return registered
    batches = training_data(owner, record)
    if batches is None:
        raise FisherError(
            f"Expected a registered Fisher summary of model {record.id!r} for "
            f"{clipped(', '.join(names))}, or its training data, but the owner has neither. "
            "Register the summary while the data exists."
        )
    fishers = class_fishers(owner, record, network, names, batches, form=form)
    return FisherSummary(fishers, scope)


def class_fishers(
    owner: Owner,
    record: ModelRecord,
    network: nn.Module,
    names: Sequence[str],
    batches: Batches,
    clip_norm: float = 0.0,
    apart: Collection[int] | None = None,
    form: SummaryForm | None = None,
) -> ClassFishers:
    """Compute the per-class Fisher sums of a model over some of its data.

    Args:
        owner: the owner of the model.
        record: the model.
        network: its module with its weights.
        names: parameters to cover.
        batches: the data.
        clip_norm: bound on each sample's squared gradient (`fisher_diagonal`); 0 for none.
        apart: the only classes with separate sums, over all rows of the head (`fisher_diagonal`);
            `None` for every class.
        form: exact or factored; `None` for that of the owner's policy.

    Raises:
        FisherError: if the data is unusable.
    """
    factored = _is_factored(form or policy_of(owner).summaries, record, network, names)
    return ShrinkingBatches(batches).run(
        lambda fitting: fisher_diagonal(
            network.to(owner.device),
            fitting,
            scope=names,
            per_class=True,
            apart=apart,
            factored=factored,
            num_classes=len(record.labels),
            device=owner.device,
            clip_norm=clip_norm or None,
        )
    )


def _is_factored(
    form: SummaryForm, record: ModelRecord, network: nn.Module, names: Sequence[str]
) -> bool:
    """Whether sums below the head are kept as those of rows and columns."""
    if form is SummaryForm.AUTO:
        matrices = (network.get_parameter(name).shape for name in names)
        values = sum(shape.numel() for shape in matrices if is_shortened(shape))
        return len(record.labels) * values > MOST_EXACT
    return form is SummaryForm.FACTORED


def whole_fishers(
    owner: Owner,
    record: ModelRecord,
    network: nn.Module,
    names: Sequence[str],
    fishers: ClassFishers,
    classes: Collection[int],
) -> ClassFishers:
    """Return Fisher sums with all rows of the head for some classes.

    For a head of very many classes, a summary has only each class's own row.  Then the sums are
    computed, separately for these classes and together for the others.

    Args:
        owner: the owner of the model.
        record: the model.
        network: its module with its weights.
        names: parameters to cover.
        fishers: its summary.
        classes: the classes.

    Raises:
        FisherError: if the data is gone or unusable.
    """
    if not fishers.by_rows:
        return fishers
    batches = training_data(owner, record)
    if batches is None:
        raise FisherError(
            f"Expected all rows of {', '.join(fishers.others)} for single classes of model "
            f"{record.id!r}, but its summary of {fishers.num_classes} classes has only each "
            "class's own row, and its training data is gone. Select in the rows of the forgotten "
            "classes only (row_scoped, the default)."
        )
    return class_fishers(owner, record, network, names, batches, apart=classes)


def registered_summary(
    owner: Owner, record: ModelRecord, names: Sequence[str]
) -> FisherSummary | None:
    """Return the registered summary if it covers all given parameters.

    Args:
        owner: the owner of the model.
        record: the model.
        names: the parameters.

    Raises:
        CheckpointError: if it is missing on disk or damaged.
    """
    registered = owner.store.fishers(record.id)
    if registered is None or not set(names) <= registered[0].sums.keys():
        return None
    fishers, scope = registered
    return FisherSummary(without_cleared(owner, record, fishers), scope)


def _registered(
    owner: Owner, record: ModelRecord, scope: str, policy: ReleasePolicy
) -> ModelRecord:
    if owner.store.destroyed(record.id) is not None:
        return record
    network = outline_network(owner, record)
    kept = owner.store.structure(record.id)
    if kept is None or kept.ties != tied_names(network):
        with owner.store.opened(record.id) as weights:
            kept = find_structure(owner, record, load_network(owner, record, weights))
        if kept.seen:
            owner.store.set_structure(record.id, kept)
    if is_head_scope(scope) and kept.head is None:
        if not kept.seen:
            return record
        raise ScopeError(kept.reason)
    names = resolve_scope(network, scope, kept.head)
    summary = registered_summary(owner, record, names)
    if summary is None:
        if training_data(owner, record) is None:
            return record
        with owner.store.opened(record.id) as weights:
            loaded = load_network(owner, record, weights)
        summary = fisher_summary(owner, record, loaded, names, scope, policy.summaries)
        del loaded
        record = owner.store.set_fishers(record.id, summary.fishers, scope)
    _register_curvature(owner, record)
    return replace(record, fisher_scale=_scale(summary, policy, network, kept))


def _register_curvature(owner: Owner, record: ModelRecord) -> None:
    """Register the curvature over a model's remaining data, if asked for and missing."""
    if not isinstance(owner, KeepsCurvature) or not owner.keeps_curvature(record):
        return
    batches = training_data(owner, record)
    if batches is None or owner.store.has_curvature(record.id):
        return
    with owner.store.opened(record.id) as weights:
        network = load_network(owner, record, weights)
    names = resolve_scope(network, "all")
    curvature = ShrinkingBatches(batches).run(
        lambda fitting: measure(network, names, fitting, owner.device)
    )
    owner.store.set_curvature(record.id, curvature)


def _scale(
    summary: FisherSummary, policy: ReleasePolicy, network: nn.Module, structure: Structure
) -> FisherScale | None:
    """Return the scale of a summary; `None` if it would reveal too few samples."""
    fishers = summary.fishers
    if any(0 < count < policy.min_forget_samples for count in fishers.counts.tolist()):
        return None
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    head = resolve_scope(network, "head", structure.head) if structure.head is not None else ()
    return FisherScale(
        summary.scope,
        tuple(fishers.class_totals()),
        sum(sizes[name] for name in head),
        sum(sizes[name] for name in resolve_scope(network, "all")),
    )
