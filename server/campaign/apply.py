"""From messages to verified models: broadcast what is prepared, record, verify.

Every answer is stored as it arrives, with the token of the pass's lease: a coordinator that lost
its campaign to another one can store nothing of it any more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import cast

from disinherit.common.errors import StoreError
from disinherit.common.text import one_line
from disinherit.server.campaign.collect import Prepared, Say
from disinherit.server.campaign.evaluations import evaluations
from disinherit.server.campaign.outcomes import refused, told
from disinherit.server.states import Answered, Task, TaskState
from disinherit.server.store.leases import Lease
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.transport.answers import reply_of, unhandled
from disinherit.server.transport.base import Answer, Transport
from disinherit.v1 import unlearning_pb2 as pb

_NONE: Mapping[str, Sequence[str]] = MappingProxyType({})
_AT_ONCE = 100
"""Models that one transaction is about: others who write wait for its end."""


@dataclass(slots=True)
class Applied:
    """Models that owners answered for, by whether they were changed just now."""

    changed: list[str] = field(default_factory=list)
    already: list[str] = field(default_factory=list)


class Rollout:
    """One pass's broadcast and verification.

    Args:
        store: graph, requests and tasks.
        lease: the right to drive the campaign.
        transport: the way to the owners.
        timeout: seconds to wait for an owner's answer.
        say: told what is happening.
    """

    def __init__(
        self,
        store: CoordinatorStore,
        lease: Lease,
        transport: Transport,
        timeout: float,
        say: Say,
    ) -> None:
        self._store = store
        self._lease = lease
        self._transport = transport
        self._timeout = timeout
        self._say = say

    def broadcast(self, prepared: Prepared, todo: Mapping[str, Task]) -> Applied:
        """Send every owner its message, all at once; store every answer as it arrives.

        Args:
            prepared: the messages, and why there is none for some models.
            todo: model -> its task as it stands.

        Returns:
            What the owners answered for.

        Raises:
            StoreError: if the lease was lost.
        """
        self._say("dampening in every affected model, all owners at once")
        settled = [_short_of(todo[m], TaskState.FAILED, r) for m, r in prepared.failed.items()]
        settled += [_short_of(todo[m], TaskState.PENDING, r) for m, r in prepared.waiting.items()]
        settled += [
            _short_of(todo[model.model_id], TaskState.SENT)
            for message in prepared.messages.values()
            for model in message.models
        ]
        fishers = {
            model.model_id: [message.fishers[model.fisher].digest]
            for message in prepared.messages.values()
            for model in message.models
        }
        self._put(*settled, fishers=fishers)
        applied = Applied()
        for answer in self._transport.ask(prepared.asks("train.unlearn"), self._timeout):
            try:
                self._record(answer, todo, applied)
            except StoreError:
                raise
            except Exception as error:  # one owner's answer must not end the others
                self._give_up(answer, unhandled(answer, error))
        return applied

    def verify(self) -> None:
        """Ask the owners what is on their disks, and settle the tasks for which it is right.

        Raises:
            StoreError: if the lease was lost.
        """
        applied = {
            made.id: task
            for task in self._store.tasks(self._lease.request_id).values()
            if task.state is TaskState.APPLIED and (made := task.successor) is not None
        }
        if not applied:
            return
        self._say("verifying what the owners hold")
        asked = evaluations(
            self._store.records(applied),
            self._transport,
            self._timeout,
            list(applied),
            digests_only=True,
        )
        for found in asked:
            self._put(
                *(_verified(applied[model], evaluation) for model, evaluation in found.items())
            )

    def _record(self, answer: Answer, todo: Mapping[str, Task], applied: Applied) -> None:
        """Store one owner's answer; models it says nothing of are failed, or still pending."""
        asked = cast("pb.UnlearnTask", answer.ask.task)
        missing = {model.model_id: model for model in asked.models}
        reply, error = reply_of(answer, pb.UnlearnReply)
        if reply is not None:
            owner, named = answer.ask.owner, sorted(missing)
            self._store.record_told(self._lease.request_id, owner, named, lease=self._lease)
        said: dict[str, pb.ModelResult] = {}
        for result in reply.models if reply is not None else ():
            if result.model_id in missing:
                said.setdefault(result.model_id, result)
        found = [
            told(todo[model], result, asked, missing.pop(model)) for model, result in said.items()
        ]
        answered = [one for one in found if isinstance(one, Answered)]
        rejected = self._store_answered(answered)
        for model in (one.task.model_id for one in answered if one.task.model_id not in rejected):
            new = said[model].outcome != pb.OUTCOME_ALREADY_APPLIED
            (applied.changed if new else applied.already).append(model)
        reason = error or "its owner did not mention it"
        self._put(
            *(one for one in found if isinstance(one, Task)),
            *(refused(todo[model], why) for model, why in rejected.items()),
            *(_unanswered(todo[model], answer, reason) for model in missing),
        )
        self._say(error or f"{answer.ask.owner} answered")

    def _give_up(self, answer: Answer, reason: str) -> None:
        """Fail the models of an answer that cannot be handled, but those that are stored by now."""
        tasks = self._store.tasks(self._lease.request_id)
        asked = cast("pb.UnlearnTask", answer.ask.task).models
        self._put(*(_short_of(tasks[one.model_id], TaskState.FAILED, reason) for one in asked))

    def _store_answered(self, answered: Sequence[Answered]) -> dict[str, str]:
        """Store what an owner applied, and return why the graph refuses some of it."""
        rejected: dict[str, str] = {}
        for start in range(0, len(answered), _AT_ONCE):
            part = answered[start : start + _AT_ONCE]
            rejected |= self._store.update_answered(self._lease.request_id, part, lease=self._lease)
        return rejected

    def _put(self, *tasks: Task, fishers: Mapping[str, Sequence[str]] = _NONE) -> None:
        self._store.update_all(self._lease.request_id, tasks, fishers=fishers, lease=self._lease)


def _verified(task: Task, evaluation: pb.Evaluation) -> Task:
    made = task.successor
    expected = made.digest if made is not None else ""
    if evaluation.missing and made is not None:
        reason = f"its owner holds {made.id} no more, which it had made"
        return replace(task, state=TaskState.PENDING, reason=reason)
    if evaluation.error and not evaluation.digest:
        return replace(task, reason=f"not verified: {evaluation.error}")
    if evaluation.digest != expected:
        held = one_line(evaluation.digest)
        reason = f"reported digest {expected}, but its owner holds {held}"
        return replace(task, state=TaskState.FAILED, reason=reason)
    return replace(task, state=TaskState.VERIFIED, reason="")


def _unanswered(task: Task, answer: Answer, reason: str) -> Task:
    """Return a task whose owner said nothing of it."""
    if answer.awaited:
        return _short_of(task, TaskState.SENT, reason)
    if not answer.unreachable:
        return _short_of(task, TaskState.FAILED, reason)
    if not answer.sent and task.state is TaskState.SENT:
        return task  # somebody else reaches its owner and has asked it
    return _short_of(task, TaskState.PENDING, reason)


def _short_of(task: Task, state: TaskState, reason: str = "") -> Task:
    """Return a task that is sent, waits or failed; what was applied stays so, to be verified."""
    if task.successor is not None and not task.repeated:
        if task.state.unforgotten:
            return task
        return replace(task, state=TaskState.APPLIED, reason=reason)
    return replace(task, state=state, reason=reason)
