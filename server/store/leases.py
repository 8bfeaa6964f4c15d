"""Leases of campaigns, with fencing tokens.

A lease runs out unless it is renewed, so a coordinator that died is followed by another one.  One
that only slept, or whose clock is wrong, may still believe it holds the lease: every lease has a
higher token than the one before, and what is written with any other token than the latest is
refused.  So a lease may also be taken too early: one that would run longer than it was given for
was given by a clock that has been set back since, and has ended.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import Connection, Row, select, update

from disinherit.common.errors import HeldError, StoreError
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
        ended: set once it was given back.
    """

    request_id: str
    holder: str
    token: int
    ended: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Holding:
    """Who has the lease of a campaign, as it is stored.

    Attributes:
        token: of the latest lease.
        holder: who has it; `""` for nobody.
        until_us: when it ends unless it is renewed, in microseconds since the epoch.
        length_us: for how long it was given.
    """

    token: int
    holder: str
    until_us: int
    length_us: int

    def check(self, lease: Lease) -> None:
        """Raise `StoreError` unless a lease is the latest."""
        if self.token != lease.token:
            raise StoreError(
                f"Expected {lease.holder} to drive campaign {lease.request_id!r} with token "
                f"{lease.token}, but it was given up or taken over by {self.holder or 'nobody'} "
                f"with token {self.token}. Nothing was stored."
            )


def read_holding(row: Row[Any], prefix: str = "") -> Holding:
    """Return the lease that a row of a campaign holds; `prefix` begins its columns' names."""
    names = ("token", "holder", "until_us", "length_us")
    return Holding(*(getattr(row, f"{prefix}lease_{name}") for name in names))


class Leases(Protocol):
    """Keeps leases; a `CoordinatorStore` does."""

    def renew_lease(self, lease: Lease, seconds: float) -> None:
        """Let a lease run from now."""
        ...

    def release_lease(self, lease: Lease) -> None:
        """Give a lease back."""
        ...


@contextmanager
def held(
    leases: Leases, acquire: Callable[[], Lease], seconds: float, patience: float = 0.0
) -> Iterator[Lease]:
    """Hold a lease for the length of a block, however long that takes.

    Args:
        leases: where it is kept.
        acquire: takes it.
        seconds: how long it outlives this process; it is renewed three times in that time.
        patience: seconds to wait for one that another holds, which may have died.

    Yields:
        The lease; a transaction of the block may give it back.

    Raises:
        CampaignError: if another one holds it.
        RequestError: if there is no such request.
    """
    lease = _wait_for(acquire, time.monotonic() + patience)

    def renew() -> None:
        while not lease.ended.wait(seconds / 3):
            # If it is lost, the next write says so; if the database is away, it may come back.
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
    """Give a campaign's lease to `holder`, in a transaction that writes and has found `found`.

    Raises:
        HeldError: if it is held.
    """
    now = now_us()
    if now < found.until_us <= now + (found.length_us or _LONGEST_US):
        raise HeldError(
            f"Expected nobody else to drive campaign {request_id!r}, but {found.holder} does, "
            f"for {(found.until_us - now) / 1e6:.1f} s unless it goes on. Try again then."
        )
    lease = Lease(request_id, holder, found.token + 1)
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
    """Give back a lease that was checked; nothing can be written with it any more."""
    _put(db, Lease(lease.request_id, "", lease.token + 1), 0, 0.0)


def check(db: Connection, lease: Lease) -> None:
    """Raise `StoreError` unless a lease is its campaign's latest."""
    row = db.execute(select(CAMPAIGNS).where(CAMPAIGNS.c.request_id == lease.request_id)).one()
    read_holding(row).check(lease)


def _put(db: Connection, lease: Lease, start_us: int, seconds: float) -> None:
    length = round(seconds * 1e6)
    values = {
        "lease_token": lease.token,
        "lease_holder": lease.holder,
        "lease_until_us": start_us + length,
        "lease_length_us": length,
    }
    db.execute(update(CAMPAIGNS).where(CAMPAIGNS.c.request_id == lease.request_id).values(**values))
