"""Submitting, steering and following unlearning requests."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from disinherit.common.errors import NotAllowedError, NotFoundError, NotNowError, RequestError
from disinherit.common.text import one_line
from disinherit.common.wire.received import received_request
from disinherit.server.planning.coverage import CoveragePage
from disinherit.server.service.packing import listed_to_proto
from disinherit.server.service.paging import DEFAULT_SIZE, LARGEST_SIZE, Key, fetch_page
from disinherit.server.service.principals import Principal, Role
from disinherit.server.states import CampaignEvent, CampaignState, TaskState
from disinherit.server.store.campaigns import Campaign
from disinherit.server.store.status import RequestStatus
from disinherit.server.store.tables import now_us
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1.unlearning_pb2 import UnlearningRequest

if TYPE_CHECKING:
    from disinherit.server.campaign.coordinator import Coordinator

_LONGEST_DEADLINE = 100 * 366 * 24 * 3600


class Requests:
    """What callers may do with requests.

    Args:
        coordinator: plans requests and knows the store; the driver runs them.
        changed: called when a campaign may go on.
        approval: whether a campaign waits for an approval before anything is sent.
        poll_seconds: between two looks at a watched request.
        release: called with a request that a person lets go on: owners are asked anew for it.
    """

    def __init__(
        self,
        coordinator: "Coordinator",
        changed: Callable[[], None],
        approval: bool = True,
        poll_seconds: float = 0.5,
        release: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._release = release
        self._coordinator = coordinator
        self._store = coordinator.store
        self._changed = changed
        self._approval = approval
        self._poll_seconds = poll_seconds

    def submit(
        self, request: UnlearningRequest, deadline_seconds: int, caller: Principal
    ) -> RequestStatus:
        """Plan a request and store it with its campaign; the same again changes nothing.

        Args:
            request: the request.
            deadline_seconds: from now until owners that stay away are given up; 0 for never.
            caller: who submits it.

        Raises:
            InputError: if it cannot be planned, or its id was used for another one.
        """
        request = received_request(request)
        deadline = _deadline_us(deadline_seconds)
        self._coordinator.submit(
            request, approval=self._approval, deadline_us=deadline, actor=caller.actor, notes=False
        )
        self._changed()
        return self.show(request.id)

    def move(
        self,
        event: CampaignEvent,
        request_id: str,
        caller: Principal,
        deadline_seconds: int | None = None,
    ) -> RequestStatus:
        """Let something happen to a campaign; what already happened changes nothing.

        Args:
            event: what happens.
            request_id: the request.
            caller: who makes it happen.
            deadline_seconds: from now until owners that stay away are given up, 0 for never;
                `None` leaves it as it is.

        Raises:
            NotFoundError: if there is no such request.
            NotNowError: if this may not happen to it now.
            NotAllowedError: if it takes an approver.
        """
        self._campaign(request_id)

        def check(campaign: Campaign) -> None:
            _check_deadline(campaign, deadline, caller)
            # To go on past a threshold is as large a decision as to begin.
            passes_gate = event is CampaignEvent.RESUME and campaign.state is CampaignState.HALTED
            if passes_gate and self._approval and caller.role is not Role.APPROVER:
                raise NotAllowedError(
                    f"Expected an approver to let {request_id!r} go on, as it was halted, but got "
                    f"the role {str(caller.role)!r}."
                )

        deadline = None if deadline_seconds is None else _deadline_us(deadline_seconds)
        try:
            self._store.transition(request_id, event, deadline, actor=caller.actor, check=check)
        except RequestError as error:
            raise NotNowError(str(error)) from None
        if event is CampaignEvent.RESUME:
            self._release(request_id)
        self._changed()
        return self.get(request_id)

    def approve(self, request_id: str, plan: str, caller: Principal) -> RequestStatus:
        """Let a campaign begin, or what joined it and needs an approval of its own.

        Args:
            request_id: the request.
            plan: SHA-256 of the plan that was looked at; `""` for the one that was submitted.
            caller: who approves.

        Raises:
            NotFoundError: if there is no such request.
            NotNowError: if it may not be approved now, or its plan is another one now.
        """
        state = self._campaign(request_id).state
        if state is CampaignState.AWAITING_APPROVAL or state.advances:
            # What joined it until now is part of what is looked at.
            self._coordinator.submit(self._store.request(request_id), notes=False)
        try:
            self._store.approve(request_id, plan, actor=caller.actor)
        except RequestError as error:
            raise NotNowError(str(error)) from None
        self._changed()
        return self.get(request_id)

    def resend(self, request_id: str, caller: Principal) -> RequestStatus:
        """Have owners asked again for what they did.

        Args:
            request_id: the request.
            caller: who wants it.

        Raises:
            NotFoundError: if there is no such request.
            NotNowError: if its campaign does not go on.
        """
        self._campaign(request_id)
        try:
            self._store.resend(request_id, actor=caller.actor)
        except RequestError as error:
            raise NotNowError(str(error)) from None
        self._changed()
        return self.get(request_id)

    def show(self, request_id: str) -> RequestStatus:
        """Return how a request stands, and its plan while somebody has to approve that.

        Raises:
            NotFoundError: if there is no such request.
        """
        status = self.get(request_id)
        waits = status.campaign.state is CampaignState.AWAITING_APPROVAL
        if not (waits or status.tasks.get(TaskState.UNAPPROVED)):
            return status
        return replace(status, plan=self._store.plan_digest(request_id))

    def roll_back(
        self, request_id: str, reason: str, models: Sequence[str], caller: Principal
    ) -> RequestStatus:
        """Have owners put back what a request superseded; the same again changes nothing.

        Args:
            request_id: the request.
            reason: for people to read.
            models: only these; none for all that are affected.
            caller: who decides it.

        Raises:
            NotFoundError: if there is no such request.
            NotNowError: if it may not be rolled back now, or what it made was built upon since.
        """
        self._campaign(request_id)
        try:
            self._store.roll_back(request_id, models, one_line(reason), actor=caller.actor)
        except RequestError as error:
            raise NotNowError(str(error)) from None
        self._changed()
        return self.get(request_id)

    def get(self, request_id: str) -> RequestStatus:
        """Return how a request stands.

        Raises:
            NotFoundError: if there is no such request.
        """
        try:
            return self._store.status(request_id)
        except RequestError as error:
            raise NotFoundError(str(error)) from None

    def list(self, size: int, token: str) -> tuple[Sequence[pb.RequestStatus], str]:
        """Return a page of the requests as messages, the oldest first, and the next page's token.

        Args:
            size: of a page; 0 for the default.
            token: of the page; `""` for the first.

        Raises:
            InputError: if the token is none.
        """

        def after(last: Key | None, count: int) -> Sequence[RequestStatus]:
            return self._store.page_statuses(cast("tuple[int, str] | None", last), count)

        def key(status: RequestStatus) -> Key:
            return status.campaign.created_us, status.request.id

        return fetch_page(after, key, (int, str), size, token, "requests", listed_to_proto)

    def watch(self, request_id: str, wanted: Callable[[], bool]) -> Iterator[RequestStatus]:
        """Yield how a request stands, now and after every change, until it has ended.

        The store is looked at again and again: another coordinator may change it.

        Args:
            request_id: the request.
            wanted: whether somebody still listens.

        Raises:
            NotFoundError: if there is no such request.
        """
        last = None
        while wanted():
            status = self.get(request_id)
            if status != last:
                yield status
                last = status
            if status.campaign.state.ended:
                return
            time.sleep(self._poll_seconds)

    def coverage(self, request_id: str, size: int, token: str) -> CoveragePage:
        """Return a page of the versions that a request affects, ancestors first.

        Args:
            request_id: the request.
            size: of a page; 0 for the default.
            token: of the page; `""` for the first.

        Raises:
            NotFoundError: if there is no such request.
            InputError: if the token is none.
        """
        self._campaign(request_id)
        return self._store.coverage(request_id, min(size or DEFAULT_SIZE, LARGEST_SIZE), token)

    def _campaign(self, request_id: str) -> Campaign:
        try:
            return self._store.campaign(request_id)
        except RequestError as error:
            raise NotFoundError(str(error)) from None


def _check_deadline(campaign: Campaign, deadline_us: int | None, caller: Principal) -> None:
    """Check that nobody alone ends what was approved, or lets it go on for ever.

    One that has ended may be given more time by whoever may resume it.
    """
    if deadline_us is None or not campaign.plan or caller.role is Role.APPROVER:
        return
    if campaign.state in (CampaignState.RUNNING, CampaignState.PAUSED):
        raise NotAllowedError(
            f"Expected an approver to change the deadline of {campaign.request_id!r}, which was "
            f"approved with the one it has, but got the role {str(caller.role)!r}."
        )


def _deadline_us(seconds: int) -> int:
    """Return the time in so many seconds, in microseconds since the epoch; 0 for never."""
    if not 0 <= seconds <= _LONGEST_DEADLINE:
        raise RequestError(
            f"Expected a deadline in at most {_LONGEST_DEADLINE} seconds, a hundred years, but "
            f"got {seconds}."
        )
    return now_us() + seconds * 1_000_000 if seconds else 0
