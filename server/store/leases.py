"""Who drives a campaign: a lease with a fencing token.

A lease runs out unless it is renewed, so a coordinator that died is followed by another one.  One
that only slept, or whose clock is wrong, may still believe it holds the lease: every lease has a
higher token than the one before, and what is written with any other token than the latest is
refused.  So a lease may also be taken too early: one that would run longer than it was given for
was given by a clock that has been set back since, and has ended.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection, select, update

from disinherit.common.errors import CampaignError, StoreError
from disinherit.server.store.tables import CAMPAIGNS, now_us

_POLL_SECONDS = 0.1
_LONGEST_US = 3600 * 1_000_000
"""Of a lease that was given before lengths were kept."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to drive one campaign.

    Attributes:
        request_id: the campaign's request.
        holder: who has it.
        token: higher than that of every lease of this campaign before.
    """

    request_id: str
    holder: str
    token: int


class Leases(Protocol):
    """Gives out leases; a `CoordinatorStore` does."""

    def acquire_lease(self, request_id: str, holder: str, seconds: float) -> Lease:
        """Return a new lease."""
        ...

    def renew_lease(self, lease: Lease, seconds: float) -> None:
        """Let a lease run from now."""
        ...

    def release_lease(self, lease: Lease) -> None:
        """Give a lease back."""
        ...


@contextmanager
def held(
    leases: Leases, request_id: str, holder: str, seconds: float, patience: float = 0.0
) -> Iterator[Lease]:
    """Hold a lease for the length of a block, however long that takes.

    Args:
        leases: where it comes from.
        request_id: the campaign's request.
        holder: who asks for it.
        seconds: how long it outlives this process; it is renewed three times in that time.
        patience: seconds to wait for one that another holds, which may have died.

    Yields:
        The lease.

    Raises:
        CampaignError: if another one holds it.
        RequestError: if there is no such request.
    """
    lease = _wait_for(leases, request_id, holder, seconds, time.monotonic() + patience)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(seconds / 3):
            # If it is lost, the next write says so; if the database is away, it may come back.
            with suppress(StoreError):
                leases.renew_lease(lease, seconds)

    renewing = threading.Thread(target=renew, name=f"lease of {request_id}", daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        ended.set()
        renewing.join()
        with suppress(StoreError):
            leases.release_lease(lease)


def _wait_for(leases: Leases, request_id: str, holder: str, seconds: float, until: float) -> Lease:
    while True:
        try:
            return leases.acquire_lease(request_id, holder, seconds)
        except CampaignError:
            if time.monotonic() >= until:
                raise
        time.sleep(_POLL_SECONDS)


def take(db: Connection, request_id: str, holder: str, seconds: float) -> Lease:
    """Give a campaign's lease to `holder`, in a transaction that writes.

    Raises:
        CampaignError: if it is held.
    """
    row = db.execute(select(CAMPAIGNS).where(CAMPAIGNS.c.request_id == request_id)).one()
    now = now_us()
    if now < row.lease_until_us <= now + (row.lease_length_us or _LONGEST_US):
        raise CampaignError(
            f"Expected nobody else to drive campaign {request_id!r}, but {row.lease_holder} does, "
            f"for {(row.lease_until_us - now) / 1e6:.1f} s unless it goes on. Try again then."
        )
    lease = Lease(request_id, holder, row.lease_token + 1)
    _put(db, lease, now, seconds)
    return lease


def renew(db: Connection, lease: Lease, seconds: float) -> None:
    """Let a lease run `seconds` from now.

    Raises:
        StoreError: if it was lost.
    """
    check(db, lease)
    _put(db, lease, now_us(), seconds)


def release(db: Connection, lease: Lease) -> None:
    """Give a lease back; nothing can be written with it any more.

    Raises:
        StoreError: if it was lost.
    """
    check(db, lease)
    _put(db, Lease(lease.request_id, "", lease.token + 1), 0, 0.0)


def check(db: Connection, lease: Lease) -> None:
    """Raise `StoreError` unless a lease is its campaign's latest."""
    row = db.execute(select(CAMPAIGNS).where(CAMPAIGNS.c.request_id == lease.request_id)).one()
    if row.lease_token != lease.token:
        raise StoreError(
            f"Expected {lease.holder} to drive campaign {lease.request_id!r} with token "
            f"{lease.token}, but it was given up or taken over by {row.lease_holder or 'nobody'} "
            f"with token {row.lease_token}. Nothing was stored."
        )


def _put(db: Connection, lease: Lease, start_us: int, seconds: float) -> None:
    length = round(seconds * 1e6)
    values = {
        "lease_token": lease.token,
        "lease_holder": lease.holder,
        "lease_until_us": start_us + length,
        "lease_length_us": length,
    }
    db.execute(update(CAMPAIGNS).where(CAMPAIGNS.c.request_id == lease.request_id).values(**values))
