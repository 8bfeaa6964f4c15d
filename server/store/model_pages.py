"""Pages of versions as they are stored, which nobody parses to send them on."""

import functools
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    String,
    bindparam,
    func,
    or_,
    select,
    tuple_,
)

from disinherit.server.store.queries import Query
from disinherit.server.store.tables import MODELS

_OVERHEAD = 8
"""Upper bound of the bytes that stand before a record in a message."""


def page_rows(
    db: Connection, owner: str, after: tuple[int, str] | None, count: int, size: int
) -> tuple[list[tuple[int, str, bytes]], bool]:
    """Return a page of the versions as they are stored, unparsed, the oldest first.

    Args:
        db: a transaction.
        owner: the owner; `""` for all.
        after: `(created_us, id)` of the last version of the page before; `None` for the first.
        count: the largest number of versions.
        size: of at most so many bytes, unless a single one is larger.

    Returns:
        `(created_us, id, record)` of each, and whether more follow.
    """
    values: dict[str, Any] = {"owner": owner, "one_more": count + 1, "size": size}
    if after is not None:
        values |= {"after_us": after[0], "after_id": after[1]}
    found = _page(bool(owner), after is not None).all(db, values)
    rows = [(row.created_us, row.id, row.record) for row in found[:count]]
    return rows, bool(found) and found[0].found > len(rows)


@functools.cache
def _page(owned: bool, continued: bool) -> Query:
    """Return the query of a page: its records are read only as far as they fit."""
    age = (MODELS.c.created_us, MODELS.c.id)
    conditions: list[ColumnElement[bool]] = []
    if owned:
        conditions.append(MODELS.c.owner == bindparam("owner"))
    if continued:
        last = tuple_(bindparam("after_us", type_=BigInteger), bindparam("after_id", type_=String))
        conditions.append(tuple_(*age) > last)
    length = (func.length(MODELS.c.record) + _OVERHEAD).label("length")
    next_ones = select(*age, length).where(*conditions).order_by(*age).limit(bindparam("one_more"))
    some = next_ones.subquery()
    in_order = (some.c.created_us, some.c.id)
    end = func.sum(some.c.length).over(order_by=in_order).label("end")
    summed = select(*some.c, end, func.count().over().label("found")).subquery()
    fits = or_(summed.c.end <= bindparam("size"), summed.c.end == summed.c.length)
    query = select(summed.c.created_us, summed.c.id, summed.c.found, MODELS.c.record)
    query = query.join(MODELS, MODELS.c.id == summed.c.id).where(fits)
    return Query(query.order_by(summed.c.created_us, summed.c.id))
