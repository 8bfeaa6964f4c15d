"""The coordinator's tables, and the conversion of their rows.

Records, edges, requests and results are stored as protobuf messages.  Only what is searched or
sorted by has a column of its own.
"""

import functools
import hashlib
from collections.abc import Callable, Collection, Container, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    Text,
    bindparam,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.types import TypeEngine

from disinherit.common.errors import GraphError, RequestError, StoreError
from disinherit.common.graph.proto import (
    inheritance_from_proto,
    inheritance_to_proto,
    record_from_proto,
    record_to_proto,
)
from disinherit.common.graph.records import Inheritance, ModelRecord, ModelStatus
from disinherit.common.text import one_line
from disinherit.server.now import now_us
from disinherit.server.states import Task, TaskState
from disinherit.v1.graph_pb2 import Inheritance as InheritanceProto
from disinherit.v1.graph_pb2 import ModelRecord as RecordProto
from disinherit.v1.unlearning_pb2 import ModelResult, UnlearningRequest


def _text(length: int) -> TypeEngine[str]:
    # Sorted by code point, as in Python, and not by the locale of a server.
    return String(length).with_variant(String(length, collation="C"), "postgresql")


METADATA = MetaData()
MODELS = Table(
    "model",
    METADATA,
    Column("id", _text(128), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("record", LargeBinary, nullable=False),
    # SHA-256 of the weights.
    Column("digest", String(64), nullable=False, server_default=""),
    Index("ix_model_digest", "digest"),
    Index("ix_model_age", "created_us", "id"),
    Index("ix_model_owner_age", "owner", "created_us", "id"),
)
HOLDINGS = Table(  # which versions were trained directly on a class
    "holding",
    METADATA,
    Column("class_digest", String(64), primary_key=True),
    Column("model_id", ForeignKey("model.id"), primary_key=True, index=True),
)
EDGES = Table(
    "inheritance",
    METADATA,
    Column("parent", ForeignKey("model.id"), primary_key=True),
    Column("child", ForeignKey("model.id"), primary_key=True, index=True),
    Column("edge", LargeBinary, nullable=False),
    # The actor, as in the audit log; empty for the coordinator, which observed the derivation.
    Column("recorded_by", String(160), nullable=False, server_default=""),
)
ANNOUNCED = Table(  # versions that a federation asked owners to make, and their starts
    "announced",
    METADATA,
    Column("model_id", _text(128), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("start_id", _text(128), nullable=False),
)
REQUESTS = Table(
    "request",
    METADATA,
    Column("id", _text(128), primary_key=True),
    Column("created_us", BigInteger, nullable=False),
    Column("request", LargeBinary, nullable=False),
    Index("ix_request_age", "created_us", "id"),
)
TASKS = Table(
    "task",
    METADATA,
    Column("request_id", ForeignKey("request.id"), primary_key=True),
    Column("model_id", ForeignKey("model.id"), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("reason", Text, nullable=False, default=""),
    Column("result", LargeBinary, nullable=False, default=b""),
    Column("updated_us", BigInteger, nullable=False),
    Column("wave", BigInteger, nullable=False, server_default="0"),
    # When the superseded version is due to be destroyed, and when it was; 0 for never.
    Column("destroy_us", BigInteger, nullable=False, server_default="0"),
    Column("destroyed_us", BigInteger, nullable=False, server_default="0"),
    # 1 if the version joined after the request was submitted; 0 if it was planned.
    Column("late", BigInteger, nullable=False, server_default="0"),
    # The latest time, by the coordinator's clock, at which its owner was asked; 0 for never.
    Column("given_us", BigInteger, nullable=False, server_default="0"),
    Index("ix_task_destroy", "destroy_us"),
    Index("ix_task_model", "model_id"),
    Index("ix_task_owner", "owner", "state"),
)
CAMPAIGNS = Table(
    "campaign",
    METADATA,
    Column("request_id", ForeignKey("request.id"), primary_key=True),
    Column("state", String(24), nullable=False, index=True),
    Column("deadline_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("lease_token", BigInteger, nullable=False),
    Column("lease_holder", Text, nullable=False),
    Column("lease_until_us", BigInteger, nullable=False),
    # Length of the lease, from its last renewal.
    Column("lease_length_us", BigInteger, nullable=False, server_default="0"),
    # Roll-out: the number of begun waves, of accepted waves, and why it was halted.
    Column("open_waves", BigInteger, nullable=False, server_default="1"),
    Column("accepted_waves", BigInteger, nullable=False, server_default="0"),
    Column("halt_reason", Text, nullable=False, server_default=""),
    # SHA-256 of the submitted and the approved plan (`disinherit.server.store.approvals`); empty
    # if no approval is needed.
    Column("submitted_plan", String(64), nullable=False, server_default=""),
    Column("approved_plan", String(64), nullable=False, server_default=""),
)
PLANNED_ROOTS = Table(  # records of a request's roots at its submission
    "planned_root",
    METADATA,
    Column("request_id", ForeignKey("request.id"), primary_key=True),
    Column("model_id", ForeignKey("model.id"), primary_key=True),
    Column("record", LargeBinary, nullable=False),
)
PACKETS = Table(
    "packet",
    METADATA,
    Column("request_id", ForeignKey("request.id"), primary_key=True),
    Column("root", ForeignKey("model.id"), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False, index=True),
    Column("packet", LargeBinary, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)
AUDIT = Table(
    "audit",
    METADATA,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(32), nullable=False),
    Column("request_id", _text(128), nullable=False),
    Column("model_id", _text(128), nullable=False),
    Column("hash", String(64), nullable=False),
    # The complete line of an export.
    Column("entry", LargeBinary, nullable=False),
    Index("ix_audit_request", "request_id", "sequence"),
    Index("ix_audit_model", "request_id", "model_id", "kind"),
)
CLOCK = Table(  # one row: when the clock was last right, and when a person last confirmed it
    "clock",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("seen_us", BigInteger, nullable=False),
    Column("confirmed_us", BigInteger, nullable=False),
)
HISTORY = Table(  # one row: what history is missing, and the epoch (number of confirmations)
    "history",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("lost", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
)
ENROLMENT_TOKENS = Table(
    "enrolment_token",
    METADATA,
    Column("token_sha256", String(64), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    # SHA-256 of the public key it was spent on; empty if it was not.
    Column("key_sha256", String(64), nullable=False, default=""),
)
AGENT_KEYS = Table(
    "agent_key",
    METADATA,
    # SHA-256 of the public key, DER.
    Column("key_sha256", String(64), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("enrolled_us", BigInteger, nullable=False),
)
REVOCATIONS = Table(
    "agent_revocation",
    METADATA,
    Column("owner", String(128), primary_key=True),
    Column("revoked_us", BigInteger, nullable=False),
)

M = TypeVar("M", bound=Message)
V = TypeVar("V")

# Made once: to make such a statement anew takes longer than to execute it.
_SOME_TASKS = select(TASKS).where(
    TASKS.c.request_id == bindparam("request"),
    TASKS.c.model_id.in_(bindparam("models", expanding=True)),
)
_INSERT_TASKS = insert(TASKS)
_UPDATE_TASKS = update(TASKS).where(
    TASKS.c.request_id == bindparam("of_request"), TASKS.c.model_id == bindparam("of_model")
)
_UPDATE_GIVEN = (
    update(TASKS)
    .where(
        TASKS.c.request_id == bindparam("of_request"),
        TASKS.c.given_us < bindparam("now"),
        TASKS.c.model_id.in_(bindparam("models", expanding=True)),
    )
    .values(given_us=bindparam("now"))
)
_INSERT_MODELS = insert(MODELS)
_UPDATE_MODELS = (
    update(MODELS)
    .where(MODELS.c.id == bindparam("changed"))
    .values(record=bindparam("data"), digest=bindparam("weights"))
)
_INSERT_EDGES = insert(EDGES)


_KEPT_BYTES = 4096
"""Size of a row, at most, that is kept once it has been read."""


def parse(kind: type[M], data: bytes) -> M:
    """Return the message that a row holds.

    Raises:
        StoreError: if it is damaged.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise StoreError(
            f"Expected a {kind.DESCRIPTOR.full_name} in the coordinator's database, but a row is "
            f"damaged: {error}. Restore the database from a backup."
        ) from None


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

    kept = functools.lru_cache(maxsize=4096)(read)
    return lambda data: kept(data) if len(data) <= _KEPT_BYTES else read(data)


read_record = _reader(RecordProto, record_from_proto, "record")
"""Return the version that a row holds."""

read_edge = _reader(InheritanceProto, inheritance_from_proto, "edge")
"""Return the edge that a row holds."""


def read_task(row: Row[Any]) -> Task:
    """Return the task that a row holds.

    Raises:
        StoreError: if it is damaged, or this version does not know its state.
    """
    try:
        state = TaskState(row.state)
    except ValueError as error:
        raise StoreError(f"Expected a known task state in the database, but: {error}.") from None
    result = parse(ModelResult, row.result) if row.result else None
    return Task(
        row.model_id,
        row.owner,
        state,
        row.reason,
        result,
        row.wave,
        row.destroy_us,
        row.destroyed_us,
        bool(row.late),
    )


def find_submitted(db: Connection, request_id: str) -> UnlearningRequest | None:
    """Return a submitted request, or `None`."""
    data = db.execute(select(REQUESTS.c.request).where(REQUESTS.c.id == request_id)).scalar()
    return None if data is None else parse(UnlearningRequest, data)


def check_same(request: UnlearningRequest, stored: UnlearningRequest | None) -> None:
    """Raise `RequestError` if another request was submitted under the same id."""
    if stored is not None and request.SerializeToString(
        deterministic=True
    ) != stored.SerializeToString(deterministic=True):
        raise RequestError(
            f"Expected a new request id, but {request.id!r} was already used for another "
            "request. Submit it under another id."
        )


def find_request(db: Connection, request_id: str) -> UnlearningRequest:
    """Return a submitted request.

    Raises:
        RequestError: if there is no such request.
    """
    request = find_submitted(db, request_id)
    if request is None:
        raise RequestError(f"Expected the id of a submitted request, but got {request_id!r}.")
    return request


def task_rows(db: Connection, request_id: str) -> Sequence[Row[Any]]:
    """Return the rows of a request's tasks, ancestors first."""
    query = (
        select(TASKS)
        .join(MODELS, MODELS.c.id == TASKS.c.model_id)
        .where(TASKS.c.request_id == request_id)
        .order_by(MODELS.c.created_us, MODELS.c.id)
    )
    return db.execute(query).all()


def find_record(db: Connection, model_id: str) -> ModelRecord | None:
    """Return the record of a version, or `None`."""
    data = db.execute(select(MODELS.c.record).where(MODELS.c.id == model_id)).scalar()
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
        db.execute(_INSERT_MODELS, rows)
    _insert_holdings(db, records)


def put_planned_roots(db: Connection, request_id: str, roots: Iterable[str]) -> None:
    """Store the present records of a request's roots."""
    query = select(MODELS.c.id, MODELS.c.record)
    for root in roots:
        for row in db.execute(query.where(MODELS.c.id == root)).all():
            values = {"request_id": request_id, "model_id": row.id, "record": row.record}
            db.execute(insert(PLANNED_ROOTS).values(**values))


def find_planned_roots(db: Connection, request_id: str) -> dict[str, ModelRecord]:
    """Return the records of a request's roots at its submission.

    Raises:
        StoreError: if one is damaged.
    """
    query = select(PLANNED_ROOTS.c.record).where(PLANNED_ROOTS.c.request_id == request_id)
    records = map(read_record, db.scalars(query).all())
    return {record.id: record for record in records}


def put_statuses(db: Connection, records: Sequence[ModelRecord], status: ModelStatus) -> None:
    """Change the status of versions only."""
    _put_records(db, [replace(record, status=status) for record in records])


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


def _put_records(db: Connection, records: Sequence[ModelRecord]) -> None:
    rows = [
        {"changed": record.id, "data": _record_bytes(record), "weights": record.digest}
        for record in records
    ]
    if rows:
        db.execute(_UPDATE_MODELS, rows)


def _record_bytes(record: ModelRecord) -> bytes:
    return record_to_proto(record).SerializeToString(deterministic=True)


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
        db.execute(insert(HOLDINGS), rows)


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
        db.execute(_INSERT_EDGES, rows)


def find_tasks(db: Connection, request_id: str, models: Collection[str]) -> dict[str, Task]:
    """Return model -> task of a request, for the models that have one.

    Raises:
        StoreError: if one is damaged.
    """
    return {row.model_id: read_task(row) for row in some_task_rows(db, request_id, models)}


def some_task_rows(db: Connection, request_id: str, models: Collection[str]) -> Sequence[Row[Any]]:
    """Return the rows of a request's tasks for some models, in any order."""
    return db.execute(_SOME_TASKS, {"request": request_id, "models": list(models)}).all()


def put_tasks(
    db: Connection, request_id: str, tasks: Iterable[Task], known: Container[str]
) -> None:
    """Add or change the rows of tasks.

    The times of destruction are kept, since a pass may hold an outdated task.

    Args:
        db: a transaction that writes.
        request_id: the request.
        tasks: the tasks, at most one for a model.
        known: models that have a row.
    """
    now = now_us()
    new, changed, sent = [], [], []
    for task in tasks:
        if task.state is TaskState.SENT:
            sent.append(task.model_id)
        values = {
            "owner": task.owner,
            "state": task.state.value,
            "reason": one_line(task.reason),
            "result": task.result.SerializeToString(deterministic=True) if task.result else b"",
            "updated_us": now,
            "wave": task.wave,
        }
        if task.model_id in known:
            changed.append({"of_request": request_id, "of_model": task.model_id, **values})
        else:
            late = int(task.late)
            new.append(
                {"request_id": request_id, "model_id": task.model_id, "late": late, **values}
            )
    if new:
        db.execute(_INSERT_TASKS, new)
    if changed:
        db.execute(_UPDATE_TASKS, changed)
    if sent:
        db.execute(_UPDATE_GIVEN, {"of_request": request_id, "models": sent, "now": now})
