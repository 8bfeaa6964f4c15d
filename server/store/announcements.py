"""Versions that a federation told its nodes to make, until their owners register them.

An update may come too late for its round, or not be what its node keeps: the node may send only a
part of it, or fewer bits.  What it started from is known all the same, so an owner's version that
was announced has that as its parent, and its owner says once what it holds.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from disinherit.server.store.tables import ANNOUNCED


@dataclass(frozen=True, slots=True)
class Announced:
    """A version that an owner was told to make.

    Attributes:
        model_id: its id.
        owner: whose it will be.
        start: id of the version that it is trained from.
    """

    model_id: str
    owner: str
    start: str


def put_announced(db: Connection, versions: Iterable[Announced]) -> None:
    """Note versions that owners were told to make; what was noted of the same ids is gone."""
    rows = {
        one.model_id: {"model_id": one.model_id, "owner": one.owner, "start_id": one.start}
        for one in versions
    }
    for model_id in rows:
        db.execute(delete(ANNOUNCED).where(ANNOUNCED.c.model_id == model_id))
    if rows:
        db.execute(insert(ANNOUNCED), list(rows.values()))


def find_announced(db: Connection, model_id: str, owner: str) -> Announced | None:
    """Return what was announced of a version of an owner, unless its owner has registered it."""
    query = select(ANNOUNCED).where(ANNOUNCED.c.model_id == model_id, ANNOUNCED.c.owner == owner)
    row = db.execute(query).one_or_none()
    return None if row is None else Announced(row.model_id, row.owner, row.start_id)


def drop_announced(db: Connection, model_id: str) -> None:
    """Forget what was announced: its owner has said what it holds."""
    db.execute(delete(ANNOUNCED).where(ANNOUNCED.c.model_id == model_id))
