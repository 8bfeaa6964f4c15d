"""Outcome of unlearning in a model: forgotten, ineffective, not reached, or harmful.

The decision uses the selection and the owner's data.  Each outcome except `forgotten` has a reason
with the figures and advice; a person then has to decide.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from disinherit.client.dampening.task_inputs import TaskInputs
from disinherit.client.dampening.unlearned_model import UnlearnedModel
from disinherit.client.outcome.class_counts import BeforeAndAfter
from disinherit.client.outcome.recognition import Measured, measure
from disinherit.client.outcome.samples_of_roots import count_unnamed, find_samples
from disinherit.client.owner.owner import Owner
from disinherit.client.privacy.remaining import (
    cleared_classes,
    cleared_samples,
)
from disinherit.client.store.ledger import Forgotten
from disinherit.common.graph.identifiers import line_name
from disinherit.common.graph.labels import class_indices
from disinherit.common.graph.records import ModelRecord
from disinherit.common.wire.messages import sources_of
from disinherit.common.wire.recognition import (
    TRAINING,
    contradicted,
    gentler_ways,
    other_ways,
    unshown,
    what_to_do,
    where_to_look,
)
from disinherit.v1 import unlearning_pb2 as pb

MOST_DROP = 20.0
"""Accuracy on retained data that a model may lose by default, in percentage points."""

MOST_RISE = 1.0
"""Rise of a language model's loss on retained data that it may have by default, in nats.

It multiplies the perplexity by e.
"""

ANY_DROP = 100.0
"""Bound of a request that takes any loss, also that of a kept class."""

_NAMED = 5
"""Most classes that a reason lists."""


@dataclass(frozen=True, slots=True)
class Decided:
    """The decision about a model.

    Attributes:
        outcome: applied, ineffective, not reached or harmful.
        reason: why it is not applied; `""` if it is.
        stored: whether to keep the successor.
        measured: measurement on the owner's data.
        cleared_before: whether earlier requests already made the model forget all of it.
        forgotten: content of the ledger entry.
    """

    outcome: pb.Outcome.ValueType
    reason: str
    stored: bool
    measured: Measured
    cleared_before: bool
    forgotten: Forgotten


def decide(
    inputs: TaskInputs,
    model: pb.ModelTask,
    record: ModelRecord,
    classes: Sequence[str],
    made: UnlearnedModel,
) -> Decided:
    """Measure a model before and after, and decide the outcome of unlearning.

    Args:
        inputs: inputs from the request's message.
        model: the message's entry for the model.
        record: the model.
        classes: the class names to forget, of those of the request that arrive at the model.
        made: its new weights.

    Raises:
        CheckpointError: if the weights do not fit the owner's network.
        DataError: if the owner's data do not fit the model, or earlier forgotten samples cannot be
            left out.
    """
    with _Stored(inputs.owner, record.id) as old:
        return _decide(inputs, model, record, classes, made, old)


def _decide(
    inputs: TaskInputs,
    model: pb.ModelTask,
    record: ModelRecord,
    classes: Sequence[str],
    made: UnlearnedModel,
    old: Mapping[str, Tensor],
) -> Decided:
    owner, task = inputs.owner, inputs.task
    known = [name for name in classes if name in record.labels]
    indices = tuple(class_indices(record.labels, known))
    forget, kept = (None, None) if classes else find_samples(inputs, model, record)
    subject = BeforeAndAfter(record, old, made.weights, indices, forget, kept, made.exact)
    measured = measure(owner, subject)
    before = made.cleared or _cleared_before(inputs, model, record, indices)
    chosen = sum(sum(one.rows) for one in made.result.selections)
    outcome: pb.Outcome.ValueType = pb.OUTCOME_APPLIED
    reason, stored = "", True
    by_changes = bool(model.shares)
    other = other_ways(by_changes=by_changes)
    if classes and not known:  # whatever was changed in it, no class of its own shows an effect
        outcome, stored = pb.OUTCOME_NOT_REACHED, False
        reason = _not_reached(record, classes)
    elif not before and not (chosen and _changes(made, subject)):
        outcome, stored = pb.OUTCOME_INEFFECTIVE, False
        total = sum(one.total for one in made.result.selections)
        done = f"nothing was selected among {total} values"
        if by_changes:
            done = f"none of {total} values changed"
        elif chosen:
            done = f"{chosen} of {total} values were selected, and none changed"
        reason = f"{done}, so model {record.id!r} is unchanged{recognised(measured)}: {other}"
    elif made.exact and measured.forget is not None and (why := contradicted(measured.forget)):
        rebuilt = made.result.remedy == pb.REMEDY_REBUILT
        how = "computed again from its parents" if rebuilt else "trained again"
        outcome = pb.OUTCOME_INEFFECTIVE
        reason = (
            f"model {record.id!r} was {how} without the samples to forget, and {why}: "
            f"{where_to_look(rebuilt=rebuilt)}"
        )
    elif made.exact and not task.HasField("max_retain_drop"):
        pass  # what training without the data gives, also where figures cannot tell or fall
    elif measured.retain_drop > (bound := _bound(inputs, record)) + 1e-9:
        outcome, stored = pb.OUTCOME_HARMFUL, False
        reason = _harmful(record, measured, bound, by_changes=by_changes)
    elif measured.destroyed and bound < ANY_DROP:
        outcome, stored = pb.OUTCOME_HARMFUL, False
        reason = _destroyed(record, measured, by_changes=by_changes)
    elif (loss := measured.loss) and loss.after > loss.before + MOST_RISE and bound < ANY_DROP:
        outcome, stored = pb.OUTCOME_HARMFUL, False
        reason = (
            f"model {record.id!r} was left unchanged: its mean loss on {loss.samples} retained "
            f"{loss.source} sequences would rise from {loss.before:.2f} to {loss.after:.2f}, by "
            f"more than {MOST_RISE:g}: {gentler_ways(by_changes=by_changes)}"
        )
    elif made.exact:
        pass
    elif measured.recognises:
        outcome = pb.OUTCOME_INEFFECTIVE
        reason = (
            f"model {record.id!r} was changed in {chosen} values and has not forgotten"
            f"{recognised(measured)}: roll it back, and {other}"
        )
    elif made.doubt and measured.undecided:
        outcome, stored = pb.OUTCOME_INEFFECTIVE, False
        reason = (
            f"model {record.id!r} was left unchanged: {made.doubt}, and no data of its owner "
            f"tells whether it would still recognise {_listed(measured.undecided)}: give its owner "
            "evaluation data of these classes, or retrain it"
        )
    elif measured.forget is not None and not before and (why := unshown(measured.forget)):
        outcome = pb.OUTCOME_INEFFECTIVE
        reason = (
            f"model {record.id!r} was changed in {chosen} values, and {why}: "
            f"{what_to_do(measured.forget, by_changes=by_changes)}"
        )
    if stored and (unnamed := count_unnamed(inputs, model, record)):
        outcome = pb.OUTCOME_INEFFECTIVE
        reason = (
            f"model {record.id!r} was itself trained on {unnamed} of the samples to forget, which "
            "the request names at other models only, and nothing takes out what it learned of them "
            "itself: roll it back, and make it a root of them, too, or retrain it"
        )
    forgotten = Forgotten(tuple(known), tuple(model.samples), model.sample_salt)
    return Decided(outcome, reason, stored, measured, before, forgotten)


def nothing_kept(owner: Owner, record: ModelRecord, classes: Sequence[str]) -> str:
    """Return why a request would leave a model without any class; `""` if it keeps one.

    The owner's ledger counts, since the coordinator may not know of all earlier requests.

    Args:
        owner: the owner of the model.
        record: the model.
        classes: the class names to forget.
    """
    known = [name for name in classes if name in record.labels]
    cleared = cleared_classes(owner, record)
    if not known or {*cleared, *class_indices(record.labels, known)} < {*range(len(record.labels))}:
        return ""
    before = [record.labels[c] for c in cleared if record.labels[c] not in known]
    earlier = f" and earlier requests cleared {_listed(before)}" if before else ""
    return (
        f"model {record.id!r} was left unchanged: {_listed(known)} are to be forgotten{earlier}, "
        "so no class of it would be kept: retire the model instead"
    )


class _Stored(Mapping[str, Tensor]):
    """The weights of a version, opened when they are first needed, and read one by one.

    Without data to measure on, nothing may need them.
    """

    def __init__(self, owner: Owner, model_id: str) -> None:
        self._owner = owner
        self._id = model_id
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @cached_property
    def _weights(self) -> Mapping[str, Tensor]:
        return self._opened.enter_context(self._owner.store.opened(self._id))

    def __getitem__(self, name: str) -> Tensor:
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def __contains__(self, name: object) -> bool:
        return name in self._weights


def _changes(made: UnlearnedModel, subject: BeforeAndAfter) -> bool:
    """Whether any weight changed: a factor may be 1, and a value 0."""
    if made.changed is not None:
        return made.changed
    return any(not torch.equal(subject.before[name], new) for name, new in subject.after.items())


def _bound(inputs: TaskInputs, record: ModelRecord) -> float:
    """Return how much accuracy a model may lose; any, if it is an average to be calibrated."""
    if inputs.task.HasField("max_retain_drop"):
        return inputs.task.max_retain_drop
    follows = inputs.method.calibration_rounds and record.provenance is None
    return ANY_DROP if follows else MOST_DROP


def _cleared_before(
    inputs: TaskInputs, model: pb.ModelTask, record: ModelRecord, classes: Sequence[int]
) -> bool:
    """Whether all that is to be forgotten was already forgotten on the way to the model.

    What an earlier request cleared without effect is still known, and so is what is to be forgotten
    at other roots as well: of that, only the changes that it has tell.
    """
    if classes:
        return set(classes) <= set(cleared_classes(inputs.owner, record, effective=True))
    asked = inputs.samples(record, model)
    others = {line_name(one) for one in sources_of(inputs.task, model)} - {line_name(record.id)}
    if asked is None or others:
        return False
    return set(asked) <= set(cleared_samples(inputs.owner, record, effective=True))


def recognised(measured: Measured) -> str:
    """Return the recognition of what is to be forgotten, as the end of a sentence."""
    found = measured.forget
    if found is None:
        return ""
    if found.measure == "accuracy":
        return (
            f", and it names {found.after:.1%} of {found.samples} {found.source} samples of "
            f"class {measured.worst!r} ({found.before:.1%} before; up to {found.margin:.1%} may be "
            "chance)"
        )
    others = "kept training" if found.source == TRAINING else f"unseen {found.source}"
    compared = "smaller" if measured.recognises else "not smaller, beyond chance,"
    noun = "sample" if found.samples == 1 else "samples"
    return (
        f", and the losses of the {found.samples} {noun} to forget are {compared} than those of "
        f"{others} samples of their classes with an AUC of {found.after:.3f} "
        f"({found.before:.3f} before; at most 0.5 if it had never seen them, and up to "
        f"{found.floor + found.margin:.3f} may be chance)"
    )


def _harmful(record: ModelRecord, measured: Measured, bound: float, *, by_changes: bool) -> str:
    return (
        f"model {record.id!r} was left unchanged: its retain accuracy would fall from "
        f"{measured.retain_before:.1%} to {measured.retain_after:.1%} of {measured.retain_samples} "
        f"samples, by {measured.retain_drop:.1f} points, more than {bound:g}: "
        + gentler_ways(by_changes=by_changes)
    )


def _destroyed(record: ModelRecord, measured: Measured, *, by_changes: bool) -> str:
    name, one = min(measured.destroyed.items(), key=lambda found: found[1].after / found[1].samples)
    more = len(measured.destroyed) - 1
    others = f" (and {more} more)" if more else ""
    return (
        f"model {record.id!r} was left unchanged: it would recognise {one.after / one.samples:.1%} "
        f"of {one.samples} samples of class {name!r}{others}, which is kept, and it recognises "
        f"{one.before / one.samples:.1%}: {gentler_ways(by_changes=by_changes)}"
    )


def _not_reached(record: ModelRecord, classes: Sequence[str]) -> str:
    return (
        f"none of the classes to forget ({_listed(classes)}) is a class of model {record.id!r}, "
        f"which has {_listed(record.labels)}, so nothing would show what it forgot, and it was "
        "left unchanged: if it knows one under another name, add it to the mapping of the edge "
        "that leads to it"
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    listed = ", ".join(map(repr, names[:_NAMED]))
    return f"{listed} and {more} more" if more > 0 else listed
