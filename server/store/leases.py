"""Leases of campaigns, with fencing tokens.

A lease expires unless it is renewed, so another coordinator can take over from a dead one.  A
coordinator that only slept, or has a wrong clock, may still believe that it holds the lease.  So
every lease has a higher token than the one before, and writes with an older token are refused.
That also makes it safe to take a lease too early: one with more time left than its length was
granted before the clock was set back, and counts as expired.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import Connection, Row, bindparam, select, update

from disinherit.common.errors import HeldError, StoreError
from disinherit.server.now import now_us
from disinherit.server.store.queries import Query, WriteQuery
from disinherit.server.store.tables import CAMPAIGNS

_HELD = Query(select(CAMPAIGNS).where(CAMPAIGNS.c.request_id == bindparam("request")))
_PUT = WriteQuery(update(CAMPAIGNS).where(CAMPAIGNS.c.request_id == bindparam("of_request")))
_POLL_SECONDS = 0.1
_LONGEST_US = 3600 * 1_000_000
"""Assumed length of a lease that was granted before lengths were stored."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to drive one campaign.

    Attributes:
        request_id: the campaign's request.
        holder: who has it.
        token: higher than the token of every earlier lease of this campaign.
        ended: set when the lease is given back.
    """

    request_id: str
    holder: str
    token: int
    ended: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Holding:
    """The stored lease of a campaign.

    Attributes:
        token: token of the latest lease.
        holder: who has it; `""` if it is free.
        until_us: when it expires unless it is renewed, in microseconds since the epoch.
        length_us: the length for which it was granted.
    """

    token: int
    holder: str
    until_us: int
    length_us: int

    def check(self, lease: Lease) -> None:
        """Raise `StoreError` unless a lease is the latest."""
        if self.token != lease.token:
            by = f"taken over by {self.holder}" if self.holder else "given up"
            raise StoreError(
                f"Expected {lease.holder} to drive campaign {lease.request_id!r} with token "
                f"{lease.token}, but it was {by} with token {self.token}. Nothing was stored."
            )


def read_holding(row: Row[Any]) -> Holding:
    """Return the lease in a campaign's row."""
    return Holding(row.lease_token, row.lease_holder, row.lease_until_us, row.lease_length_us)


class Leases(Protocol):
    """Keeps leases; a `CoordinatorStore` does."""

    def renew_lease(self, lease: Lease, seconds: float) -> None:
        """Extend a lease to `seconds` from now."""
        ...

    def release_lease(self, lease: Lease) -> None:
        """Give a lease back."""
        ...


@contextmanager
def held(
    leases: Leases, acquire: Callable[[], Lease], seconds: float, patience: float = 0.0
) -> Iterator[Lease]:
    """Hold a lease during a block, and renew it from a thread.

    Args:
        leases: the store of leases.
        acquire: takes the lease.
        seconds: how long the lease outlives this process; it is renewed three times in that time.
        patience: seconds to wait for another holder, which may have died.

    Yields:
        The lease; a transaction of the block may give it back.

    Raises:
        CampaignError: if another process holds it.
        RequestError: if there is no such request.
    """
    lease = _wait_for(acquire, time.monotonic() + patience)

    def renew() -> None:
        while not lease.ended.wait(seconds / 3):
            # A lost lease fails at the next write; an unreachable database may come back.
            with suppress(StoreError):
                leases.renew_lease(lease, seconds)

    name = f"lease of {lease.request_id}"
    renewing = threading.Thread(target=renew, name=name, daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        given_back = lease.ended.is_set()
        lease.ended.set()
        renewing.join()
        if not given_back:
            with suppress(StoreError):
                leases.release_lease(lease)


def _wait_for(acquire: Callable[[], Lease], until: float) -> Lease:
    while True:
        try:
            return acquire()
        except HeldError:
            if time.monotonic() >= until:
                raise
        time.sleep(_POLL_SECONDS)


def take(db: Connection, request_id: str, found: Holding, holder: str, seconds: float) -> Lease:
    """Give a campaign's lease to `holder`, in the writing transaction that read `found`.

    Raises:
        HeldError: if the lease is held.
    """
    now = now_us()
    if now < found.until_us <= now + (found.length_us or _LONGEST_US):
        raise HeldError(
            f"Expected no other coordinator to drive campaign {request_id!r}, but {found.holder} "
            f"does, for {(found.until_us - now) / 1e6:.1f} s unless it renews its lease. Try again "
            "then."
        )
    lease = Lease(request_id, holder, found.token + 1)
    _put(db, lease, now, seconds)
    return lease


def renew(db: Connection, lease: Lease, seconds: float) -> None:
    """Extend a lease to `seconds` from now.

    Raises:
        StoreError: if the lease was lost.
    """
    check(db, lease)
    _put(db, lease, now_us(), seconds)


def release(db: Connection, lease: Lease) -> None:
    """Give back a checked lease; later writes with it are refused."""
    _put(db, Lease(lease.request_id, "", lease.token + 1), 0, 0.0)


def check(db: Connection, lease: Lease) -> None:
    """Raise `StoreError` unless a lease is the latest of its campaign."""
    read_holding(_HELD.first(db, {"request": lease.request_id})).check(lease)


def _put(db: Connection, lease: Lease, start_us: int, seconds: float) -> None:
    length = round(seconds * 1e6)
    values = {
        "of_request": lease.request_id,
        "lease_token": lease.token,
        "lease_holder": lease.holder,
        "lease_until_us": start_us + length,
        "lease_length_us": length,
    }
    _PUT.run(db, values)
