"""The coordinator: execution of requests over all affected models, in parallel and once.

    submit   plan the request and store a task for every affected model
    run      enlist   plan again with late versions, and open the next wave
             stage    select the models of owners in open waves
             order    select the models that no older campaign reaches first
             collect  roots --query.fisher--> coordinator
             merge    one Fisher for each group of models (MFIM)
             apply    coordinator --train.unlearn--> owners, all at once
             verify   coordinator --evaluate.panel--> owners: digests on disk match the reports
             notify   send notices about versions that stay as they are
             settle   derive the campaign's state from its tasks
             destroy  superseded versions whose retention windows have passed

Every answer is stored before the next message is sent.  A failure of one owner is recorded for its
models and affects no others.  Applied results are never undone: a repeated or resumed run asks only
for the remaining tasks.  Plain Python, without Flower or gRPC.
"""

import functools
import os
import secrets
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from types import MappingProxyType

from disinherit.common.errors import CampaignError, DisinheritError, GraphError, NotDrivenError
from disinherit.common.wire.requests import Request
from disinherit.server.campaign.apply import apply, evaluations, verify
from disinherit.server.campaign.campaign_pass import Pass
from disinherit.server.campaign.collect import collect
from disinherit.server.campaign.contact import check_held
from disinherit.server.campaign.dry_pass import DryPass, Prepared, Say
from disinherit.server.campaign.looking import find_preview, find_tasks, look
from disinherit.server.campaign.merge import merge
from disinherit.server.campaign.notify import notify
from disinherit.server.campaign.order import order
from disinherit.server.campaign.registration import register
from disinherit.server.campaign.result import CampaignResult
from disinherit.server.campaign.staging import (
    enlist,
    open_wave,
    stage,
)
from disinherit.server.campaign.undo import destroy, take_back
from disinherit.server.planning.plan import Group, Plan
from disinherit.server.planning.previews import Preview
from disinherit.server.reports.showing import ShowingTransport
from disinherit.server.states import CampaignState
from disinherit.server.store.audit_events import COORDINATOR
from disinherit.server.store.campaigns import Driven, find_campaign
from disinherit.server.store.graph import (
    find_descendants,
    find_records,
)
from disinherit.server.store.history import find_lost
from disinherit.server.store.leases import Lease, held
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.transport.answers import checked_evaluation
from disinherit.server.transport.base import Answer, Ask, Transport
from disinherit.v1 import unlearning_pb2 as pb


class Coordinator:
    """Executes requests over the models in a store, through a transport.

    Args:
        store: graph, requests and tasks.
        transport: the connection to the owners.
        timeout: seconds to wait for an owner's answer.
        say: receives progress messages for people.
        lease_seconds: how long this coordinator keeps a campaign after its process died; a live
            one renews its lease.
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
            owners: the owners.
            scope: scope of the summaries.

        Returns:
            Owner -> reason, for owners that failed, or had a model refused.
        """
        return register(self.store, self._ask, owners, scope)

    def check_held(self, owners: Collection[str]) -> set[str]:
        """Ask owners which of their successors they still hold.

        If a device fell back to an earlier state, its campaigns are reopened.

        Args:
            owners: the owners.

        Returns:
            The owners that have not answered.
        """
        return check_held(self.store, self._ask, owners)

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

        Submitting a request again only adds tasks for models that are affected since, and reopens
        its campaign for them.

        Args:
            request: the request, or its message.
            approval: whether it needs an approval before anything is done.
            deadline_us: when unreachable owners are given up, in microseconds since the epoch; 0
                for never.
            actor: who submits it, for the audit log.
            notes: whether to make the plan's notes, which need every version that was trained on a
                class to forget.

        Raises:
            InputError: if the request cannot be planned, or another one has its id; nothing is
                stored then.
        """
        seen = look(self.store, _message(request), notes=notes)
        new = find_tasks(self.store, seen)
        if new or seen.driven is None:
            self.store.submit(
                seen.request, new, approval=approval, deadline_us=deadline_us, actor=actor
            )
        return seen.plan

    def preview(self, request: Request | pb.UnlearningRequest, *, notes: bool = True) -> Preview:
        """Return what a submission would do; nothing is stored and nobody is asked.

        Args:
            request: the request, or its message.
            notes: whether to make the plan's notes.

        Raises:
            InputError: if a submission would be refused.
        """
        return find_preview(self.store, _message(request), notes=notes)

    def run(
        self,
        request_id: str,
        *,
        resend: bool = False,
        repeated: Mapping[str, str] = MappingProxyType({}),
    ) -> CampaignResult:
        """Carry out the remaining tasks of a request, in one pass over its campaign.

        If a roll-back was decided, the pass carries that out.  Superseded versions are destroyed
        once their retention window has passed.  The pass holds the campaign's lease.  If somebody
        pauses or aborts the campaign, it stops before the next message; answers to earlier ones are
        still recorded.

        Args:
            request_id: the request.
            resend: send to owners that already answered, too; applied results stay.
            repeated: version -> digest of the weights that a repetition of the training gave, which
                the caller led: one that its owner reports as rebuilt with these is exact.

        Returns:
            The state of every affected model.

        Raises:
            RequestError: if there is no such request.
            CampaignError: if it is not approved, paused, aborted or rolled back, or another
                coordinator drives it.
            StoreError: if another coordinator took it over meanwhile.
        """
        with self._lease(request_id, _check_drivable) as lease:
            one = self._pass(lease, resend, repeated)
            try:
                if one.campaign.state is CampaignState.ROLLING_BACK:
                    take_back(one)
                else:
                    _advance(one)
            except Exception:
                # The campaign's deadline holds whatever made the pass fail.
                with suppress(DisinheritError):
                    one.settle()
                raise
            if one.settle():
                destroy(one)
        return one.result()

    def drive(self, request_id: str) -> CampaignResult:
        """Carry out the remaining tasks of an open campaign, or the due destructions of another.

        Arguments, result and errors are those of `run`.
        """
        with self.store.reading() as db:
            state = find_campaign(db, request_id).state
        if state in (CampaignState.RUNNING, CampaignState.ROLLING_BACK):
            return self.run(request_id)
        with self._lease(request_id) as lease:
            one = self._pass(lease)
            if one.may_destroy:
                destroy(one)
            one.look(None)
        return one.result()

    def _lease(
        self, request_id: str, check: Callable[[Driven], None] = lambda _: None
    ) -> AbstractContextManager[Lease]:
        seconds = self._lease_seconds
        acquire = functools.partial(
            self.store.acquire_lease, request_id, self._holder, seconds, check
        )
        return held(self.store, acquire, seconds, self._patience)

    def _pass(
        self,
        lease: Lease,
        resend: bool = False,
        repeated: Mapping[str, str] = MappingProxyType({}),
    ) -> Pass:
        return Pass(
            self.store,
            lease,
            self._transport,
            self._timeout,
            self._say,
            resend=resend,
            repeated=repeated,
        )

    def _ask(self, asks: Sequence[Ask]) -> Iterator[Answer]:
        return self._transport.ask(asks, self._timeout)

    def prepare(self, request: Request | pb.UnlearningRequest, groups: Sequence[Group]) -> Prepared:
        """Collect and merge the Fisher information of a request and address it to the owners.

        Args:
            request: the request; it need not be submitted.
            groups: the planned groups of models to prepare for.

        Returns:
            One message per owner; none is sent, and nothing is stored.

        Raises:
            CampaignError: if the coordinator has lost history.
        """
        message = _message(request)
        with self.store.reading() as db:
            check_history(find_lost(db))
            graph = find_descendants(db, [root.model_id for root in message.roots])
        one = DryPass(self._transport, self._timeout, self._say, message, graph)
        one.groups = groups
        collect(one)
        merge(one)
        return one.prepared

    def evaluate(self, models: Sequence[str]) -> dict[str, pb.Evaluation]:
        """Return the confusion counts of models on their owners' evaluation splits.

        Args:
            models: ids of registered versions.

        Returns:
            An evaluation for each, with `error` set if there is none.

        Raises:
            GraphError: if a model is unknown.
        """
        with self.store.reading() as db:
            records = find_records(db, models)
        if unknown := [model for model in models if model not in records]:
            raise GraphError(f"Expected ids of registered models, but got {unknown[0]!r}.")
        by_owner: dict[str, list[str]] = {}
        for model in dict.fromkeys(models):
            by_owner.setdefault(records[model].owner, []).append(model)

        def check(model: str, sent: pb.Evaluation) -> pb.Evaluation:
            return checked_evaluation(records[model], sent)

        found: dict[str, pb.Evaluation] = {}
        for one in evaluations(self._ask, by_owner, check):
            found.update(one)
        return found


def _message(request: Request | pb.UnlearningRequest) -> pb.UnlearningRequest:
    return request.to_proto() if isinstance(request, Request) else request


_STEPS: Sequence[Callable[[Pass], None]] = (stage, order, collect, merge, apply, verify, notify)
_OF_GROUPS = (collect, merge, apply)


def _advance(one: Pass) -> None:
    """Carry out the remaining tasks of the begun waves, and of the waves that begin thereafter."""
    if one.goes_on():
        enlist(one)
        open_wave(one)
    while one.goes_on():
        for step in _STEPS:
            if not one.goes_on():
                return
            if one.groups or step not in _OF_GROUPS:
                step(one)
        if not (one.goes_on() and open_wave(one)):
            return


def _check_drivable(driven: Driven) -> None:
    check_history(driven.lost)
    campaign = driven.campaign
    if not campaign.state.drivable:
        raise NotDrivenError(
            f"Expected campaign {campaign.request_id!r} to be running, but it is {campaign.state}. "
            "Approve or resume it first; what was aborted or rolled back is submitted under "
            "another id."
        )


def check_history(lost: str) -> None:
    """Raise `CampaignError` if `lost` describes missing history."""
    if lost:
        raise CampaignError(
            f"Expected a coordinator that has lost no history, but {lost}. If that is known, "
            "confirm on its machine that it may go on: disinherit confirm history."
        )
