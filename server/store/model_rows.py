"""Rows of versions, and of the inheritance between them."""

import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from disinherit.common.errors import GraphError, StoreError
from disinherit.common.graph.proto import (
    inheritance_from_proto,
    inheritance_to_proto,
    record_from_proto,
    record_to_proto,
)
from disinherit.common.graph.records import Inheritance, ModelRecord, ModelStatus
from disinherit.server.store.queries import Query, WriteQuery
from disinherit.server.store.tables import EDGES, HOLDINGS, MODELS, PLANNED_ROOTS, M, parse
from disinherit.v1.graph_pb2 import Inheritance as InheritanceProto
from disinherit.v1.graph_pb2 import ModelRecord as RecordProto

V = TypeVar("V")

# Made once: to make such a statement anew takes longer than to execute it.
_RECORD = Query(select(MODELS.c.record).where(MODELS.c.id == bindparam("model")))
_INSERT_MODELS = WriteQuery(insert(MODELS))
_UPDATE_MODELS = WriteQuery(
    update(MODELS)
    .where(MODELS.c.id == bindparam("changed"))
    .values(record=bindparam("data"), digest=bindparam("weights"))
)
_INSERT_EDGES = WriteQuery(insert(EDGES))
_INSERT_HOLDINGS = WriteQuery(insert(HOLDINGS))
_INSERT_PLANNED = WriteQuery(insert(PLANNED_ROOTS))
_PLANNED = Query(
    select(PLANNED_ROOTS.c.record).where(PLANNED_ROOTS.c.request_id == bindparam("request"))
)

_KEPT = 2**15
"""Rows that are kept: those of a campaign over ten thousand versions, with their edges."""

_KEPT_BYTES = 4096
"""Size of a row, at most, that is kept once it has been read."""


def _reader(kind: type[M], convert: Callable[[M], V], what: str) -> Callable[[bytes], V]:
    """Return a function that reads what a row holds, and raises `StoreError` if it is damaged.

    A pass reads the same rows in several transactions, so that those of usual size are kept.
    """

    def read(data: bytes) -> V:
        message = parse(kind, data)
        try:
            return convert(message)
        except GraphError as error:
            raise StoreError(f"Expected a sound {what} in the database, but: {error}") from error

    kept = functools.lru_cache(maxsize=_KEPT)(read)
    return lambda data: kept(data) if len(data) <= _KEPT_BYTES else read(data)


read_record = _reader(RecordProto, record_from_proto, "record")
"""Return the version that a row holds."""

read_edge = _reader(InheritanceProto, inheritance_from_proto, "edge")
"""Return the edge that a row holds."""


def find_record(db: Connection, model_id: str) -> ModelRecord | None:
    """Return the record of a version, or `None`."""
    data = _RECORD.scalar(db, {"model": model_id})
    return None if data is None else read_record(data)


def insert_records(db: Connection, records: Sequence[ModelRecord]) -> None:
    """Add the rows of versions and of their classes."""
    rows = [
        {
            "id": record.id,
            "owner": record.owner,
            "created_us": record.created_us,
            "record": _record_bytes(record),
            "digest": record.digest,
        }
        for record in records
    ]
    if rows:
        _INSERT_MODELS.run(db, *rows)
    _insert_holdings(db, records)


def put_planned_roots(db: Connection, request_id: str, roots: Iterable[str]) -> None:
    """Store the present records of a request's roots."""
    for root in roots:
        for record in _RECORD.scalars(db, {"model": root}):
            values = {"request_id": request_id, "model_id": root, "record": record}
            _INSERT_PLANNED.run(db, values)


def find_planned_roots(db: Connection, request_id: str) -> dict[str, ModelRecord]:
    """Return the records of a request's roots at its submission.

    Raises:
        StoreError: if one is damaged.
    """
    records = map(read_record, _PLANNED.scalars(db, {"request": request_id}))
    return {record.id: record for record in records}


def put_statuses(db: Connection, records: Sequence[ModelRecord], status: ModelStatus) -> None:
    """Change the status of versions only."""
    _put_records(db, records, status)


def replace_record(db: Connection, record: ModelRecord) -> None:
    """Change the rows of a version and of its classes."""
    _put_records(db, [record])
    db.execute(delete(HOLDINGS).where(HOLDINGS.c.model_id == record.id))
    _insert_holdings(db, [record])


def delete_record(db: Connection, model_id: str) -> None:
    """Remove the rows of a version, of its classes, and of the edges that lead to it."""
    db.execute(delete(HOLDINGS).where(HOLDINGS.c.model_id == model_id))
    db.execute(delete(EDGES).where(EDGES.c.child == model_id))
    db.execute(delete(MODELS).where(MODELS.c.id == model_id))


def _put_records(
    db: Connection, records: Sequence[ModelRecord], status: ModelStatus | None = None
) -> None:
    rows = [
        {"changed": record.id, "data": _record_bytes(record, status), "weights": record.digest}
        for record in records
    ]
    if rows:
        _UPDATE_MODELS.run(db, *rows)


def _record_bytes(record: ModelRecord, status: ModelStatus | None = None) -> bytes:
    return record_to_proto(record, status).SerializeToString(deterministic=True)


def _insert_holdings(db: Connection, records: Sequence[ModelRecord]) -> None:
    rows = [
        {"class_digest": class_digest(name), "model_id": record.id}
        for record in records
        for name, count in (
            record.provenance.samples_per_class if record.provenance else {}
        ).items()
        if count
    ]
    if rows:
        _INSERT_HOLDINGS.run(db, *rows)


def class_digest(name: str) -> str:
    """Return the search key of a class; names may be too long, and sort in many ways."""
    return hashlib.sha256(name.encode()).hexdigest()


def insert_edges(db: Connection, edges: Iterable[Inheritance], recorded_by: str = "") -> None:
    """Add the rows of edges.

    Args:
        db: a transaction that writes.
        edges: the edges.
        recorded_by: the actor; `""` for the coordinator, which observed the derivation.
    """
    rows = [
        {
            "parent": edge.parent,
            "child": edge.child,
            "edge": inheritance_to_proto(edge).SerializeToString(deterministic=True),
            "recorded_by": recorded_by,
        }
        for edge in edges
    ]
    if rows:
        _INSERT_EDGES.run(db, *rows)
