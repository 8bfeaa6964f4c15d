"""Application of a pass: broadcast of tasks, results, and verification.

Owners' answers are stored on arrival, those that have arrived together in one transaction that
checks the lease's token.  So a coordinator that lost its campaign to another one cannot store
anything of it.
"""

import time
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from disinherit.common.errors import StoreError
from disinherit.common.text import one_line
from disinherit.common.wire.messages import packets_for
from disinherit.server.campaign.answered_parts import AnsweredPart, answered_parts
from disinherit.server.campaign.campaign_pass import Pass
from disinherit.server.campaign.contact import check_held
from disinherit.server.campaign.dry_pass import Prepared
from disinherit.server.campaign.outcomes import outcome_of, refused
from disinherit.server.campaign.remedies import has_exact_parents, present_version
from disinherit.server.states import Answered, Task, TaskState
from disinherit.server.store.repeated_tasks import find_made
from disinherit.server.transport.answers import checked_digest, reply_of, unhandled
from disinherit.server.transport.base import Answer, Ask, together
from disinherit.v1 import unlearning_pb2 as pb

_NOT_FORGOTTEN = (TaskState.INEFFECTIVE, TaskState.HARMFUL)
_AT_ONCE = 1000
"""Models in one transaction, for whose end other writers wait."""


def apply(one: Pass) -> None:
    """Send every owner its message, all at once; store every answer as it arrives.

    Raises:
        StoreError: if the lease was lost.
    """
    started = time.perf_counter()
    one.say("unlearning in every affected model, all owners at once")
    prepared, todo = one.prepared, one.todo
    one.prepared = Prepared()
    tasks = [_short_of(todo[m], TaskState.FAILED, r) for m, r in prepared.failed.items()]
    tasks += [_short_of(todo[m], TaskState.PENDING, r) for m, r in prepared.waiting.items()]
    fishers: dict[str, Sequence[str]] = {}
    for message in prepared.messages.values():
        for model in message.models:
            tasks.append(_short_of(todo[model.model_id], TaskState.SENT))
            used = packets_for(message, model)
            fishers[model.model_id] = [packet.digest for packet in used]
    with one.writing([task.model_id for task in tasks]) as change:
        if not one.advances:
            return
        change.put(tasks, fishers)
    for answers in together(one.ask(prepared.asks("train.unlearn"))):
        _record(one, answers)
    one.timing.broadcast_and_apply += time.perf_counter() - started
    _look_at_failures(one)


def verify(one: Pass) -> None:
    """Ask owners for the digests of what they stored, and verify the tasks whose digests match.

    Models that nobody measured are not verified where a root has not forgotten, also if that is
    known only after they were.

    Raises:
        StoreError: if the lease was lost.
    """
    started = time.perf_counter()
    applied = {
        made.id: task
        for task in one.tasks.values()
        if task.state is TaskState.APPLIED and (made := task.successor) is not None
    }
    unproven = _unproven(one)
    if applied:
        _read_back(one, applied, unproven)
    one.put(_proven(one.tasks[model], unproven) for model in unproven if model in one.tasks)
    one.timing.verify += time.perf_counter() - started


def _read_back(
    one: Pass, applied: Mapping[str, Task], unproven: Mapping[str, Mapping[str, str]]
) -> None:
    """Verify tasks whose successors their owners hold; `applied` has them by these."""
    one.say("verifying what the owners hold")
    by_owner: dict[str, list[str]] = {}
    for id, task in applied.items():
        by_owner.setdefault(task.owner, []).append(id)
    for found in evaluations(one.ask, by_owner, checked_digest, digests_only=True):
        tasks = [
            _proven(_verified(applied[made], evaluation), unproven)
            for made, evaluation in found.items()
        ]
        with one.writing([task.model_id for task in tasks]) as change:
            before = change.driven.tasks
            # Skip tasks that were reopened meanwhile: the owner was asked about another state.
            change.put([t for t in tasks if before[t.model_id].state is TaskState.APPLIED])


Check = Callable[[str, pb.Evaluation], pb.Evaluation]


def evaluations(
    ask: Callable[[Sequence[Ask]], Iterator[Answer]],
    models: Mapping[str, Sequence[str]],
    check: Check,
    *,
    digests_only: bool = False,
) -> Iterator[dict[str, pb.Evaluation]]:
    """Ask the owners of models for confusion counts on their evaluation splits.

    Args:
        ask: sends messages to owners, and yields their answers.
        models: owner -> ids of versions that it has.
        check: returns an owner's evaluation of a version if it is plausible, else one with `error`.
        digests_only: whether to ask for digests only.

    Yields:
        For each owner, as it answers, or for several that have answered, an evaluation of each of
        their models, with `error` set if there is none.
    """
    asks = [
        Ask(owner, "evaluate.panel", pb.EvaluateTask(model_ids=ids, digests_only=digests_only))
        for owner, ids in models.items()
    ]
    for answers in together(ask(asks)):
        found: dict[str, pb.Evaluation] = {}
        for answer in answers:
            named = models[answer.ask.owner]
            try:
                reply, error = reply_of(answer, pb.EvaluateReply)
                sent = {e.model_id: e for e in reply.models} if reply is not None else {}
                missing = pb.Evaluation(error=error or "its owner did not mention it")
                found |= {model: check(model, sent.get(model, missing)) for model in named}
            except Exception as error:  # one answer must not stop the others
                reason = unhandled(answer, error)
                found |= {model: pb.Evaluation(model_id=model, error=reason) for model in named}
        yield found


def _record(one: Pass, answers: Sequence[Answer]) -> None:
    """Store answers of owners; models that they leave out failed, or stay pending."""
    parts: list[AnsweredPart] = []
    count = 0
    for answer in answers:
        for part in answered_parts(answer, _AT_ONCE):
            if parts and count + len(part.models) > _AT_ONCE:
                _record_parts(one, parts)
                parts, count = [], 0
            parts.append(part)
            count += len(part.models)
    _record_parts(one, parts)
    for answer in answers:
        one.say(reply_of(answer, pb.UnlearnReply)[1] or f"{answer.ask.owner} answered")


def _record_parts(one: Pass, parts: Sequence[AnsweredPart]) -> None:
    """Store parts in one transaction; each in its own if they cannot be handled together."""
    try:
        _record_together(one, parts)
    except StoreError:
        raise
    except Exception as error:  # one answer must not stop the others
        for part in parts:
            if len(parts) > 1:
                _record_parts(one, [part])
            else:
                _give_up(one, part, unhandled(part.answer, error))


def _record_together(one: Pass, parts: Sequence[AnsweredPart]) -> None:
    todo = one.todo
    results: dict[str, pb.ModelResult] = {}
    asked: dict[str, pb.UnlearnTask] = {}
    silent: list[Task] = []
    told: list[AnsweredPart] = []
    for part in parts:
        found = part.results()
        results |= found
        asked |= dict.fromkeys(found, part.asked)
        reason = part.error or "its owner did not mention it"
        missing = [m.model_id for m in part.models if m.model_id not in found]
        unanswered = [_unanswered(todo[model], part.answer, reason) for model in missing]
        if part.reply is not None:
            told.append(part)
        elif all(task == one.tasks[task.model_id] for task in unanswered):
            continue
        silent += unanswered
    if not (told or silent):
        return
    stored: list[str] = []
    models = [model for part in told for model in part.models]
    named = {model.model_id for model in models} | {task.model_id for task in silent}
    with one.writing(named) as change:
        for part in told:
            about = sorted(model.model_id for model in part.models)
            change.notified(part.answer.ask.owner, about, tasked=True)
        for some in _generations(one, (model for model in models if model.model_id in results)):
            tasks = ChainMap(change.tasks, one.tasks)
            outcomes = [
                outcome_of(
                    todo[model.model_id],
                    results[model.model_id],
                    asked[model.model_id],
                    model,
                    exact_parents=has_exact_parents(model, one.graph, tasks)
                    or _was_repeated(one, results[model.model_id]),
                )
                for model in some
            ]
            answered = [o for o in outcomes if isinstance(o, Answered)]
            rejected = change.put_answered(answered) if answered else {}
            refusals = [refused(todo[model], why) for model, why in rejected.items()]
            change.put([*(o for o in outcomes if isinstance(o, Task)), *refusals])
            stored += [o.task.model_id for o in answered if o.task.model_id not in rejected]
        change.put(silent)
    for model in stored:
        new = results[model].outcome != pb.OUTCOME_ALREADY_APPLIED
        (one.changed if new else one.already).append(model)


def _was_repeated(one: Pass, result: pb.ModelResult) -> bool:
    """Return whether a version has the weights that a repetition of the training gave."""
    return bool(made := result.successor.digest) and one.repeated.get(result.model_id) == made


def _generations(one: Pass, models: Iterable[pb.ModelTask]) -> Iterator[list[pb.ModelTask]]:
    """Yield models, parents first, so that what a model is computed from is stored before it."""
    some: dict[str, pb.ModelTask] = {}
    for model in models:
        if model.rebuilding.exact and some:
            parents = (parent.model_id for parent in model.rebuilding.parents if parent.affected)
            if any(present_version(one.graph, one.tasks, id) in some for id in parents):
                yield list(some.values())
                some = {}
        some[model.model_id] = model
    yield list(some.values())


def _give_up(one: Pass, part: AnsweredPart, reason: str) -> None:
    """Fail the models of an answer that cannot be handled."""
    models = (model.model_id for model in part.models)
    one.put(_short_of(one.tasks[model], TaskState.FAILED, reason) for model in models)


def _look_at_failures(one: Pass) -> None:
    """Ask owners that failed at a successor whether they still hold it."""
    failed = [one.tasks[model] for model in one.todo if one.tasks[model].state is TaskState.FAILED]
    owners = {task.owner for task in failed}
    if not owners:
        return
    with one.store.reading() as db:
        done = [task for tasks in find_made(db, owners).values() for _, task in tasks]
    made = {successor.id for task in done if (successor := task.successor) is not None}
    asked = {task.owner for task in failed if task.model_id in made}
    if asked:
        check_held(one.store, one.ask, asked)
        one.look(None)


def _verified(task: Task, evaluation: pb.Evaluation) -> Task:
    made = task.successor
    expected = made.digest if made is not None else ""
    if evaluation.missing and made is not None:
        reason = f"its owner no longer holds {made.id}, which it had made"
        return replace(task, state=TaskState.PENDING, reason=reason)
    if evaluation.error and not evaluation.digest:
        return replace(task, reason=f"not verified: {evaluation.error}")
    if evaluation.digest != expected:
        held = one_line(evaluation.digest)
        reason = f"reported digest {expected}, but its owner holds {held}"
        return replace(task, state=TaskState.FAILED, reason=reason)
    return replace(task, state=TaskState.VERIFIED, reason="")


def _unproven(one: Pass) -> dict[str, dict[str, str]]:
    """Return model -> its other roots that have not forgotten, each with its owner and state.

    What a model got from a root is the same as what the root took.  If the root has not forgotten
    by it, nothing shows that the model has, unless somebody measured it.
    """
    failed: dict[str, tuple[str, Task]] = {}
    for root in one.request.roots:
        version = present_version(one.graph, one.tasks, root.model_id)
        task = one.tasks.get(version)
        if task is not None and task.state in _NOT_FORGOTTEN:
            failed[root.model_id] = version, task
    found: dict[str, dict[str, str]] = {}
    for group in one.plan.groups if failed else ():
        above = [failed[root] for root in group.roots if root in failed]
        for model in group.models:
            if others := [(version, task) for version, task in above if version != model]:
                found[model] = {f"{v} is {task.state}": task.owner for v, task in others}
    return found


def _proven(task: Task, unproven: Mapping[str, Mapping[str, str]]) -> Task:
    """Return a task as it is, or ineffective if it is to be verified without any proof.

    Figures of samples are of those that its owner has: what to forget at roots of its own.
    """
    doubts = unproven.get(task.model_id, {})
    if task.state is not TaskState.VERIFIED or task.result is None:
        return task
    measured = task.result.HasField("forget")
    if measured:
        by_changes = bool(task.result.deltas)
        doubts = {d: owner for d, owner in doubts.items() if by_changes and owner != task.owner}
    if not doubts:
        return task
    who = "nobody measured it"
    if measured:
        who = "its owner measured it for samples of its own roots only"
    reason = (
        f"{who}, and what it inherited to forget by did not work where it was measured: "
        f"{' and '.join(sorted(doubts))}. Roll it back, and ask in another way"
    )
    return replace(task, state=TaskState.INEFFECTIVE, reason=reason)


def _unanswered(task: Task, answer: Answer, reason: str) -> Task:
    """Return the task of a model without an answer."""
    if answer.awaited:
        return _short_of(task, TaskState.SENT, reason)
    if not answer.unreachable:
        return _short_of(task, TaskState.FAILED, reason)
    if not answer.sent and task.state is TaskState.SENT:
        return task  # another coordinator reaches its owner and has asked it
    return _short_of(task, TaskState.PENDING, reason)


def _short_of(task: Task, state: TaskState, reason: str = "") -> Task:
    """Return a task in a state before `applied`; an applied one stays so, to be verified."""
    if task.successor is not None and not task.repeated:
        if task.state.unforgotten:
            return task
        return replace(task, state=TaskState.APPLIED, reason=reason)
    return replace(task, state=state, reason=reason)
