"""Presence of owners: who is connected, how, and since when others are away.

Each process that connects owners records its own: the coordinator's service its agents, a run of
the ServerApp its nodes.  A process that is killed cannot record that its owners are gone, so an
owner counts as connected only while its process confirms it.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from disinherit.common.errors import StoreError
from disinherit.server.now import now_us
from disinherit.server.store.database import Database
from disinherit.server.store.tables import PRESENCE

_LOG = logging.getLogger(__name__)
_CONFIRM_US = 30_000_000
"""Interval of confirming that owners are connected, in microseconds: a write to the disk."""

_BELIEVED_US = 3 * _CONFIRM_US
_AT_ONCE = 500
_OF_OWNERS = update(PRESENCE).where(PRESENCE.c.owner.in_(bindparam("owners", expanding=True)))


@dataclass(frozen=True, slots=True)
class MeasuredDownload:
    """A download that was long enough to tell how fast an owner is.

    Attributes:
        size: its bytes; 0 if there was none.
        taken_us: how long it took, in microseconds.
    """

    size: int = 0
    taken_us: int = 0


@dataclass(frozen=True, slots=True)
class Details:
    """What a connected owner says of itself, and what was measured of it.

    Attributes:
        release: its release of Disinherit; `""` if it does not say.
        hours: its hours of participation, such as `22:00-06:00`; `""` for always.
        bytes_per_second: limit that it keeps in each direction; 0 for none.
        download: its latest long download in this process; of an owner that is read, in any.
    """

    release: str = ""
    hours: str = ""
    bytes_per_second: int = 0
    download: MeasuredDownload = MeasuredDownload()


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
        self._known: Mapping[str, Details] = {}
        self._confirmed_us = 0
        self._failed = False

    def keep(self, connected: Mapping[str, Details]) -> None:
        """Record the owners that are connected now; it writes only if there is news, or at times.

        A failure is logged once, and made good by the next call.

        Args:
            connected: owner -> what it says of itself; nobody changes it later.  If it is the one
                of the last call, nothing is compared.
        """
        now = now_us()
        due = bool(connected) and not 0 <= now - self._confirmed_us < _CONFIRM_US
        if not due and (connected is self._known or connected == self._known):
            return
        gone = self._known.keys() - connected.keys()
        same = [owner for owner in connected if self._known.get(owner) == connected[owner]]
        new = connected.keys() - same
        try:
            with self._database.writing() as db:
                for some in _some(same if due else ()):
                    # Elsewhere it may be known as connected in another way.
                    if self._confirm(db, some, now) != len(some):
                        new |= set(some)
                for some in _some(sorted(new)):
                    self._put(db, {owner: connected[owner] for owner in some}, now)
                for some in _some(sorted(gone)):
                    mine = _OF_OWNERS.where(PRESENCE.c.way == self._way)
                    db.execute(mine.values(online=0, seen_us=now), {"owners": some})
        except StoreError as error:
            if not self._failed:
                _LOG.warning("cannot record which owners are connected: %s", error)
            self._failed = True
            return
        self._failed = False
        self._known = connected
        if due:
            self._confirmed_us = now

    def _confirm(self, db: Connection, owners: Sequence[str], now: int) -> int:
        """Record that owners are still connected, and return how many of them were known to be."""
        mine = _OF_OWNERS.where(PRESENCE.c.way == self._way, PRESENCE.c.online == 1)
        return db.execute(mine.values(seen_us=now), {"owners": owners}).rowcount

    def _put(self, db: Connection, connected: Mapping[str, Details], now: int) -> None:
        rows: dict[str, dict[str, str | int]] = {
            owner: {
                "owner": owner,
                "way": self._way,
                "online": 1,
                "seen_us": now,
                "release": details.release,
                "hours": details.hours,
                "bytes_per_second": details.bytes_per_second,
                "downloaded_bytes": details.download.size,
                "download_us": details.download.taken_us,
            }
            for owner, details in connected.items()
        }
        # What was measured before this process began stays until there is news.
        for row in db.execute(select(PRESENCE).where(PRESENCE.c.owner.in_(rows))):
            if not rows[row.owner]["downloaded_bytes"]:
                known = {"downloaded_bytes": row.downloaded_bytes, "download_us": row.download_us}
                rows[row.owner] |= known
        db.execute(delete(PRESENCE).where(PRESENCE.c.owner.in_(rows)))
        db.execute(insert(PRESENCE), list(rows.values()))


def _some(owners: Sequence[str]) -> Iterator[Sequence[str]]:
    return (owners[start : start + _AT_ONCE] for start in range(0, len(owners), _AT_ONCE))


def _read(row: Row[Any], now: int) -> Presence:
    # Either way: the clock may have been set back.
    believed = abs(now - row.seen_us) < _BELIEVED_US
    return Presence(
        row.owner,
        row.way,
        bool(row.online) and believed,
        row.seen_us,
        Details(
            row.release,
            row.hours,
            row.bytes_per_second,
            MeasuredDownload(row.downloaded_bytes, row.download_us),
        ),
    )
