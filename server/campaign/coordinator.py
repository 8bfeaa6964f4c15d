"""The coordinator: carry out one request over all affected models, in parallel and once.

    submit   plan the request and store a task for every affected model
    run      roots --query.fisher--> coordinator: merge per group (MFIM)
             coordinator --train.unlearn--> owners, all at once
             coordinator --evaluate.panel--> owners: what is on disk is what was reported

Every answer is stored before the next message goes out, and one owner's failure is recorded for its
models and touches no other.  What an owner applied is never taken back: a run that is repeated or
resumed asks for what is left.  Plain Python: it knows neither Flower nor gRPC.
"""

import os
import secrets
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import cast

from disinherit.common.errors import (
    CampaignError,
    DisinheritError,
    GraphError,
    InputError,
)
from disinherit.common.text import one_line
from disinherit.common.wire.requests import Request
from disinherit.server.campaign.apply import Applied, Rollout
from disinherit.server.campaign.archive import Archive, NoArchive, StoredArchive
from disinherit.server.campaign.collect import Prepared, Say, prepare
from disinherit.server.campaign.evaluations import evaluations
from disinherit.server.campaign.notify import tell_owners
from disinherit.server.campaign.order import not_held_back
from disinherit.server.campaign.result import CampaignResult, Timing
from disinherit.server.campaign.staging import keep_waiting, next_wave, place
from disinherit.server.campaign.undo import destroy_due, roll_back
from disinherit.server.planning.plan import Group, Plan, check_plan, plan
from disinherit.server.planning.targets import with_roots
from disinherit.server.reports.showing import ShowingTransport
from disinherit.server.states import CampaignState, Task, TaskState, cleansed
from disinherit.server.store.approvals import unapproved
from disinherit.server.store.audit_events import COORDINATOR, owner_actor
from disinherit.server.store.leases import Lease, held
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.transport.answers import registered_record, reply_of, unhandled
from disinherit.server.transport.base import Ask, Transport
from disinherit.v1 import unlearning_pb2 as pb

__all__ = ["CampaignResult", "Coordinator", "Prepared", "Timing"]


class Coordinator:
    """Carries out requests over the models that a store knows and a transport reaches.

    Args:
        store: graph, requests and tasks.
        transport: the way to the owners.
        timeout: seconds to wait for an owner's answer.
        say: told what is happening, for a progress display.
        lease_seconds: how long a campaign stays with this coordinator once its process has died;
            while it lives, however long it waits for owners.
        patience: seconds to wait for a campaign that another coordinator drives, which may have
            died.
    """

    def __init__(
        self,
        store: CoordinatorStore,
        transport: Transport,
        timeout: float = 600.0,
        say: Say = lambda _: None,
        lease_seconds: float = 30.0,
        patience: float = 0.0,
    ) -> None:
        self.store = store
        self._transport = ShowingTransport(transport, store)
        self._timeout = timeout
        self._say = say
        self._lease_seconds = lease_seconds
        self._patience = patience
        self._holder = f"{socket.gethostname()}, process {os.getpid()}, {secrets.token_hex(4)}"

    def register(self, owners: Sequence[str], scope: str) -> dict[str, str]:
        """Ask owners for Fisher summaries of their models and complete the records.

        Args:
            owners: whom to ask.
            scope: scope of the summaries.

        Returns:
            Owner -> reason, for those that could not, or whose models were not all accepted.
        """
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
            known = self.store.records(message.id for message in reply.models)
            self.store.record_held(owner, {message.id for message in reply.models})
            records, refused = [], []
            for message in reply.models:
                try:
                    records.append(registered_record(owner, message, known))
                except Exception as error:  # one owner's answer must not end the others
                    refused.append(error)
            refused += self.store.add_models(records, actor=owner_actor(owner))
            for why in refused:
                expected = isinstance(why, InputError)
                reason = one_line(str(why)) if expected else unhandled(answer, why)
                errors.setdefault(owner, []).append(reason)
        return {owner: "; ".join(reasons) for owner, reasons in errors.items()}

    def check_held(self, owners: Collection[str]) -> set[str]:
        """Ask owners which of the versions that they made by unlearning they still hold.

        A device may have fallen back to a state from before; then its campaigns are open again.

        Args:
            owners: whom to ask.

        Returns:
            Those that were asked and have not answered yet.
        """
        asks, waiting = [], set()
        for owner in owners:
            tasks = [task for _, task in self.store.made_by(owner)]
            made = {made.id for task in tasks if (made := task.successor) is not None}
            ids = sorted(made.union(task.model_id for task in tasks))
            if ids:
                ask = pb.EvaluateTask(model_ids=ids, digests_only=True, presence_only=True)
                asks.append(Ask(owner, "evaluate.panel", ask))
        for answer in self._transport.ask(asks, self._timeout) if asks else ():
            reply, _ = reply_of(answer, pb.EvaluateReply)
            if reply is not None:
                asked = set(cast("pb.EvaluateTask", answer.ask.task).model_ids)
                gone = {found.model_id for found in reply.models if found.missing}
                self.store.record_held(answer.ask.owner, asked - gone)
            elif answer.unreachable:
                waiting.add(answer.ask.owner)
        return waiting

    def submit(
        self,
        request: Request | pb.UnlearningRequest,
        *,
        approval: bool = False,
        deadline_us: int = 0,
        actor: str = COORDINATOR,
        notes: bool = True,
    ) -> Plan:
        """Plan a request and store it with a task for every affected model.

        Submitting the same request again changes nothing, except that models which came to be
        affected since then get their tasks, for which a campaign that had ended is open again.

        Args:
            request: the request, or the message for it.
            approval: whether it must be approved before anything is done.
            deadline_us: when owners that stay away are given up, in microseconds since the epoch;
                0 for never.
            actor: who submits it, for the audit log.
            notes: whether somebody reads the plan's notes; they need every version that was
                trained on a class to forget, however many there are.

        Raises:
            InputError: if the request cannot be planned, or its id was used for another one;
                nothing is stored then.
        """
        return self._submit(_message(request), None, approval, deadline_us, actor, notes)

    def _submit(
        self,
        request: pb.UnlearningRequest,
        lease: Lease | None,
        approval: bool = False,
        deadline_us: int = 0,
        actor: str = COORDINATOR,
        notes: bool = False,
    ) -> Plan:
        stored = self.store.find_request(request.id)
        request = with_roots(request, self.store.models_of, stored)
        if stored is not None:
            self.store.submit(request, [])
        tasks = self.store.tasks(request.id)
        graph = self.store.descendants(root.model_id for root in request.roots)
        classes = [name for root in request.roots for name in root.classes if notes]
        holders = self.store.holders(classes) if classes else ()
        parentless = self.store.parentless() if classes else ()
        planned = plan(graph, request, cleansed(tasks.values()), holders, parentless, tasked=tasks)
        if stored is None:
            check_plan(planned)
        waves = place(request, graph, planned, tasks.values())
        waiting: dict[str, str] = {}
        if stored is not None and self.store.campaign(request.id).plan:
            recorders = self.store.recorders(planned.affected)
            waiting = unapproved(graph, request, planned.affected, tasks, recorders)
        new = []
        for model in planned.affected:
            owner = graph.model(model).owner
            late = stored is not None
            task = tasks.get(model) or Task(model, owner, wave=waves.get(owner, 0), late=late)
            if task.successor is None:
                if model in planned.exempt:
                    task = replace(task, state=TaskState.EXEMPT, reason=planned.exempt[model])
                elif model in planned.failed:
                    task = replace(task, state=TaskState.FAILED, reason=planned.failed[model])
                elif model in planned.not_reached:
                    reason = planned.not_reached[model]
                    task = replace(task, state=TaskState.NOT_REACHED, reason=reason)
                elif task.state is TaskState.EXEMPT or task.is_unreached:
                    # What took its place was rolled back, or it is reached by now.
                    task = Task(model, task.owner, wave=task.wave, late=task.late)
            if model in waiting and task.state in (TaskState.PENDING, TaskState.UNAPPROVED):
                task = replace(task, state=TaskState.UNAPPROVED, reason=waiting[model])
            if task != tasks.get(model):
                new.append(task)
        self.store.submit(
            request, new, approval=approval, deadline_us=deadline_us, actor=actor, lease=lease
        )
        return planned

    def run(self, request_id: str, *, resend: bool = False) -> CampaignResult:
        """Carry out what is left of a submitted request: one pass over its campaign.

        Once it is decided that the request is rolled back, that is what is carried out; and what it
        superseded is destroyed when the retention window has passed.  A pass
        holds the campaign's lease.  It stops between two messages if somebody pauses or aborts the
        campaign; what is on its way then is still recorded.

        Args:
            request_id: the request.
            resend: send to owners that already answered, too; what they applied stays as it is.

        Returns:
            The state of every affected model.

        Raises:
            RequestError: if there is no such request.
            CampaignError: if it is not approved, paused, aborted or rolled back, or another
                coordinator drives it.
            StoreError: if another coordinator took it over meanwhile; it goes on there.
        """
        request = self.store.request(request_id)
        self._check_drivable(request_id)
        with held(
            self.store, request_id, self._holder, self._lease_seconds, self._patience
        ) as lease:
            self._check_drivable(request_id)
            try:
                if self._advances(request_id):
                    result = self._advance(request, lease, resend)
                else:
                    result = self._roll_back(lease)
            except Exception:
                # Whatever a pass failed of, the campaign's deadline holds.
                with suppress(DisinheritError):
                    self.store.settle(request_id, lease=lease)
                raise
            self.store.settle(request_id, lease=lease)
            self._destroy(lease)
        return result

    def drive(self, request_id: str) -> CampaignResult:
        """Carry out what there is to do of an open campaign, or destroy what is due of another.

        Arguments, result and errors are those of `run`.
        """
        state = self.store.campaign(request_id).state
        if state in (CampaignState.RUNNING, CampaignState.ROLLING_BACK):
            return self.run(request_id)
        with held(
            self.store, request_id, self._holder, self._lease_seconds, self._patience
        ) as lease:
            self._destroy(lease)
        return CampaignResult(request_id, self.store.tasks(request_id))

    def _destroy(self, lease: Lease) -> None:
        stopped = self.store.campaign(lease.request_id).state.stopped
        if not stopped and not self.store.history_lost():
            destroy_due(self.store, lease, self._transport, self._timeout, self._say)

    def _advance(self, request: pb.UnlearningRequest, lease: Lease, resend: bool) -> CampaignResult:
        """Carry out what is left of the waves that have begun, and of those that begin by that."""
        next_wave(self.store, lease, request)
        result = CampaignResult(request.id, self.store.tasks(request.id))
        while self._advances(request.id):
            result = result.followed_by(self._pass(request, lease, resend))
            if not next_wave(self.store, lease, request):
                break
        return replace(result, tasks=self.store.tasks(request.id))

    def _pass(self, request: pb.UnlearningRequest, lease: Lease, resend: bool) -> CampaignResult:
        known = self.store.tasks(request.id)
        planned = self._submit(request, lease)
        before = self.store.tasks(request.id)
        left = [
            before[model]
            for model in planned.dampened
            if before[model].state is not TaskState.UNAPPROVED
            and (resend or not before[model].state.answered)
        ]
        turn = keep_waiting(self.store, lease, left)
        left = [task for task in left if task.model_id in turn]
        late = not before.keys() <= known.keys()
        ready = not_held_back(self.store, lease, left, late=late)
        groups = [
            replace(group, models=models)
            for group in planned.groups
            if (models := tuple(model for model in group.models if model in ready))
        ]
        todo = {model: before[model] for group in groups for model in group.models}
        earlier = tuple(m for m, task in before.items() if task.successor and m not in todo)
        rollout = Rollout(self.store, lease, self._transport, self._timeout, self._say)
        timing, applied = Timing(), Applied()
        if groups:
            prepared = self._prepare(request, groups, StoredArchive(self.store, lease))
            timing.fisher, timing.merge = prepared.fisher_seconds, prepared.merge_seconds
            if self._advances(request.id):
                started = time.perf_counter()
                applied = rollout.broadcast(prepared, todo)
                timing.broadcast_and_apply = time.perf_counter() - started
                self._look_at_failures(request.id, todo)
        if self._advances(request.id):
            started = time.perf_counter()
            rollout.verify()
            timing.verify = time.perf_counter() - started
            tell_owners(self.store, lease, self._transport, self._timeout, self._say)
        return CampaignResult(
            request.id,
            self.store.tasks(request.id),
            timing,
            changed=tuple(applied.changed),
            already_applied=(*earlier, *applied.already),
        )

    def _look_at_failures(self, request_id: str, todo: Mapping[str, Task]) -> None:
        """Ask owners that failed at a successor whether they still hold what they made."""
        tasks = self.store.tasks(request_id)
        failed = [tasks[model] for model in todo if tasks[model].state is TaskState.FAILED]
        made = {
            made.id
            for owner in {task.owner for task in failed}
            for _, task in self.store.made_by(owner)
            if (made := task.successor) is not None
        }
        self.check_held({task.owner for task in failed if task.model_id in made})

    def _roll_back(self, lease: Lease) -> CampaignResult:
        done = roll_back(self.store, lease, self._transport, self._timeout, self._say)
        return CampaignResult(lease.request_id, self.store.tasks(lease.request_id), changed=done)

    def _advances(self, request_id: str) -> bool:
        return self.store.campaign(request_id).state.advances and not self.store.history_lost()

    def _check_drivable(self, request_id: str) -> None:
        lost = self.store.history_lost()
        if lost:
            raise CampaignError(
                f"Expected a coordinator that has lost no history, but {lost}. If that is known, "
                "say on its machine that it may go on: disinherit confirm history."
            )
        state = self.store.campaign(request_id).state
        if not state.drivable:
            raise CampaignError(
                f"Expected campaign {request_id!r} to be running, but it is {state}. Approve or "
                "resume it first; what was aborted or rolled back is submitted under another id."
            )

    def prepare(self, request: Request | pb.UnlearningRequest, groups: Sequence[Group]) -> Prepared:
        """Collect and merge the Fisher information of a request and address it to the owners.

        Args:
            request: the request, or the message for it; it need not be submitted.
            groups: the models to prepare for, as planned.

        Returns:
            One message per owner; nothing is sent to be applied, and nothing is stored.
        """
        return self._prepare(_message(request), groups, NoArchive())

    def _prepare(
        self, request: pb.UnlearningRequest, groups: Sequence[Group], archive: Archive
    ) -> Prepared:
        graph = self.store.descendants(root.model_id for root in request.roots)
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
        records = self.store.records(models)
        if unknown := [model for model in models if model not in records]:
            raise GraphError(f"Expected ids of registered models, but got {unknown[0]!r}.")
        found: dict[str, pb.Evaluation] = {}
        for one in evaluations(records, self._transport, self._timeout, models):
            found.update(one)
        return found


def _message(request: Request | pb.UnlearningRequest) -> pb.UnlearningRequest:
    return request.to_proto() if isinstance(request, Request) else request
