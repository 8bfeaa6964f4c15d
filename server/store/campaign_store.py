"""Campaigns of a store: their states and leases."""

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
)
from disinherit.server.store.graph_store import GraphStore
from disinherit.server.store.leases import Lease
from disinherit.server.store.transitions import put_event
from disinherit.server.store.waves import accept, retry_unforgotten


class CampaignStore(GraphStore):
    """States and leases of the campaigns in one database, beside its graph.

    Args:
        database: the database.
    """

    def campaign(self, request_id: str) -> Campaign:
        """Return the campaign of a request.

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
            states: only campaigns in one of these states; `None` for all.
            also: ids of requests, to return their campaigns in any state.
        """
        with self.reading() as db:
            return find_campaigns(db, states, also)

    def transition(
        self,
        request_id: str,
        event: CampaignEvent,
        deadline_us: int | None = None,
        *,
        actor: str = COORDINATOR,
        check: Callable[[Campaign], None] = lambda _: None,
    ) -> Campaign:
        """Apply an event to a campaign; a repeated event changes nothing.

        Args:
            request_id: the request.
            event: the event.
            deadline_us: a new deadline; `None` to keep the present one.
            actor: the cause of the event, for the audit log.
            check: raises if the event must not be applied to the campaign; nothing is stored then.

        Returns:
            The campaign after the event.

        Raises:
            RequestError: if there is no such request, or its state does not allow the event.
        """
        with self.writing(together=True) as db:
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
        """Give `holder` the exclusive right to drive a campaign.

        Args:
            request_id: the request.
            holder: the name of the caller, for people to read.
            seconds: how long the lease runs unless it is renewed.
            check: raises if the campaign must not be driven.

        Raises:
            RequestError: if there is no such request.
            HeldError: if the lease is held, even by `holder`.
        """
        with self.writing(together=True) as db:
            driven = find_driven(db, request_id)
            check(driven)
            return leases.take(db, request_id, driven.holding, holder, seconds)

    def renew_lease(self, lease: Lease, seconds: float) -> None:
        """Extend a lease to `seconds` from now; it may have run out if nobody took it.

        Raises:
            StoreError: if the lease was lost.
        """
        with self.writing(together=True) as db:
            leases.renew(db, lease, seconds)

    def release_lease(self, lease: Lease) -> None:
        """Give a lease back; later writes with it are refused.

        Raises:
            StoreError: if the lease was lost.
        """
        with self.writing(together=True) as db:
            leases.check(db, lease)
            leases.release(db, lease)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Begin a transaction that only reads, from one snapshot."""
        with self._database.reading() as db:
            yield db

    @contextmanager
    def writing(
        self, lease: Lease | None = None, *, together: bool = False
    ) -> Iterator[Connection]:
        """Begin a transaction that excludes all other writers.

        Args:
            lease: the lease of the pass that writes.
            together: whether others that wait may share it (`Database.writing`).

        Raises:
            StoreError: if the lease was lost; nothing is stored then.
        """
        with self._database.writing(together=together) as db:
            if lease is not None:
                leases.check(db, lease)
            yield db
