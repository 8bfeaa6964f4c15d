"""Plausibility check of the coordinator's clock, before weights are destroyed for good.

The clock is compared with `CLOCK_BOOTTIME`, which cannot be set and also counts while the
machine sleeps.  The database keeps the last time at which the clock was right, so a change of the
clock while the coordinator is stopped is detected, too.
"""

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy import Connection, func, insert, select, update

from disinherit.common.audit.export import read_entry
from disinherit.server.now import now_us
from disinherit.server.store.audit import append
from disinherit.server.store.audit_events import AuditKind
from disinherit.server.store.database import Database
from disinherit.server.store.tables import AUDIT, CLOCK

_LOG = logging.getLogger(__name__)
_TOLERANCE_US = 3600 * 1_000_000
"""Largest accepted difference between the clock and the elapsed time."""

_NOTED_US = 60 * 1_000_000
"""Largest age of the time in the database."""

_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def passed_us() -> int:
    """Return microseconds of a monotonic clock that also counts while the machine sleeps."""
    return time.clock_gettime_ns(_BOOT) // 1000


class Clock:
    """Compares the clock with the time elapsed since it was last right.

    Args:
        database: the coordinator's database.
        now: the clock, in microseconds since the epoch.
        passed: a monotonic clock, as `passed_us`.
    """

    def __init__(
        self,
        database: Database,
        now: Callable[[], int] = now_us,
        passed: Callable[[], int] = passed_us,
    ) -> None:
        self._database = database
        self._now = now
        self._passed = passed
        self._lock = threading.Lock()
        self._right: tuple[int, int] | None = None
        self._noted = 0
        self._warned = False
        self._ahead = 0

    def believed(self) -> bool:
        """Return whether the clock is plausible.

        Raises:
            StoreError: if the database cannot be used.
        """
        with self._lock:
            now, passed = self._now(), self._passed()
            self._ahead = now - self._expected(now, passed)
            if not _is_near(self._ahead) and not self._is_confirmed(now):
                return False
            self._right, self._warned = (now, passed), False
            if abs(now - self._noted) >= _NOTED_US:
                with self._database.writing() as db:
                    _note(db, now)
                self._noted = now
            return True

    def warn(self) -> None:
        """Log that nothing is destroyed, once for each time that the clock goes wrong."""
        if not self._warned:
            _LOG.error(
                "The clock is %.1f hours %s of what it should show: nothing is destroyed until it "
                "is right again, or a person confirms it with: disinherit confirm clock",
                abs(self._ahead) / 3.6e9,
                "ahead" if self._ahead > 0 else "behind",
            )
            self._warned = True

    def _expected(self, now: int, passed: int) -> int:
        """Return the expected time of the clock."""
        if self._right is None:
            with self._database.reading() as db:
                known = _last_known(db)
            self._right = (now if known is None else known), passed
        right, then = self._right
        return right + passed - then

    def _is_confirmed(self, now: int) -> bool:
        with self._database.reading() as db:
            confirmed = db.scalar(select(CLOCK.c.confirmed_us)) or 0
        return _is_near(now - confirmed)


def confirm_clock(db: Connection, actor: str) -> None:
    """Record a person's confirmation that the clock is right.

    Args:
        db: a transaction that writes.
        actor: the person.
    """
    now = now_us()
    _note(db, now)
    db.execute(update(CLOCK).values(confirmed_us=now))
    append(db, AuditKind.CLOCK_CONFIRMED, actor)


def _note(db: Connection, now: int) -> None:
    if not db.execute(update(CLOCK).values(seen_us=now)).rowcount:
        db.execute(insert(CLOCK).values(id=1, seen_us=now, confirmed_us=0))


def _last_known(db: Connection) -> int | None:
    """Return the last time at which the clock was known to be right; `None` if there is none."""
    seen = db.scalar(select(func.max(CLOCK.c.seen_us)))
    if seen:
        return int(seen)
    line = db.scalar(select(AUDIT.c.entry).order_by(AUDIT.c.sequence.desc()).limit(1))
    return None if line is None else read_entry(line).event.time_us


def _is_near(difference: int) -> bool:
    return abs(difference) <= _TOLERANCE_US
