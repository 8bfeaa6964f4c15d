"""The coordinator: carry out one request over all affected models, in parallel and once.

    submit   plan the request and store a task for every affected model
    run      roots --query.fisher--> coordinator: merge per group (MFIM)
             coordinator --train.unlearn--> owners, all at once
             coordinator --evaluate.panel--> owners: what is on disk is what was reported

Every answer is stored before the next message goes out, and one owner's failure is recorded for its
models and touches no other.  Plain Python: it knows neither Flower nor gRPC.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from disinherit.common.errors import DisinheritError
from disinherit.common.graph_formats import record_from_proto
from disinherit.common.merging import MergeRule
from disinherit.common.packets import merge_packets, rename_classes
from disinherit.server.planning import Group, Plan, check_plan, plan
from disinherit.server.store import CoordinatorStore, Task, TaskState, now_us
from disinherit.server.transport import Answer, Ask, Transport
from disinherit.v1 import unlearning_pb2 as pb

Say = Callable[[str], None]


@dataclass(slots=True)
class Timing:
    """Seconds spent in the stages of a campaign."""

    fisher: float = 0.0
    merge: float = 0.0
    broadcast_and_apply: float = 0.0
    verify: float = 0.0

    @property
    def total(self) -> float:
        """All stages that change or prepare models; verification is not part of it."""
        return self.fisher + self.merge + self.broadcast_and_apply


@dataclass(frozen=True, slots=True)
class CampaignResult:
    """How a campaign stands after a run.

    Attributes:
        request_id: the request.
        tasks: the task of every affected model.
        timing: seconds of this run.
        changed: models that this run changed.
        already_applied: models that had been changed before and were left as they are.
    """

    request_id: str
    tasks: dict[str, Task]
    timing: Timing = field(default_factory=Timing)
    changed: tuple[str, ...] = ()
    already_applied: tuple[str, ...] = ()

    @property
    def outcome(self) -> Literal["unchanged", "complete", "partial", "failed"]:
        """`unchanged`, `complete`, `partial` or `failed`."""
        settled = [task.state.settled for task in self.tasks.values()]
        if all(settled):
            return "complete" if self.changed else "unchanged"
        done = (TaskState.APPLIED, TaskState.VERIFIED)
        return "partial" if any(t.state in done for t in self.tasks.values()) else "failed"


@dataclass(slots=True)
class Prepared:
    """What is ready to be sent.

    Attributes:
        messages: owner -> its models and the merged Fishers they need.
        failed: model -> why there is nothing for it.
        fisher_seconds: time until all roots had answered.
        merge_seconds: time to merge and address.
    """

    messages: dict[str, pb.UnlearnTask] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    fisher_seconds: float = 0.0
    merge_seconds: float = 0.0


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
            Owner -> reason, for those that could not.
        """
        errors: dict[str, str] = {}
        asks = [Ask(o, "query.register", pb.RegisterTask(scope=scope)) for o in owners]
        for answer in self._transport.ask(asks, self._timeout):
            if answer.reply is None:
                errors[answer.ask.owner] = answer.error
                continue
            for message in cast("pb.RegisterReply", answer.reply).models:
                self.store.add_model(record_from_proto(message))
        return errors

    def submit(self, request: pb.UnlearningRequest) -> Plan:
        """Plan a request and store it with a task for every affected model.

        Submitting the same request again changes nothing.

        Raises:
            InputError: if the request cannot be planned; nothing is stored then.
        """
        graph = self.store.graph()
        if request.id in self.store.requests():
            self.store.submit(request, [])
            cleansed = {
                task.result.successor.id
                for task in self.store.tasks(request.id).values()
                if task.result is not None
            }
            return plan(graph, request, cleansed)
        planned = plan(graph, request)
        check_plan(planned)
        tasks = []
        for model in planned.affected:
            task = Task(model, graph.model(model).owner)
            if model in planned.exempt:
                task = replace(task, state=TaskState.EXEMPT, reason=planned.exempt[model])
            elif model in planned.failed:
                task = replace(task, state=TaskState.FAILED, reason=planned.failed[model])
            tasks.append(task)
        self.store.submit(request, tasks)
        return planned

    def run(self, request_id: str, *, resend: bool = False) -> CampaignResult:
        """Carry out what is left of a submitted request.

        Args:
            request_id: the request.
            resend: send to owners that already answered, too; what they applied stays as it is.

        Returns:
            The state of every affected model.
        """
        request = self.store.request(request_id)
        planned = self.submit(request)
        timing = Timing()
        before = self.store.tasks(request_id)
        todo = {
            model: task
            for model, task in before.items()
            if task.state is not TaskState.EXEMPT
            and model not in planned.failed
            and (resend or task.state is not TaskState.VERIFIED)
        }
        earlier = tuple(m for m, t in before.items() if t.result and m not in todo)
        if not todo:
            return CampaignResult(request_id, before, already_applied=earlier)
        groups = [
            replace(group, models=tuple(m for m in group.models if m in todo))
            for group in planned.groups
        ]
        groups = [group for group in groups if group.models]
        prepared = self.prepare(request, groups)
        timing.fisher, timing.merge = prepared.fisher_seconds, prepared.merge_seconds
        for model, reason in prepared.failed.items():
            self._settle(request_id, todo[model], TaskState.FAILED, reason)

        started = time.perf_counter()
        results = self._broadcast(request_id, prepared.messages, todo)
        timing.broadcast_and_apply = time.perf_counter() - started

        started = time.perf_counter()
        self._verify(request_id)
        timing.verify = time.perf_counter() - started
        return CampaignResult(
            request_id,
            self.store.tasks(request_id),
            timing,
            changed=tuple(m for m, r in results.items() if r == pb.OUTCOME_APPLIED),
            already_applied=earlier
            + tuple(m for m, r in results.items() if r == pb.OUTCOME_ALREADY_APPLIED),
        )

    def prepare(self, request: pb.UnlearningRequest, groups: Sequence[Group]) -> Prepared:
        """Collect and merge the Fisher information of a request and address it to the owners.

        Args:
            request: the request; it need not be submitted.
            groups: the models to prepare for, as planned.

        Returns:
            One message per owner; nothing is sent to be applied, and nothing is stored.
        """
        started = time.perf_counter()
        fishers, errors = self._collect(request, groups)
        collected = time.perf_counter()
        packets = self._merge(request, groups, fishers, errors)
        graph = self.store.graph()
        prepared = Prepared(fisher_seconds=collected - started)
        created = now_us()
        for group, packet in zip(groups, packets, strict=True):
            if isinstance(packet, str):
                prepared.failed.update(dict.fromkeys(group.models, packet))
                continue
            for model in map(graph.model, group.models):
                message = prepared.messages.setdefault(
                    model.owner,
                    pb.UnlearnTask(
                        request_id=request.id, method=request.method, created_us=created
                    ),
                )
                digests = [fisher.digest for fisher in message.fishers]
                if packet.digest not in digests:
                    message.fishers.append(packet)
                    digests.append(packet.digest)
                message.models.append(
                    pb.ModelTask(
                        model_id=model.id,
                        fisher=digests.index(packet.digest),
                        digest=model.digest,
                    )
                )
        prepared.merge_seconds = time.perf_counter() - collected
        return prepared

    def _collect(
        self, request: pb.UnlearningRequest, groups: Sequence[Group]
    ) -> tuple[dict[str, list[pb.FisherPacket]], dict[str, str]]:
        """Ask the roots' owners for the Fisher information of the data to forget."""
        self._say("Fisher information of the data to forget, from the roots")
        graph = self.store.graph()
        needed = {root for group in groups for root in group.roots}
        by_owner: dict[str, list[pb.Root]] = {}
        for root in request.roots:
            if root.model_id in needed:
                by_owner.setdefault(graph.model(root.model_id).owner, []).append(root)
        asks = [
            Ask(
                owner,
                "query.fisher",
                pb.FisherTask(request_id=request.id, roots=roots, method=request.method),
            )
            for owner, roots in by_owner.items()
        ]
        packets: dict[str, list[pb.FisherPacket]] = {}
        errors: dict[str, str] = {}
        for answer in self._transport.ask(asks, self._timeout):
            if answer.reply is None:
                for root in by_owner[answer.ask.owner]:
                    errors[root.model_id] = answer.error
                continue
            for fisher in cast("pb.FisherReply", answer.reply).roots:
                if fisher.error:
                    errors[fisher.model_id] = fisher.error
                else:
                    packets[fisher.model_id] = list(fisher.packets)
        for root_id in needed - packets.keys() - errors.keys():
            errors[root_id] = "its owner sent no Fisher information for it"
        return packets, errors

    def _merge(
        self,
        request: pb.UnlearningRequest,
        groups: Sequence[Group],
        fishers: dict[str, list[pb.FisherPacket]],
        errors: dict[str, str],
    ) -> list[pb.FisherPacket | str]:
        """Merge per group; a group whose roots are not all there gets the reason instead."""
        self._say("merging Fisher information per group of models")
        merged: list[pb.FisherPacket | str] = []
        for group in groups:
            missing = [root for root in group.roots if root in errors]
            if missing:
                reasons = "; ".join(f"{root}: {errors[root]}" for root in missing)
                merged.append(f"no Fisher information from upstream root {reasons}")
                continue
            try:
                packets = [
                    rename_classes(packet, dict(renaming))
                    for root, renaming in zip(group.roots, group.renamings, strict=True)
                    for packet in fishers[root]
                ]
                merged.append(merge_packets(packets, cast("MergeRule", request.method.merge)))
            except DisinheritError as error:
                merged.append(str(error))
        return merged

    def _broadcast(
        self, request_id: str, messages: Mapping[str, pb.UnlearnTask], todo: Mapping[str, Task]
    ) -> dict[str, pb.Outcome]:
        """Send every owner its message, all at once; store every answer as it arrives."""
        self._say("dampening in every affected model, all owners at once")
        for message in messages.values():
            for model in message.models:
                self._settle(request_id, todo[model.model_id], TaskState.SENT)
        outcomes: dict[str, pb.Outcome] = {}
        asks = [Ask(owner, "train.unlearn", message) for owner, message in messages.items()]
        for answer in self._transport.ask(asks, self._timeout):
            outcomes |= self._record(request_id, answer, todo)
        return outcomes

    def _record(
        self, request_id: str, answer: Answer, todo: Mapping[str, Task]
    ) -> dict[str, pb.Outcome]:
        """Store one owner's answer; models it says nothing of are failed, or still pending."""
        missing = {model.model_id for model in cast("pb.UnlearnTask", answer.ask.task).models}
        outcomes: dict[str, pb.Outcome] = {}
        reply = cast("pb.UnlearnReply | None", answer.reply)
        for result in reply.models if reply is not None else ():
            if result.model_id not in missing:
                continue
            missing.discard(result.model_id)
            task = todo[result.model_id]
            outcomes[result.model_id] = result.outcome
            if result.outcome in (pb.OUTCOME_APPLIED, pb.OUTCOME_ALREADY_APPLIED):
                self.store.update(
                    request_id,
                    replace(task, state=TaskState.APPLIED, reason="", result=result),
                    record_from_proto(result.successor),
                )
            else:
                self._settle(request_id, task, TaskState.FAILED, result.error or "no outcome")
        state = TaskState.PENDING if answer.unreachable else TaskState.FAILED
        for model in missing:
            self._settle(
                request_id, todo[model], state, answer.error or "its owner did not mention it"
            )
        self._say(f"{answer.ask.owner} answered" if not answer.error else answer.error)
        return outcomes

    def _verify(self, request_id: str) -> None:
        """Ask the owners what is on their disks, and settle the tasks for which it is right."""
        self._say("verifying what the owners hold")
        applied = {
            task.result.successor.id: task
            for task in self.store.tasks(request_id).values()
            if task.state is TaskState.APPLIED and task.result is not None
        }
        found = self.evaluate(list(applied))
        for successor, task in applied.items():
            evaluation = found[successor]
            expected = task.result.successor.digest if task.result else ""
            if evaluation.error:
                self.store.update(
                    request_id, replace(task, reason=f"not verified: {evaluation.error}")
                )
            elif evaluation.digest != expected:
                reason = f"reported digest {expected}, but its owner holds {evaluation.digest}"
                self.store.update(request_id, replace(task, state=TaskState.FAILED, reason=reason))
            else:
                self.store.update(request_id, replace(task, state=TaskState.VERIFIED))

    def evaluate(self, models: Sequence[str]) -> dict[str, pb.Evaluation]:
        """Return the confusion counts of models on their owners' evaluation splits.

        Args:
            models: ids of registered versions.

        Returns:
            An evaluation for each; with `error` set where there is none.
        """
        graph = self.store.graph()
        by_owner: dict[str, list[str]] = {}
        for model in models:
            by_owner.setdefault(graph.model(model).owner, []).append(model)
        asks = [
            Ask(owner, "evaluate.panel", pb.EvaluateTask(model_ids=ids))
            for owner, ids in by_owner.items()
        ]
        found: dict[str, pb.Evaluation] = {}
        for answer in self._transport.ask(asks, self._timeout):
            for model in by_owner[answer.ask.owner]:
                error = answer.error or "its owner did not mention it"
                found[model] = pb.Evaluation(model_id=model, error=error)
            if answer.reply is not None:
                for evaluation in cast("pb.EvaluateReply", answer.reply).models:
                    if evaluation.model_id in found:
                        found[evaluation.model_id] = evaluation
        return found

    def _settle(self, request_id: str, task: Task, state: TaskState, reason: str = "") -> None:
        self.store.update(request_id, replace(task, state=state, reason=reason))
