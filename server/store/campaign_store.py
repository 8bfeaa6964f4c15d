"""Campaigns of a store: where they stand, and who drives them."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from disinherit.server.states import CampaignEvent, CampaignState
from disinherit.server.store import leases
from disinherit.server.store.audit_events import COORDINATOR
from disinherit.server.store.campaigns import (
    Campaign,
    Driven,
    find_campaign,
    find_campaigns,
    find_driven,
    put_event,
)
from disinherit.server.store.graph_store import GraphStore
from disinherit.server.store.leases import Lease
from disinherit.server.store.status import RequestStatus, find_status, page_statuses
from disinherit.server.store.waves import accept, retry_unforgotten


class CampaignStore(GraphStore):
    """States and leases of the campaigns in one database, beside the graph they are about.

    Args:
        database: the database.
    """

    def campaign(self, request_id: str) -> Campaign:
        """Return how the campaign of a request stands.

        Raises:
            RequestError: if there is no such request.
        """
        with self.reading() as db:
            return find_campaign(db, request_id)

    def campaigns(
        self, states: Collection[CampaignState] | None = None, also: Collection[str] = ()
    ) -> list[Campaign]:
        """Return campaigns, the oldest first.

        Args:
            states: only those in one of these states; `None` for all.
            also: ids of requests whose campaigns are among them in any state.
        """
        with self.reading() as db:
            return find_campaigns(db, states, also)

    def status(self, request_id: str) -> RequestStatus:
        """Return how a request stands.

        Raises:
            RequestError: if there is none with this id.
        """
        with self.reading() as db:
            return find_status(db, request_id)

    def page_statuses(self, after: tuple[int, str] | None, count: int) -> list[RequestStatus]:
        """Return how requests stand, the oldest first.

        Args:
            after: `(created_us, id)` of the request to go on after; `None` for the first ones.
            count: at most so many.
        """
        with self.reading() as db:
            return page_statuses(db, after, count)

    def transition(
        self,
        request_id: str,
        event: CampaignEvent,
        deadline_us: int | None = None,
        *,
        actor: str = COORDINATOR,
        check: Callable[[Campaign], None] = lambda _: None,
    ) -> Campaign:
        """Let something happen to a campaign; what already happened changes nothing.

        Args:
            request_id: the request.
            event: what happens.
            deadline_us: a new deadline; `None` leaves it as it is.
            actor: who makes it happen, for the audit log.
            check: raises if it may not happen to the campaign as it stands; nothing is stored then.

        Returns:
            The campaign as it stands then.

        Raises:
            RequestError: if there is no such request, or this may not happen to it now.
        """
        with self.writing() as db:
            if event is CampaignEvent.RESUME:
                accept(db, request_id)
            campaign = put_event(db, request_id, event, deadline_us, actor, check=check)
            if event is CampaignEvent.RESUME:
                retry_unforgotten(db, request_id)
            return campaign

    def acquire_lease(
        self,
        request_id: str,
        holder: str,
        seconds: float,
        check: Callable[[Driven], None] = lambda _: None,
    ) -> Lease:
        """Give `holder`, and nobody else, the right to drive a campaign.

        Args:
            request_id: the request.
            holder: who asks, for people to read.
            seconds: when it ends unless it is renewed.
            check: raises if the campaign, as it is, is not to be driven.

        Raises:
            RequestError: if there is no such request.
            HeldError: if somebody has it, `holder` included.
        """
        with self.writing() as db:
            driven = find_driven(db, request_id)
            check(driven)
            return leases.take(db, request_id, driven.holding, holder, seconds)

    def renew_lease(self, lease: Lease, seconds: float) -> None:
        """Let a lease run `seconds` from now; also one that ran out and nobody took.

        Raises:
            StoreError: if it was lost.
        """
        with self.writing() as db:
            leases.renew(db, lease, seconds)

    def release_lease(self, lease: Lease) -> None:
        """Give a lease back; nothing can be written with it any more.

        Raises:
            StoreError: if it was lost.
        """
        with self.writing() as db:
            leases.check(db, lease)
            leases.release(db, lease)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Begin a transaction that only reads: all of one moment."""
        with self._database.reading() as db:
            yield db

    @contextmanager
    def writing(self, lease: Lease | None = None) -> Iterator[Connection]:
        """Begin a transaction that excludes all others that write.

        Args:
            lease: that of the pass it is part of.

        Raises:
            StoreError: if the lease was lost; nothing is stored then.
        """
        with self._database.writing() as db:
            if lease is not None:
                leases.check(db, lease)
            yield db
