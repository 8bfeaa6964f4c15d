"""Presence of owners: who is connected, how, and since when others are away.

Each process that connects owners records its own: the coordinator's service its agents, a run of
the ServerApp its nodes.  A process that is killed cannot record that its owners are gone, so an
owner counts as connected only while its process confirms it.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from disinherit.common.errors import StoreError
from disinherit.server.now import now_us
from disinherit.server.store.database import Database
from disinherit.server.store.tables import PRESENCE

_LOG = logging.getLogger(__name__)
_CONFIRM_US = 30_000_000
"""Interval of confirming that owners are connected, in microseconds: a write to the disk."""

_BELIEVED_US = 3 * _CONFIRM_US
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Details:
    """What a connected owner says of itself.

    Attributes:
        release: its release of Disinherit; `""` if it does not say.
        hours: its hours of participation, such as `22:00-06:00`; `""` for always.
    """

    release: str = ""
    hours: str = ""


@dataclass(frozen=True, slots=True)
class Presence:
    """The presence of an owner.

    Attributes:
        owner: the owner.
        way: how it was connected: `agent` or `flower`.
        online: whether it is connected.
        seen_us: when it was last known to be connected, in microseconds since the epoch.
        details: what it said of itself then.
    """

    owner: str
    way: str
    online: bool
    seen_us: int
    details: Details


def find_presence(
    db: Connection, owners: Collection[str] | None = None, *, online: bool = False
) -> dict[str, Presence]:
    """Return owner -> its presence, of those that were ever connected.

    Args:
        db: a transaction.
        owners: only these; `None` for all.
        online: only those that are connected.
    """
    query = select(PRESENCE)
    if owners is not None:
        query = query.where(PRESENCE.c.owner.in_(owners))
    if online:
        query = query.where(PRESENCE.c.online == 1)
    now = now_us()
    found = {row.owner: _read(row, now) for row in db.execute(query)}
    return {owner: one for owner, one in found.items() if one.online or not online}


class Attendance:
    """Records which owners are connected to this process.

    Args:
        database: the coordinator's database.
        way: how they are connected: `agent` or `flower`.
    """

    def __init__(self, database: Database, way: str) -> None:
        self._database = database
        self._way = way
        self._known: dict[str, Details] = {}
        self._confirmed_us = 0
        self._failed = False

    def keep(self, connected: Mapping[str, Details]) -> None:
        """Record the owners that are connected now; it writes only if there is news, or at times.

        A failure is logged once, and made good by the next call.

        Args:
            connected: owner -> what it says of itself.
        """
        now = now_us()
        due = bool(connected) and not 0 <= now - self._confirmed_us < _CONFIRM_US
        if connected == self._known and not due:
            return
        gone = self._known.keys() - connected.keys()
        try:
            with self._database.writing() as db:
                for owner, details in connected.items():
                    if due or self._known.get(owner) != details:
                        self._put(db, owner, details, now)
                for start in range(0, len(gone), _AT_ONCE):
                    some = PRESENCE.c.owner.in_(sorted(gone)[start : start + _AT_ONCE])
                    mine = update(PRESENCE).where(some, PRESENCE.c.way == self._way)
                    db.execute(mine.values(online=0, seen_us=now))
        except StoreError as error:
            if not self._failed:
                _LOG.warning("cannot record which owners are connected: %s", error)
            self._failed = True
            return
        self._failed = False
        self._known = dict(connected)
        if due:
            self._confirmed_us = now

    def _put(self, db: Connection, owner: str, details: Details, now: int) -> None:
        values = {
            "way": self._way,
            "online": 1,
            "seen_us": now,
            "release": details.release,
            "hours": details.hours,
        }
        mine = update(PRESENCE).where(PRESENCE.c.owner == owner)
        if not db.execute(mine.values(**values)).rowcount:
            db.execute(insert(PRESENCE).values(owner=owner, **values))


def _read(row: Row[Any], now: int) -> Presence:
    # Either way: the clock may have been set back.
    believed = abs(now - row.seen_us) < _BELIEVED_US
    return Presence(
        row.owner,
        row.way,
        bool(row.online) and believed,
        row.seen_us,
        Details(row.release, row.hours),
    )
