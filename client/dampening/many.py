"""Stacked unlearning in many models of one task, stored in one step.

The cost is about that of reading parameters in scope and Fisher summaries; no other part of a model
is read, hashed or written.  Models are processed in batches, so memory is bounded.

Stacking needs a registered summary and no data for tuning or measuring.  All other models, with or
without errors, and models in which nothing changes, are unlearned in one by one.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from disinherit.client.dampening.known_heads import outlined_network
from disinherit.client.dampening.one import make_successor
from disinherit.client.dampening.problem import DampeningProblem
from disinherit.client.dampening.resolution import resolve_problem
from disinherit.client.dampening.task_inputs import TaskInputs
from disinherit.client.owner.failures import explain, one_line
from disinherit.client.owner.owner import Owner
from disinherit.client.privacy.remaining import cleared_classes
from disinherit.client.store.ledger import Forgotten
from disinherit.client.store.objects import fishers_digest
from disinherit.client.store.structure import Structure, tied_names
from disinherit.client.store.updates import Snapshot, Update
from disinherit.common.errors import DisinheritError, InputError, RequestError
from disinherit.common.fiun.comparing import scaled
from disinherit.common.fiun.dampening import Dampened
from disinherit.common.fiun.stacked import unlearn_stacked
from disinherit.common.graph.identifiers import check_id
from disinherit.common.graph.labels import class_indices
from disinherit.common.graph.proto import record_to_proto
from disinherit.common.graph.records import ModelRecord
from disinherit.common.tensors.checkpoints import make_manifest
from disinherit.common.tensors.identity import Manifest, manifest_digest
from disinherit.common.tensors.stored import bytes_of, manifest_of, verify
from disinherit.common.wire.packets import PackedFisher
from disinherit.v1 import unlearning_pb2 as pb

_log = logging.getLogger(__name__)

BATCH_MODELS = 256
BATCH_BYTES = 64 << 20
_DIGEST = 68  # characters of a manifest line for the digest and its separators


@dataclass(frozen=True, slots=True, eq=False)
class _Kind:
    """Models of one architecture and label space that are dampened with one packet."""

    problem: DampeningProblem
    layout: dict[str, str]
    packet: PackedFisher


@dataclass(frozen=True, slots=True, eq=False)
class _Member:
    """A model of a batch, with the inputs of its dampening."""

    origin: Snapshot
    reference: Mapping[str, Tensor]
    inheritance: float | None
    scale: float
    cleared: tuple[int, ...]
    cleared_before: tuple[int, ...]
    fisher_digest: str
    seconds: float


@dataclass(slots=True, eq=False)
class _Batch:
    kinds: dict[_Kind, list[_Member]] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    bytes: int = 0

    @property
    def full(self) -> bool:
        return len(self.models) >= BATCH_MODELS or self.bytes >= BATCH_BYTES


_Key = tuple[str, tuple[str, ...], tuple[int, int | None], Structure]
"""Architecture, labels, indices of the packets, and structure."""


class Stacking:
    """Unlearning in many models of one task.

    Args:
        inputs: inputs of the task.
    """

    def __init__(self, inputs: TaskInputs) -> None:
        owner, task = inputs.owner, inputs.task
        self._inputs = inputs
        self._owner = owner
        self._task = task
        self._made_us = {model.model_id: model.created_us for model in task.models}
        self._kinds: dict[_Key, _Kind | None] = {}
        self._logged: set[tuple[_Kind | None, type[Exception]]] = set()
        # Samples to forget of a root of its own may measure descendants, one by one.
        self._has_samples = any(root.model_id in inputs.held for root in task.roots)

    def unlearn(self, models: Sequence[pb.ModelTask]) -> dict[str, pb.ModelResult]:
        """Unlearn in the models that can be stacked.

        Returns:
            Model -> result.  The other models are unchanged, and must be processed one by one.
        """
        results: dict[str, pb.ModelResult] = {}
        batch = _Batch()
        for model in models:
            if model.model_id not in results and model.model_id not in batch.models:
                self._take(batch, model)
            if batch.full:
                results |= self._apply(batch)
                batch = _Batch()
        return results | self._apply(batch)

    def _take(self, batch: _Batch, model: pb.ModelTask) -> None:
        """Add a model to a batch if it can be stacked."""
        started = time.perf_counter()
        alone = bool(model.samples or model.shares) or self._has_samples
        if alone or self._inputs.method.repair_steps:
            return
        kind = None
        try:
            check_id(self._task.request_id, "request id", RequestError)
            record = self._inputs.record(model)
            if _has_data(self._owner, record):
                return
            packet = self._inputs.packet(model)
            if _is_heir(self._owner, record, packet):
                return
            if packet.classes and not set(packet.classes) & set(record.labels):
                return  # not reached, which is decided one by one
            kind = self._kind(record, packet, model)
            if kind is None:
                return
            problem = kind.problem
            origin = self._owner.store.origin(record.id, self._task.request_id, problem.names)
            if origin is None or not set(problem.names) <= origin.fishers.sums.keys():
                return
            if _layout(origin.manifest) != kind.layout:
                return
            device = torch.device("cpu")  # until they are stacked
            lazy = problem.reference(record, origin.fishers, origin.tensors, device)
            reference = dict(lazy)  # small enough for a batch
            own = problem.own(record, origin.fishers)
            inheritance = problem.inheritance(record, own)
            line = (record.id, *(entry.model_id for entry in self._owner.store.made_by(record.id)))
            scale = problem.scale(line, own, reference)
            forgotten = [name for name in packet.classes if name in record.labels]
            cleared = {*origin.cleared, *class_indices(record.labels, forgotten)}
            before = cleared_classes(self._owner, record)
            # Without data these are decided one by one.
            if len(cleared) == len(record.labels) or problem.doubt(len(record.labels), before):
                return
            digest = fishers_digest(origin.fishers.without(cleared))
        except Exception as error:  # including errors of the owner's loaders and networks
            # The error occurs again, and is reported, when the model is processed alone.
            self._leave(kind, model.model_id, error)
            return
        member = _Member(
            origin.without_fishers(),
            scaled(reference, scale),
            inheritance,
            scale,
            tuple(sorted(cleared)),
            before,
            digest,
            time.perf_counter() - started,
        )
        batch.kinds.setdefault(kind, []).append(member)
        batch.models.add(record.id)
        held = (*origin.tensors.values(), *origin.carried.values(), *reference.values())
        batch.bytes += sum(tensor.nbytes for tensor in held)

    def _kind(self, record: ModelRecord, packet: PackedFisher, model: pb.ModelTask) -> _Kind | None:
        """Return the kind of a model; `None` if models of this kind are processed one by one.

        Networks with the same tensors may differ in their heads or tied parameters.  The store has
        the structure of registered models, so no network is built for them.
        """
        structure = self._owner.store.structure(record.id)
        if structure is None:
            return None
        place = model.fisher, model.alike if model.HasField("alike") else None
        key = record.architecture, record.labels, place, structure
        if key not in self._kinds:
            with self._owner.store.opened(record.id) as stored:
                network, _ = outlined_network(self._owner, record, stored)
                if tied_names(network) != structure.ties:
                    return None
                sizes = bytes_of(stored)
                if sum(size for name, size in sizes.items() if name in packet.values) > BATCH_BYTES:
                    self._kinds[key] = None  # tensor by tensor, one by one
                    return None
                layout = _layout(manifest_of(stored))
                verify(stored)  # one model of a kind also outside of the scope
            try:
                alike = self._inputs.alike(model)
                problem = resolve_problem(
                    self._owner, record, network, packet, self._inputs.method, alike
                )
            except InputError as error:  # for all models of this kind
                self._kinds[key] = None
                self._leave(None, record.id, error)
                return None
            self._kinds[key] = _Kind(problem, layout, packet)
        return self._kinds[key]

    def _leave(self, kind: _Kind | None, model_id: str, error: Exception) -> None:
        """Log, once for each kind and reason, why models are not stacked.

        Unexpected errors are warnings, since they may not recur when the model is processed alone.
        Their traceback is logged at level debug.
        """
        reason = kind, type(error)
        if reason not in self._logged:
            self._logged.add(reason)
            expected = isinstance(error, DisinheritError)
            _log.log(
                logging.INFO if expected else logging.WARNING,
                "request %r: model %r, and others like it, are unlearned in one by one: %s: %s",
                self._task.request_id,
                model_id,
                type(error).__name__,
                one_line(error),
            )
            if not expected:
                _log.debug("It was raised here:", exc_info=error)

    def _apply(self, batch: _Batch) -> dict[str, pb.ModelResult]:
        results: dict[str, pb.ModelResult] = {}
        changes: list[Update] = []
        for kind, members in batch.kinds.items():
            for result, change in self._dampened(kind, members):
                results[result.model_id] = result
                changes.append(change)
        started = time.perf_counter()
        try:
            done = self._owner.store.apply_changes(changes) if changes else frozenset()
        except Exception as error:
            for model, result in results.items():
                reason = explain(error, f"unlearn in model {model!r}")
                result.CopyFrom(
                    pb.ModelResult(model_id=model, outcome=pb.OUTCOME_FAILED, error=reason)
                )
            return results
        each = (time.perf_counter() - started) / max(1, len(changes))
        for result in results.values():
            result.apply_seconds += each
        return {model: result for model, result in results.items() if model in done}

    def _dampened(
        self, kind: _Kind, members: Sequence[_Member]
    ) -> list[tuple[pb.ModelResult, Update]]:
        started = time.perf_counter()
        problem, method, device = kind.problem, self._inputs.method, self._owner.device
        strength = problem.pinned.default()
        outcome = unlearn_stacked(
            {
                n: torch.stack([m.origin.tensors[n] for m in members]).to(device)
                for n in problem.names
            },
            problem.forget,
            {n: torch.stack([m.reference[n] for m in members]).to(device) for n in problem.names},
            alpha=strength.alpha,
            lam=strength.lam,
            exponent=method.exponent,
            bound=method.bound,
            gauge=strength.gauge,
            heads=problem.heads,
            forgotten_rows=problem.rows,
            cleared_rows=[member.cleared_before for member in members],
        )
        each = (time.perf_counter() - started) / len(members)
        return [
            self._change(kind, member, one, each)
            for place, member in enumerate(members)
            if _changes(member.origin, one := _place(outcome, place))
        ]

    def _change(
        self, kind: _Kind, member: _Member, outcome: Dampened, seconds: float
    ) -> tuple[pb.ModelResult, Update]:
        problem, origin, strength = kind.problem, member.origin, kind.problem.pinned.default()
        new = problem.under_all_names(outcome.parameters)
        digest = manifest_digest({**origin.manifest, **make_manifest(new)})
        changed = {**origin.carried, **new}
        made_us = self._made_us.get(origin.record.id, 0)
        successor = make_successor(origin.record, self._task, digest, member.fisher_digest, made_us)
        result = pb.ModelResult(
            model_id=origin.record.id,
            outcome=pb.OUTCOME_APPLIED,
            remedy=pb.REMEDY_SUPPRESSED,
            selections=[
                pb.Selection(
                    parameter=name, rows=rows.tolist(), total=outcome.parameters[name].numel()
                )
                for name, rows in outcome.selected.items()
            ],
            out_of_scope=problem.out_of_scope,
            not_covered=problem.not_covered,
            tied=problem.tied,
            inheritance=member.inheritance,
            scale=member.scale,
            successor=record_to_proto(successor),
            fisher_seconds=member.seconds,
            apply_seconds=seconds,
            request_digest=self._task.request_digest,
        )
        problem.report(strength, result)
        recorded = result.SerializeToString(deterministic=True)
        names = [name for name in kind.packet.classes if name in origin.record.labels]
        change = Update(
            self._task.request_id,
            origin,
            successor,
            changed,
            member.cleared,
            recorded,
            self._task.request_digest,
            Forgotten(tuple(names)),
        )
        return result, change


def _is_heir(owner: Owner, record: ModelRecord, packet: PackedFisher) -> bool:
    """Whether unlearning made a model from one of the roots; it is compared like that root."""
    if record.provenance is not None:
        return False
    return any(entry.model_id in packet.sources for entry in owner.store.made_by(record.id))


def _has_data(owner: Owner, record: ModelRecord) -> bool:
    """Whether the owner may have data to tune or measure a model."""
    return any(
        data(record) is not None
        for data in (owner.evaluation_data, owner.tuning_data, owner.training_data)
    )


def _layout(manifest: Manifest) -> dict[str, str]:
    """Return name -> name, dtype and shape of every tensor of a manifest, without digests."""
    return {name: line[:-_DIGEST] for name, line in manifest.items()}


def _changes(origin: Snapshot, outcome: Dampened) -> bool:
    """Whether values were selected and any of them changed."""
    return outcome.selected_count > 0 and any(
        not torch.equal(origin.tensors[name], value.cpu())
        for name, value in outcome.parameters.items()
    )


def _place(stacked: Dampened, place: int) -> Dampened:
    """Return the outcome of one of the stacked models."""
    return Dampened(
        {name: value[place] for name, value in stacked.parameters.items()},
        {name: rows[place] for name, rows in stacked.selected.items()},
    )
