"""Submission, control and status of unlearning requests."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from sqlalchemy import Connection

from disinherit.common.errors import NotAllowedError, NotFoundError, NotNowError, RequestError
from disinherit.common.text import one_line
from disinherit.common.wire.received import received_request
from disinherit.server.now import now_us
from disinherit.server.planning.coverage import CoveragePage
from disinherit.server.reports.report import find_coverage
from disinherit.server.service.feed import Feed
from disinherit.server.service.packing import listed_to_proto
from disinherit.server.service.paging import Key, fetch_page, page_size
from disinherit.server.service.principals import Principal, Role
from disinherit.server.states import CampaignEvent, CampaignState, TaskState
from disinherit.server.store.approvals import find_digest_of_plan
from disinherit.server.store.campaigns import Campaign
from disinherit.server.store.cleared import find_done
from disinherit.server.store.graph import find_descendants
from disinherit.server.store.notifications import ModelTimes, find_times
from disinherit.server.store.request_rows import find_request, find_submitted
from disinherit.server.store.status import RequestStatus, find_status, page_statuses
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1.unlearning_pb2 import UnlearningRequest

if TYPE_CHECKING:
    from disinherit.server.campaign.coordinator import Coordinator

_LONGEST_DEADLINE = 100 * 366 * 24 * 3600


class Requests:
    """Handlers of calls about requests.

    Args:
        coordinator: plans requests; the driver runs them.
        changed: called with a request whose campaign a person has changed.
        feed: tells when the status of a request changes.
        approval: whether a campaign waits for an approval before anything is sent.
        release: called with a resumed request, so that its owners are asked anew.
    """

    def __init__(
        self,
        coordinator: "Coordinator",
        changed: Callable[[str], None],
        feed: Feed,
        approval: bool = True,
        release: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._release = release
        self._coordinator = coordinator
        self._store = coordinator.store
        self._changed = changed
        self._approval = approval
        self._feed = feed

    def submit(
        self,
        request: UnlearningRequest,
        deadline_seconds: int,
        caller: Principal,
        *,
        again: bool = False,
    ) -> RequestStatus:
        """Plan a request and store it with its campaign; idempotent.

        Args:
            request: the request.
            deadline_seconds: time after which the campaign gives up absent owners; 0 for never.
            caller: the caller.
            again: whether to do it again if it was done before; under another id if that of the
                request belongs to a campaign that has ended.

        Raises:
            InputError: if it cannot be planned, or another request has its id.
            NotNowError: if it was done before, and is not asked again.
        """
        request = self._not_done(received_request(request), again=again)
        deadline = _deadline_us(deadline_seconds)
        self._coordinator.submit(
            request, approval=self._approval, deadline_us=deadline, actor=caller.actor, notes=False
        )
        self._changed(request.id)
        return self.show(request.id)

    def _not_done(self, request: UnlearningRequest, *, again: bool) -> UnlearningRequest:
        """Return a request that was not carried out before, or is to be once more."""
        with self._store.reading() as db:
            stored = find_submitted(db, request.id)
            if stored is None and not again:
                graph = find_descendants(db, [root.model_id for root in request.roots])
                if done := find_done(db, graph, request):
                    raise NotNowError(
                        f"Expected what was not forgotten before, but {done}. Submit it again with "
                        "--again."
                    )
        if stored is None or not again:
            return request
        renewed, number = request.id, 1
        while self._ended(renewed):
            number += 1
            renewed = f"{request.id}-{number}"
        changed = UnlearningRequest()
        changed.CopyFrom(request)
        changed.id = renewed
        return changed

    def _ended(self, request_id: str) -> bool:
        try:
            return self._store.campaign(request_id).state.ended
        except RequestError:
            return False

    def move(
        self,
        event: CampaignEvent,
        request_id: str,
        caller: Principal,
        deadline_seconds: int | None = None,
    ) -> RequestStatus:
        """Apply an event to a campaign; idempotent.

        Args:
            event: the event.
            request_id: the request.
            caller: the caller.
            deadline_seconds: time after which the campaign gives up absent owners, 0 for never;
                `None` keeps the deadline.

        Raises:
            NotFoundError: if the request is unknown.
            NotNowError: if the campaign's state does not allow the event.
            NotAllowedError: if it takes an approver.
        """

        def check(campaign: Campaign) -> None:
            _check_deadline(campaign, deadline, caller)
            # Passing a threshold takes the same authority as the first approval.
            passes_gate = event is CampaignEvent.RESUME and campaign.state is CampaignState.HALTED
            if passes_gate and self._approval and caller.role is not Role.APPROVER:
                raise NotAllowedError(
                    f"Expected an approver to resume {request_id!r}, as it was halted, but got the "
                    f"role {str(caller.role)!r}."
                )

        deadline = None if deadline_seconds is None else _deadline_us(deadline_seconds)
        try:
            self._store.transition(request_id, event, deadline, actor=caller.actor, check=check)
        except RequestError as error:
            self._campaign(request_id)  # or there is none
            raise NotNowError(str(error)) from None
        if event is CampaignEvent.RESUME:
            self._release(request_id)
        self._changed(request_id)
        return self.get(request_id)

    def approve(self, request_id: str, plan: str, caller: Principal) -> RequestStatus:
        """Approve a campaign, or versions that joined it and need their own approval.

        Args:
            request_id: the request.
            plan: SHA-256 of the plan to approve; `""` for the submitted one.
            caller: the approver.

        Raises:
            NotFoundError: if the request is unknown.
            NotNowError: if it may not be approved now, or its plan has changed.
        """
        state = self._campaign(request_id).state
        if state is CampaignState.AWAITING_APPROVAL or state.advances:
            # The plan to approve includes all versions that joined until now.
            self._coordinator.submit(self._store.request(request_id), notes=False)
        try:
            self._store.approve(request_id, plan, actor=caller.actor)
        except RequestError as error:
            raise NotNowError(str(error)) from None
        self._changed(request_id)
        return self.get(request_id)

    def resend(self, request_id: str, caller: Principal) -> RequestStatus:
        """Send all tasks of a request again, also those that were answered.

        Args:
            request_id: the request.
            caller: the caller.

        Raises:
            NotFoundError: if the request is unknown.
            NotNowError: if its campaign cannot advance.
        """
        self._campaign(request_id)
        try:
            self._store.resend(request_id, actor=caller.actor)
        except RequestError as error:
            raise NotNowError(str(error)) from None
        self._changed(request_id)
        return self.get(request_id)

    def show(self, request_id: str) -> RequestStatus:
        """Return the status of a request, with its plan's digest while it waits for approval.

        Raises:
            NotFoundError: if the request is unknown.
        """
        with self._store.reading() as db:
            status = _status(db, request_id)
            waits = status.campaign.state is CampaignState.AWAITING_APPROVAL
            if not (waits or status.tasks.get(TaskState.UNAPPROVED)):
                return status
            plan = find_digest_of_plan(db, status.request, status.campaign.deadline_us)
            return replace(status, plan=plan)

    def roll_back(
        self, request_id: str, reason: str, models: Sequence[str], caller: Principal
    ) -> RequestStatus:
        """Restore the versions that a request superseded; idempotent.

        Args:
            request_id: the request.
            reason: free text.
            models: the models to roll back; empty for all affected models.
            caller: the caller.

        Raises:
            NotFoundError: if the request is unknown.
            NotNowError: if it may not be rolled back now, or something was derived from its
                successors.
        """
        self._campaign(request_id)
        try:
            self._store.roll_back(request_id, models, one_line(reason), actor=caller.actor)
        except RequestError as error:
            raise NotNowError(str(error)) from None
        self._changed(request_id)
        return self.get(request_id)

    def get(self, request_id: str) -> RequestStatus:
        """Return the status of a request.

        Raises:
            NotFoundError: if the request is unknown.
        """
        with self._store.reading() as db:
            return _status(db, request_id)

    def list(self, owner: str, size: int, token: str) -> tuple[Sequence[pb.RequestStatus], str]:
        """Return a page of the requests as messages, the oldest first, and the next page's token.

        Args:
            owner: only requests that affect a model of this owner; `""` for all.
            size: page size; 0 for the default.
            token: page token; `""` for the first page.

        Raises:
            InputError: if the token is invalid.
        """

        def after(last: Key | None, count: int) -> Sequence[RequestStatus]:
            with self._store.reading() as db:
                return page_statuses(db, cast("tuple[int, str] | None", last), count, owner)

        def key(status: RequestStatus) -> Key:
            return status.campaign.created_us, status.request.id

        what = f"requests of {owner!r}" if owner else "requests"
        return fetch_page(after, key, (int, str), size, token, what, listed_to_proto)

    def watch(self, request_id: str, wanted: Callable[[], bool]) -> Iterator[RequestStatus]:
        """Yield the status of a request, now and after every change, until its campaign ends.

        Args:
            request_id: the request.
            wanted: whether the caller still listens.

        Raises:
            NotFoundError: if the request is unknown.
        """
        try:
            yield from self._feed.statuses(request_id, wanted)
        except RequestError as error:
            raise NotFoundError(str(error)) from None

    def coverage(
        self, request_id: str, size: int, token: str
    ) -> tuple[CoveragePage, Mapping[str, ModelTimes]]:
        """Return a page of the versions that a request affects, ancestors first, and their times.

        Args:
            request_id: the request.
            size: page size; 0 for the default.
            token: page token; `""` for the first page.

        Raises:
            NotFoundError: if the request is unknown.
            InputError: if the token is invalid.
        """
        with self._store.reading() as db:
            try:
                request = find_request(db, request_id)
            except RequestError as error:
                raise NotFoundError(str(error)) from None
            found = find_coverage(db, request, page_size(size), token)
            return found, find_times(db, request_id, [one.model_id for one in found.models])

    def _campaign(self, request_id: str) -> Campaign:
        try:
            return self._store.campaign(request_id)
        except RequestError as error:
            raise NotFoundError(str(error)) from None


def _status(db: Connection, request_id: str) -> RequestStatus:
    try:
        return find_status(db, request_id)
    except RequestError as error:
        raise NotFoundError(str(error)) from None


def _check_deadline(campaign: Campaign, deadline_us: int | None, caller: Principal) -> None:
    """Check that only an approver changes the deadline of an approved campaign.

    Once it has ended, every role that may resume it may set a new deadline.
    """
    if deadline_us is None or not campaign.plan or caller.role is Role.APPROVER:
        return
    if campaign.state in (CampaignState.RUNNING, CampaignState.PAUSED):
        raise NotAllowedError(
            f"Expected an approver to change the deadline of {campaign.request_id!r}, which was "
            f"approved with the one it has, but got the role {str(caller.role)!r}."
        )


def _deadline_us(seconds: int) -> int:
    """Return a deadline as microseconds since the epoch; 0 for never."""
    if not 0 <= seconds <= _LONGEST_DEADLINE:
        raise RequestError(
            f"Expected a deadline in at most {_LONGEST_DEADLINE} seconds, a hundred years, but "
            f"got {seconds}."
        )
    return now_us() + seconds * 1_000_000 if seconds else 0
