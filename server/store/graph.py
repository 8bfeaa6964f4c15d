"""Queries of parts of the stored graph, with costs linear in their results."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Connection,
    Select,
    bindparam,
    literal,
    select,
    tuple_,
    union_all,
)

from disinherit.common.errors import GraphError, LabelError, StoreError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.server.store.audit_events import AuditKind, owner_actor
from disinherit.server.store.audit_lines import read_line
from disinherit.server.store.model_rows import class_digest, read_edge, read_record
from disinherit.server.store.queries import Query
from disinherit.server.store.remembering import remembered
from disinherit.server.store.tables import AUDIT, EDGES, HOLDINGS, MODELS, TASKS

T = TypeVar("T")

_AT_A_TIME = 500
"""Values in one query; SQLite allows 32,766, older versions 999."""

_STARTS = 30_000
"""Values in one query whose cost is that of all descendants, so that few queries are cheaper."""

_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_RECORDS = Query(select(MODELS.c.record).where(MODELS.c.id.in_(_IDS)))
_DIGESTS = Query(select(MODELS.c.id, MODELS.c.digest).where(MODELS.c.id.in_(_IDS)))
_EDGES = {
    end.name: Query(
        select(EDGES.c.edge).where(end.in_(_IDS)).order_by(EDGES.c.parent, EDGES.c.child)
    )
    for end in (EDGES.c.parent, EDGES.c.child)
}

_BEGUN = select(MODELS.c.id).where(MODELS.c.id.in_(_IDS)).cte("reached", recursive=True)
_REACHED = select(
    _BEGUN.union(select(EDGES.c.child).join(_BEGUN, EDGES.c.parent == _BEGUN.c.id)).c.id
)
_REACHED_ROWS = Query(
    union_all(
        select(literal(1).label("is_edge"), EDGES.c.edge.label("data")).where(
            EDGES.c.child.in_(_REACHED)
        ),
        select(literal(0), MODELS.c.record).where(
            MODELS.c.id.in_(
                union_all(_REACHED, select(EDGES.c.parent).where(EDGES.c.child.in_(_REACHED)))
            )
        ),
    )
)
_TASKED = select(TASKS.c.model_id).where(TASKS.c.request_id == bindparam("request"))
_LINEAGE_EDGES = Query(select(EDGES.c.edge).where(EDGES.c.child.in_(_TASKED)))
_LINEAGE_RECORDS = Query(
    select(MODELS.c.record).where(
        MODELS.c.id.in_(
            union_all(_TASKED, select(EDGES.c.parent).where(EDGES.c.child.in_(_TASKED)))
        )
    )
)


def find_graph(db: Connection) -> InheritanceGraph:
    """Return the whole inheritance graph.

    Raises:
        StoreError: if it is damaged.
    """
    records = db.execute(select(MODELS.c.record)).scalars().all()
    edges = db.execute(select(EDGES.c.edge)).scalars().all()
    return _graph(map(read_record, records), map(read_edge, edges))


class StoredPart(NamedTuple):
    """A part of the graph as its rows hold it; parts with equal rows are equal.

    Attributes:
        records: the versions.
        edges: the edges.
    """

    records: tuple[bytes, ...]
    edges: tuple[bytes, ...]

    def graph(self) -> InheritanceGraph:
        """Return the graph of these rows.

        Raises:
            StoreError: if it is damaged.
        """
        return copy.copy(_part_graph(self))


@remembered
def _part_graph(part: StoredPart) -> InheritanceGraph:
    return _graph(map(read_record, part.records), map(read_edge, part.edges))


def find_descendants(db: Connection, roots: Sequence[str]) -> InheritanceGraph:
    """Return the graph of what `read_descendants` finds.

    Raises:
        StoreError: if it is damaged.
    """
    return read_descendants(db, roots).graph()


def read_descendants(db: Connection, roots: Sequence[str]) -> StoredPart:
    """Return roots, their descendants, and the parents of these.

    A root that is a successor includes its originals and their descendants.  Queries about a
    request with these roots have the same answer as in the whole graph.  Unknown roots are left
    out; a parent that does not descend from a root comes without its own parents.

    Raises:
        StoreError: if the graph is damaged.
    """
    records: set[bytes] = set()
    edges: set[bytes] = set()
    for some in _batches(set(roots) | _find_origins(db, roots), _STARTS):
        for row in _REACHED_ROWS.all(db, {"ids": some}):
            (edges if row.is_edge else records).add(row.data)
    return StoredPart(tuple(sorted(records)), tuple(sorted(edges)))


def find_lineage(db: Connection, request_id: str) -> InheritanceGraph:
    """Return the versions that a request affects and their parents, with the edges to the former.

    Raises:
        StoreError: if the graph is damaged.
    """
    named = {"request": request_id}
    edges = _LINEAGE_EDGES.scalars(db, named)
    records = _LINEAGE_RECORDS.scalars(db, named)
    return _graph(map(read_record, records), map(read_edge, edges))


def find_line(versions: Select[Any]) -> Select[Any]:
    """Return a query for the ids of versions and all their ancestors."""
    line = select(MODELS.c.id).where(MODELS.c.id.in_(versions)).cte("line", recursive=True)
    parents = select(EDGES.c.parent).join(line, EDGES.c.child == line.c.id)
    return select(line.union(parents).c.id)


def find_below(versions: Select[Any]) -> Select[Any]:
    """Return a query for the ids of versions and all their descendants."""
    below = select(MODELS.c.id).where(MODELS.c.id.in_(versions)).cte("below", recursive=True)
    children = select(EDGES.c.child).join(below, EDGES.c.parent == below.c.id)
    return select(below.union(children).c.id)


def find_kin(db: Connection, versions: Iterable[str]) -> set[str]:
    """Return versions, their ancestors, and the successors of all these, repeatedly.

    A request that newly affects a version has a task for one of these.
    """
    kin: set[str] = set()
    frontier = set(versions)
    while frontier:
        found = {
            id for some in _batches(frontier) for id in _LINES.scalars(db, {"ids": some})
        } - kin
        kin |= found
        edges = find_edges(db, EDGES.c.parent, found)
        frontier = {e.child for e in edges if e.kind is InheritanceKind.UNLEARNED} - kin
    return kin


_LINES = Query(find_line(select(MODELS.c.id).where(MODELS.c.id.in_(_IDS))))


def _find_origins(db: Connection, roots: Sequence[str]) -> set[str]:
    """Return the versions that roots are successors of, directly or not."""
    found: set[str] = set()
    frontier = set(roots)
    while frontier:
        edges = find_edges(db, EDGES.c.child, frontier)
        frontier = {edge.parent for edge in edges if edge.kind is InheritanceKind.UNLEARNED} - found
        found |= frontier
    return found


def find_edges(db: Connection, end: Column[str], ids: Iterable[str]) -> list[Inheritance]:
    """Return the edges from or to some versions, sorted by parent, then child.

    Args:
        db: a transaction.
        end: `EDGES.c.parent` for edges from the versions, `EDGES.c.child` for edges to them.
        ids: the versions.

    Raises:
        StoreError: if one is damaged.
    """
    query = _EDGES[end.name]
    return [read_edge(data) for some in _batches(ids) for data in query.scalars(db, {"ids": some})]


def find_recorders(db: Connection, parent: str) -> dict[str, str]:
    """Return who recorded the edges that start at a version.

    Args:
        db: a transaction.
        parent: the version.

    Returns:
        Child -> the actor, as in the audit log; `""` for the coordinator itself.
    """
    query = select(EDGES.c.child, EDGES.c.recorded_by).where(EDGES.c.parent == parent)
    return {row.child: row.recorded_by for row in db.execute(query)}


def find_records(db: Connection, ids: Iterable[str]) -> dict[str, ModelRecord]:
    """Return id -> record of the versions that exist.

    Raises:
        StoreError: if one is damaged.
    """
    found = (
        read_record(data)
        for some in _batches(set(ids))
        for data in _RECORDS.scalars(db, {"ids": some})
    )
    return {record.id: record for record in found}


def find_digests(db: Connection, ids: Iterable[str]) -> dict[str, str]:
    """Return id -> SHA-256 of the weights of the versions that exist."""
    return {
        row.id: row.digest for some in _batches(set(ids)) for row in _DIGESTS.all(db, {"ids": some})
    }


def page_records(
    db: Connection, owner: str, after: tuple[int, str] | None = None, count: int | None = None
) -> list[ModelRecord]:
    """Return versions, the oldest first.

    Args:
        db: a transaction.
        owner: the owner; `""` for all.
        after: `(created_us, id)` of the last version of the page before; `None` for the first.
        count: the largest number of versions; `None` for all.

    Raises:
        StoreError: if one is damaged.
    """
    age = (MODELS.c.created_us, MODELS.c.id)
    conditions: list[ColumnElement[bool]] = []
    if owner:
        conditions.append(MODELS.c.owner == owner)
    if after is not None:
        conditions.append(tuple_(*age) > tuple_(*after))
    query = select(MODELS.c.record).where(*conditions).order_by(*age).limit(count)
    return [read_record(data) for data in db.scalars(query)]


def find_ids(db: Connection, prefix: str) -> list[str]:
    """Return the ids of all versions that begin with a text, sorted."""
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    query = select(MODELS.c.id).where(MODELS.c.id >= prefix, MODELS.c.id < end)
    return list(db.scalars(query.order_by(MODELS.c.id)))


def find_all_ids(db: Connection) -> list[str]:
    """Return the ids of all versions."""
    return list(db.scalars(select(MODELS.c.id)))


def find_owners(db: Connection) -> list[str]:
    """Return the owners of all versions, each once."""
    return list(db.scalars(select(MODELS.c.owner).distinct()))


def find_by_weights(db: Connection, digest: str) -> list[ModelRecord]:
    """Return the versions with these weights, the oldest first.

    Parents of others with the same weights are left out, since their children represent them.

    Args:
        db: a transaction.
        digest: SHA-256 of the weights; `""` finds nothing.

    Raises:
        StoreError: if one is damaged.
    """
    query = select(MODELS.c.record).where(MODELS.c.digest == digest, MODELS.c.digest != "")
    found = {
        record.id: record
        for record in map(read_record, db.scalars(query.order_by(MODELS.c.created_us, MODELS.c.id)))
    }
    before = {edge.parent for edge in find_edges(db, EDGES.c.child, found)}
    return [record for id, record in found.items() if id not in before]


def find_holders(db: Connection, classes: Iterable[str]) -> list[ModelRecord]:
    """Return the versions that were trained directly on any of some classes, the oldest first.

    Raises:
        StoreError: if one is damaged.
    """
    digests = {class_digest(name) for name in classes}
    held = select(HOLDINGS.c.model_id).where(HOLDINGS.c.class_digest.in_(digests))
    query = select(MODELS.c.record).where(MODELS.c.id.in_(held))
    return [
        read_record(data) for data in db.scalars(query.order_by(MODELS.c.created_us, MODELS.c.id))
    ]


def find_parentless(db: Connection, classes: Iterable[str]) -> list[ModelRecord]:
    """Return the versions with any of some classes that owners registered without a parent.

    The oldest come first.  Versions that operators or federations recorded are left out: these know
    that there is no parent.

    Args:
        db: a transaction.
        classes: names of classes.

    Raises:
        StoreError: if one is damaged.
    """
    derived = select(EDGES.c.child).where(EDGES.c.child == MODELS.c.id).exists()
    query = (
        select(MODELS.c.record, AUDIT.c.entry)
        .join(AUDIT, AUDIT.c.model_id == MODELS.c.id)
        .where(AUDIT.c.request_id == "", AUDIT.c.kind == AuditKind.MODEL_REGISTERED.value, ~derived)
        .order_by(MODELS.c.created_us, MODELS.c.id)
    )
    names = {name: name.encode() for name in classes}
    found = [
        (read_record(row.record), read_line(row.entry).event.actor)
        for row in db.execute(query)
        # Skip the others unparsed, since an owner may register many large records.
        if any(name in row.record for name in names.values())
    ]
    return [
        record
        for record, actor in found
        if actor == owner_actor(record.owner) and not names.keys().isdisjoint(record.labels)
    ]


def _graph(records: Iterable[ModelRecord], edges: Iterable[Inheritance]) -> InheritanceGraph:
    try:
        return InheritanceGraph(records, edges)
    except (GraphError, LabelError) as error:
        raise StoreError(
            f"Expected a sound inheritance graph in the database, but: {error}"
        ) from error


def _batches(values: Iterable[T], size: int = _AT_A_TIME) -> Iterator[list[T]]:
    rest = list(values)
    for start in range(0, len(rest), size):
        yield rest[start : start + size]
