"""The coordinator: carry out one request over all affected models, in parallel and once.

    submit   plan the request and store a task for every affected model
    run      roots --query.fisher--> coordinator: merge per group (MFIM)
             coordinator --train.unlearn--> owners, all at once
             coordinator --evaluate.panel--> owners: what is on disk is what was reported

Every answer is stored before the next message goes out, and one owner's failure is recorded for its
models and touches no other.  What an owner applied is never taken back: a run that is repeated or
resumed asks for what is left.  Plain Python: it knows neither Flower nor gRPC.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from disinherit.common.errors import InputError
from disinherit.common.graph_formats import record_from_proto
from disinherit.server.answers import checked_evaluation, one_line, registered_record, reply_of
from disinherit.server.archive import Archive, NoArchive, StoredArchive
from disinherit.server.campaign import CampaignResult, Timing
from disinherit.server.planning import Group, Plan, check_plan, plan
from disinherit.server.preparation import Prepared, Say, prepare
from disinherit.server.store import CoordinatorStore
from disinherit.server.tasks import Task, TaskState
from disinherit.server.transport import Answer, Ask, Transport
from disinherit.v1 import unlearning_pb2 as pb

__all__ = ["CampaignResult", "Coordinator", "Prepared", "Timing"]


@dataclass(slots=True)
class _Applied:
    """Models that owners answered for, by whether they were changed just now."""

    changed: list[str] = field(default_factory=list)
    already: list[str] = field(default_factory=list)


class Coordinator:
    """Carries out requests over the models that a store knows and a transport reaches.

    Args:
        store: graph, requests and tasks.
        transport: the way to the owners.
        timeout: seconds to wait for an owner's answer.
        say: told what is happening, for a progress display.
    """

    def __init__(
        self,
        store: CoordinatorStore,
        transport: Transport,
        timeout: float = 600.0,
        say: Say = lambda _: None,
    ) -> None:
        self.store = store
        self._transport = transport
        self._timeout = timeout
        self._say = say

    def register(self, owners: Sequence[str], scope: str) -> dict[str, str]:
        """Ask owners for Fisher summaries of their models and complete the records.

        Args:
            owners: whom to ask.
            scope: scope of the summaries.

        Returns:
            Owner -> reason, for those that could not, or whose models were not all accepted.
        """
        graph = self.store.graph()
        errors: dict[str, list[str]] = {}
        asks = [
            Ask(owner, "query.register", pb.RegisterTask(scope=scope))
            for owner in dict.fromkeys(owners)
        ]
        for answer in self._transport.ask(asks, self._timeout):
            owner = answer.ask.owner
            reply, error = reply_of(answer, pb.RegisterReply)
            if reply is None:
                errors.setdefault(owner, []).append(error)
                continue
            for message in reply.models:
                try:
                    self.store.add_model(registered_record(owner, message, graph))
                except InputError as refused:
                    errors.setdefault(owner, []).append(one_line(str(refused)))
        return {owner: "; ".join(reasons) for owner, reasons in errors.items()}

    def submit(self, request: pb.UnlearningRequest) -> Plan:
        """Plan a request and store it with a task for every affected model.

        Submitting the same request again changes nothing, except that models which came to be
        affected since then get their tasks.

        Raises:
            InputError: if the request cannot be planned, or its id was used for another one;
                nothing is stored then.
        """
        known = request.id in self.store.requests()
        if known:
            self.store.submit(request, [])
        tasks = self.store.tasks(request.id)
        cleansed = {t.result.successor.id for t in tasks.values() if t.result is not None}
        graph = self.store.graph()
        planned = plan(graph, request, cleansed)
        if not known:
            check_plan(planned)
        new = []
        for model in planned.affected:
            task = tasks.get(model) or Task(model, graph.model(model).owner)
            if task.result is None:
                if model in planned.exempt:
                    task = replace(task, state=TaskState.EXEMPT, reason=planned.exempt[model])
                elif model in planned.failed:
                    task = replace(task, state=TaskState.FAILED, reason=planned.failed[model])
            if task != tasks.get(model):
                new.append(task)
        self.store.submit(request, new)
        return planned

    def run(self, request_id: str, *, resend: bool = False) -> CampaignResult:
        """Carry out what is left of a submitted request.

        Args:
            request_id: the request.
            resend: send to owners that already answered, too; what they applied stays as it is.

        Returns:
            The state of every affected model.

        Raises:
            RequestError: if there is no such request.
        """
        request = self.store.request(request_id)
        planned = self.submit(request)
        before = self.store.tasks(request_id)
        groups = [
            replace(group, models=models)
            for group in planned.groups
            if (models := tuple(m for m in group.models if resend or not before[m].state.done))
        ]
        todo = {model: before[model] for group in groups for model in group.models}
        earlier = tuple(m for m, task in before.items() if task.result and m not in todo)
        timing, applied = Timing(), _Applied()
        if groups:
            prepared = self._prepare(request, groups, StoredArchive(self.store, request_id))
            timing.fisher, timing.merge = prepared.fisher_seconds, prepared.merge_seconds
            started = time.perf_counter()
            applied = self._broadcast(request_id, prepared, todo)
            timing.broadcast_and_apply = time.perf_counter() - started
        started = time.perf_counter()
        self._verify(request_id)
        timing.verify = time.perf_counter() - started
        return CampaignResult(
            request_id,
            self.store.tasks(request_id),
            timing,
            changed=tuple(applied.changed),
            already_applied=(*earlier, *applied.already),
        )

    def prepare(self, request: pb.UnlearningRequest, groups: Sequence[Group]) -> Prepared:
        """Collect and merge the Fisher information of a request and address it to the owners.

        Args:
            request: the request; it need not be submitted.
            groups: the models to prepare for, as planned.

        Returns:
            One message per owner; nothing is sent to be applied, and nothing is stored.
        """
        return self._prepare(request, groups, NoArchive())

    def _prepare(
        self, request: pb.UnlearningRequest, groups: Sequence[Group], archive: Archive
    ) -> Prepared:
        graph = self.store.graph()
        return prepare(graph, self._transport, self._timeout, request, groups, self._say, archive)

    def evaluate(self, models: Sequence[str]) -> dict[str, pb.Evaluation]:
        """Return the confusion counts of models on their owners' evaluation splits.

        Args:
            models: ids of registered versions.

        Returns:
            An evaluation for each; with `error` set where there is none.

        Raises:
            GraphError: if a model is unknown.
        """
        graph = self.store.graph()
        by_owner: dict[str, list[str]] = {}
        for model in dict.fromkeys(models):
            by_owner.setdefault(graph.model(model).owner, []).append(model)
        asks = [
            Ask(owner, "evaluate.panel", pb.EvaluateTask(model_ids=ids))
            for owner, ids in by_owner.items()
        ]
        found: dict[str, pb.Evaluation] = {}
        for answer in self._transport.ask(asks, self._timeout):
            reply, error = reply_of(answer, pb.EvaluateReply)
            sent = {e.model_id: e for e in reply.models} if reply is not None else {}
            missing = pb.Evaluation(error=error or "its owner did not mention it")
            for model in by_owner[answer.ask.owner]:
                evaluation = sent.get(model, missing)
                found[model] = checked_evaluation(graph.model(model), evaluation)
        return found

    def _broadcast(self, request_id: str, prepared: Prepared, todo: Mapping[str, Task]) -> _Applied:
        """Send every owner its message, all at once; store every answer as it arrives."""
        self._say("dampening in every affected model, all owners at once")
        settled = [_short_of(todo[m], TaskState.FAILED, r) for m, r in prepared.failed.items()]
        settled += [_short_of(todo[m], TaskState.PENDING, r) for m, r in prepared.waiting.items()]
        settled += [
            _short_of(todo[model.model_id], TaskState.SENT)
            for message in prepared.messages.values()
            for model in message.models
        ]
        self.store.update_all(request_id, settled)
        applied = _Applied()
        asks = [Ask(owner, "train.unlearn", task) for owner, task in prepared.messages.items()]
        for answer in self._transport.ask(asks, self._timeout):
            self._record(request_id, answer, todo, applied)
        return applied

    def _record(
        self, request_id: str, answer: Answer, todo: Mapping[str, Task], applied: _Applied
    ) -> None:
        """Store one owner's answer; models it says nothing of are failed, or still pending."""
        missing = {model.model_id for model in cast("pb.UnlearnTask", answer.ask.task).models}
        reply, error = reply_of(answer, pb.UnlearnReply)
        for result in reply.models if reply is not None else ():
            if result.model_id in missing:
                missing.discard(result.model_id)
                self._record_one(request_id, todo[result.model_id], result, applied)
        state = TaskState.PENDING if answer.unreachable else TaskState.FAILED
        reason = error or "its owner did not mention it"
        self.store.update_all(request_id, [_short_of(todo[m], state, reason) for m in missing])
        self._say(error or f"{answer.ask.owner} answered")

    def _record_one(
        self, request_id: str, task: Task, result: pb.ModelResult, applied: _Applied
    ) -> None:
        """Store what an owner says of one model, unless the graph refuses it."""
        if result.outcome not in (pb.OUTCOME_APPLIED, pb.OUTCOME_ALREADY_APPLIED):
            reason = one_line(result.error) or "its owner reported no outcome"
            self.store.update(request_id, replace(task, state=TaskState.FAILED, reason=reason))
            return
        first = task.result or result
        try:
            self.store.update(
                request_id,
                replace(task, state=TaskState.APPLIED, reason="", result=first),
                record_from_proto(result.successor),
            )
        except InputError as refused:
            reason = f"its owner's report was refused: {one_line(str(refused))}"
            self.store.update(request_id, replace(task, state=TaskState.FAILED, reason=reason))
            return
        new = result.outcome == pb.OUTCOME_APPLIED
        (applied.changed if new else applied.already).append(task.model_id)

    def _verify(self, request_id: str) -> None:
        """Ask the owners what is on their disks, and settle the tasks for which it is right."""
        applied = {
            task.result.successor.id: task
            for task in self.store.tasks(request_id).values()
            if task.state is TaskState.APPLIED and task.result is not None
        }
        if not applied:
            return
        self._say("verifying what the owners hold")
        found = self.evaluate(list(applied))
        verified = []
        for successor, task in applied.items():
            evaluation = found[successor]
            expected = task.result.successor.digest if task.result else ""
            if evaluation.error and not evaluation.digest:
                verified.append(replace(task, reason=f"not verified: {evaluation.error}"))
            elif evaluation.digest != expected:
                held = one_line(evaluation.digest)
                reason = f"reported digest {expected}, but its owner holds {held}"
                verified.append(replace(task, state=TaskState.FAILED, reason=reason))
            else:
                verified.append(replace(task, state=TaskState.VERIFIED, reason=""))
        self.store.update_all(request_id, verified)


def _short_of(task: Task, state: TaskState, reason: str = "") -> Task:
    """Return a task that is sent, waits or failed; what was applied stays so, to be verified."""
    if task.result is not None:
        return replace(task, state=TaskState.APPLIED, reason=reason)
    return replace(task, state=state, reason=reason)
