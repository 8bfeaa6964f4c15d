"""Outcomes of owners' results: forgotten, or another final state.

An owner reports what it did; the coordinator judges the outcome.  A model has not forgotten if
nothing was selected in it, or if by its owner's figures it still recognises the forget set.  What
figures of samples show is the same rule as the owner's.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from disinherit.common.errors import InputError
from disinherit.common.limits import clipped
from disinherit.common.text import one_line
from disinherit.common.wire.messages import NO_PACKET, packets_for
from disinherit.common.wire.received import check_result, received_record
from disinherit.common.wire.recognition import (
    contradicted,
    is_informative,
    other_ways,
    recognises,
    shows,
    unshown,
    what_to_do,
    where_to_look,
)
from disinherit.server.campaign.remedies import EXACT, is_exact, remedy_of
from disinherit.server.states import Answered, Task, TaskState
from disinherit.v1 import unlearning_pb2 as pb

_APPLIED = (pb.OUTCOME_APPLIED, pb.OUTCOME_ALREADY_APPLIED)
_UNFORGOTTEN: Mapping[int, TaskState] = {
    pb.OUTCOME_INEFFECTIVE: TaskState.INEFFECTIVE,
    pb.OUTCOME_NOT_REACHED: TaskState.NOT_REACHED,
    pb.OUTCOME_HARMFUL: TaskState.HARMFUL,
}
_MEASURES = ("accuracy", "auc")
_SOURCES = ("", "evaluation", "tuning", "training")
"""Fixed values, since the audit log must not hold an owner's free text."""


def outcome_of(
    task: Task,
    result: pb.ModelResult,
    sent: pb.UnlearnTask,
    model: pb.ModelTask,
    *,
    exact_parents: bool = False,
) -> Answered | Task:
    """Return the outcome of an owner's result: a successor, or a task with the reason.

    Args:
        task: the present task.
        result: the owner's result for the model.
        sent: the message to the owner.
        model: its entry for the model.
        exact_parents: whether it is exact if it was computed again from its parents
            (`has_exact_parents`).
    """
    if task.state is TaskState.INEFFECTIVE and task.successor is not None:
        return task  # until it is rolled back, whatever the owner answers now
    if result.outcome not in (*_APPLIED, *_UNFORGOTTEN):
        reason = one_line(result.error) or "its owner reported no outcome"
        if model.shares and str(NO_PACKET) in reason:
            reason = (
                "its owner has an older release of Disinherit, which does not know changes of "
                "roots: update it, or ask with --mechanism fisher"
            )
        return replace(task, state=TaskState.FAILED, reason=reason)
    try:
        check_result(result)
    except InputError as error:
        return refused(task, str(error))
    wrong = _malformed(result, sent.request_digest)
    if wrong:
        return refused(task, wrong)
    packets = packets_for(sent, model)
    classes = dict.fromkeys(name for packet in packets for name in packet.classes)
    exact = is_exact(result, packets, model, exact_parents=exact_parents)
    state, reason = _state(result, model, exact=exact)
    kept = _kept(task, result, state, classes, model.digest)
    try:
        kept.remedy = remedy_of(result, state, packets, model, exact_parents=exact_parents)
    except InputError as error:
        return refused(task, str(error))
    shown = result.HasField("forget") and shows(result.forget)
    kept.believed = exact and state is TaskState.APPLIED and kept.remedy in EXACT and not shown
    done = replace(task, state=state, reason=reason, result=kept)
    if state is not TaskState.APPLIED and not result.successor.id:
        return done
    used = tuple(packet.digest for packet in packets)
    try:
        return Answered(done, received_record(result.successor), used)
    except InputError as error:
        return refused(task, str(error))


def refused(task: Task, why: str) -> Task:
    """Return the failed task of a refused result."""
    reason = f"its owner's report was refused: {one_line(why)}"
    return replace(task, state=TaskState.FAILED, reason=reason)


def selected(result: pb.ModelResult) -> int:
    """Return the number of dampened values."""
    return sum(sum(selection.rows) for selection in result.selections)


def _malformed(result: pb.ModelResult, request_digest: str) -> str:
    """Return why a result is malformed; `""` if it is not."""
    if result.request_digest not in ("", request_digest):
        return (
            f"Expected what was done for the request with digest {request_digest}, but its owner's "
            f"ledger has another one under this id, with digest {one_line(result.request_digest)}. "
            "Submit it under an id that was not used before."
        )
    if result.HasField("forget"):
        found = result.forget
        named = (found.named_before, found.named_after, found.named_chance)
        attack = (found.found_before, found.found_after)
        moves = (found.among_kept, found.moved)
        numbers = (found.before, found.after, found.floor, found.margin, *named, *attack, *moves)
        losses = (found.loss_before, found.loss_after)
        if not all(math.isfinite(value) and value >= 0 for value in losses):
            return f"Expected losses of at least 0, but got {', '.join(map(str, losses))}."
        if not all(math.isfinite(value) and 0 <= value <= 1 for value in numbers):
            return f"Expected shares from 0 to 1, but got {', '.join(map(str, numbers))}."
        if found.samples < 1 or found.measure not in _MEASURES:
            return (
                f"Expected accuracy or auc of at least one sample, but got "
                f"{one_line(found.measure)!r} of {found.samples}."
            )
        if found.unseen < 0:
            return f"Expected a number of unseen samples, but got {found.unseen}."
        if found.source not in _SOURCES:
            return (
                "Expected what was measured to be on evaluation, tuning or training samples, but "
                f"got {clipped(one_line(found.source))!r}."
            )
    return ""


def _state(result: pb.ModelResult, model: pb.ModelTask, *, exact: bool) -> tuple[TaskState, str]:
    reason = one_line(result.error)
    by_changes = bool(model.shares)
    if result.outcome in _UNFORGOTTEN:
        return _UNFORGOTTEN[result.outcome], reason or "its owner gave no reason"
    found = result.forget
    if result.successor.digest == model.digest and not result.cleared_before:
        return TaskState.INEFFECTIVE, (
            "its owner made a version with the very same weights, so it knows what it knew: roll "
            f"it back, and {other_ways(by_changes=by_changes)}"
        )
    if not selected(result) and not result.cleared_before:
        if by_changes:
            return TaskState.INEFFECTIVE, (
                "its owner changed nothing, so it knows what it knew: "
                + other_ways(by_changes=True)
            )
        return TaskState.INEFFECTIVE, (
            "its owner selected nothing to dampen, so it knows what it knew: choose a wider scope "
            "or a lower alpha, or retrain it"
        )
    if exact:
        if not (why := contradicted(found)):
            return TaskState.APPLIED, ""
        rebuilt = result.remedy == pb.REMEDY_REBUILT
        advice = where_to_look(rebuilt=rebuilt)
        return TaskState.INEFFECTIVE, f"by its owner's own figures {why}: {advice}"
    if result.HasField("forget") and recognises(found):
        return TaskState.INEFFECTIVE, (
            f"by its owner's own figures it still recognises what is to be forgotten "
            f"({found.measure} {found.before:.3f} before, {found.after:.3f} after, on "
            f"{found.samples} samples of {one_line(found.source)})"
        )
    if not result.cleared_before and (doubt := unshown(found)):
        advice = what_to_do(found, by_changes=by_changes)
        return TaskState.INEFFECTIVE, f"by its owner's own figures {doubt}: {advice}"
    return TaskState.APPLIED, ""


def _kept(
    task: Task, result: pb.ModelResult, state: TaskState, classes: Iterable[str], digest: str
) -> pb.ModelResult:
    """Return the result to store; a known successor keeps the first result about it."""
    made, successor = task.successor, result.successor
    known = () if made is None else (made.digest, made.created_us)
    if task.result is not None and known == (successor.digest, successor.created_us):
        return task.result
    kept = pb.ModelResult()
    kept.CopyFrom(result)
    kept.error = one_line(result.error)
    for delta in kept.deltas:
        delta.note = one_line(delta.note)
    kept.ClearField("hardly_known")
    if not is_informative(result.forget):
        if result.HasField("forget"):
            kept.hardly_known.CopyFrom(result.forget)
        kept.ClearField("forget")  # it shows nothing: nothing was known on these samples
    if state is TaskState.INEFFECTIVE:
        kept.outcome = pb.OUTCOME_INEFFECTIVE
    del kept.forgotten[:]
    kept.ClearField("cleared_recorded")
    if state is TaskState.APPLIED:
        kept.forgotten.extend(name for name in classes if name in successor.labels)
        unchanged = successor.digest == digest or not selected(result)
        if result.cleared_before and (unchanged or unshown(result.forget)):
            kept.cleared_recorded = False
    return kept
