"""The coordinator's durable state: graph, requests and the task of every affected model.

SQLAlchemy Core over SQLite by default, any other database by URL.  Every method is one transaction.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from disinherit.common.errors import RequestError, StoreError
from disinherit.common.graph import InheritanceGraph
from disinherit.common.graph_formats import (
    inheritance_from_proto,
    inheritance_to_proto,
    record_from_proto,
    record_to_proto,
)
from disinherit.common.records import Inheritance, InheritanceKind, ModelRecord, ModelStatus
from disinherit.v1.graph_pb2 import Inheritance as InheritanceProto
from disinherit.v1.graph_pb2 import ModelRecord as RecordProto
from disinherit.v1.unlearning_pb2 import ModelResult, UnlearningRequest

_metadata = MetaData()
_models = Table(
    "model",
    _metadata,
    Column("id", String(128), primary_key=True),
    Column("owner", String(128), nullable=False, index=True),
    Column("created_us", BigInteger, nullable=False),
    Column("record", LargeBinary, nullable=False),
)
_edges = Table(
    "inheritance",
    _metadata,
    Column("parent", ForeignKey("model.id"), primary_key=True),
    Column("child", ForeignKey("model.id"), primary_key=True, index=True),
    Column("edge", LargeBinary, nullable=False),
)
_requests = Table(
    "request",
    _metadata,
    Column("id", String(128), primary_key=True),
    Column("created_us", BigInteger, nullable=False),
    Column("request", LargeBinary, nullable=False),
)
_tasks = Table(
    "task",
    _metadata,
    Column("request_id", ForeignKey("request.id"), primary_key=True),
    Column("model_id", ForeignKey("model.id"), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("reason", Text, nullable=False, default=""),
    Column("result", LargeBinary, nullable=False, default=b""),
    Column("updated_us", BigInteger, nullable=False),
)


class TaskState(StrEnum):
    """Where the work on one affected model stands."""

    PENDING = "pending"
    SENT = "sent"
    APPLIED = "applied"
    VERIFIED = "verified"
    FAILED = "failed"
    EXEMPT = "exempt"

    @property
    def settled(self) -> bool:
        """Whether there is nothing more to ask the owner for."""
        return self in (TaskState.VERIFIED, TaskState.EXEMPT)


@dataclass(frozen=True, slots=True)
class Task:
    """The work on one affected model.

    Attributes:
        model_id: the version to dampen.
        owner: who holds it.
        state: where it stands.
        reason: why it is failed, pending or exempt.
        result: what the owner reported once it applied the request.
    """

    model_id: str
    owner: str
    state: TaskState = TaskState.PENDING
    reason: str = ""
    result: ModelResult | None = None


class CoordinatorStore:
    """Graph, requests and tasks in one database.

    Args:
        url: an SQLAlchemy URL, or the path of an SQLite file.

    Raises:
        StoreError: if the database cannot be opened; every method raises it if it fails.
    """

    def __init__(self, url: str | Path) -> None:
        self._name = str(url)
        address = f"sqlite:///{url}" if isinstance(url, Path) else url
        with self._errors():
            self._engine = create_engine(address)
            if self._engine.dialect.name == "sqlite":
                event.listen(self._engine, "connect", _configure_sqlite)
            _metadata.create_all(self._engine)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def add_model(self, record: ModelRecord, parents: Iterable[Inheritance] = ()) -> None:
        """Add a version and what it was derived from, or complete the record of a known version.

        Raises:
            GraphError: if the graph refuses it; nothing is stored then.
        """
        graph = self.graph()
        edges = list(parents)
        if record.id in graph:
            graph.replace(record)
        else:
            graph.add(record, edges)
        with self._transaction() as db:
            if db.execute(select(_models.c.id).where(_models.c.id == record.id)).first():
                db.execute(
                    update(_models)
                    .where(_models.c.id == record.id)
                    .values(record=record_to_proto(record).SerializeToString())
                )
            else:
                _insert_model(db, record, edges)

    def graph(self) -> InheritanceGraph:
        """Return the whole inheritance graph."""
        with self._transaction() as db:
            records = db.execute(select(_models.c.record).order_by(_models.c.created_us)).scalars()
            edges = db.execute(select(_edges.c.edge)).scalars()
            graph = InheritanceGraph(
                (record_from_proto(RecordProto.FromString(data)) for data in records),
                (inheritance_from_proto(InheritanceProto.FromString(data)) for data in edges),
            )
        graph.validate()
        return graph

    def submit(self, request: UnlearningRequest, tasks: Sequence[Task]) -> bool:
        """Store a request with its tasks; return whether it is new.

        Raises:
            RequestError: if another request has this id.
        """
        data = request.SerializeToString(deterministic=True)
        with self._transaction() as db:
            known = db.execute(
                select(_requests.c.request).where(_requests.c.id == request.id)
            ).scalar()
            if known is not None:
                if known != data:
                    raise RequestError(
                        f"Expected a new request id, but {request.id!r} was already used for "
                        "another request. Submit it under another id."
                    )
                return False
            db.execute(insert(_requests).values(id=request.id, created_us=now_us(), request=data))
            for task in tasks:
                db.execute(insert(_tasks).values(request_id=request.id, **_task_values(task)))
        return True

    def request(self, request_id: str) -> UnlearningRequest:
        """Return a submitted request.

        Raises:
            RequestError: if there is none with this id.
        """
        with self._transaction() as db:
            data = db.execute(
                select(_requests.c.request).where(_requests.c.id == request_id)
            ).scalar()
        if data is None:
            raise RequestError(f"Expected the id of a submitted request, but got {request_id!r}.")
        return UnlearningRequest.FromString(data)

    def requests(self) -> list[str]:
        """Return the ids of all requests, the oldest first."""
        with self._transaction() as db:
            return list(
                db.execute(select(_requests.c.id).order_by(_requests.c.created_us)).scalars()
            )

    def tasks(self, request_id: str) -> dict[str, Task]:
        """Return the tasks of a request by model id."""
        with self._transaction() as db:
            rows = db.execute(select(_tasks).where(_tasks.c.request_id == request_id)).all()
        return {
            row.model_id: Task(
                row.model_id,
                row.owner,
                TaskState(row.state),
                row.reason,
                ModelResult.FromString(row.result) if row.result else None,
            )
            for row in rows
        }

    def update(self, request_id: str, task: Task, successor: ModelRecord | None = None) -> None:
        """Record a task's new state and, with it, the version that unlearning made.

        Args:
            request_id: the request.
            task: the task as it stands now.
            successor: version to add with an `unlearned` edge from the task's model.
        """
        with self._transaction() as db:
            db.execute(
                update(_tasks)
                .where(_tasks.c.request_id == request_id, _tasks.c.model_id == task.model_id)
                .values(**_task_values(task))
            )
            if successor is not None:
                _supersede(db, task.model_id, successor)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._errors(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise StoreError(
                f"Expected a usable coordinator database at {self._name!r}, but: {cause}."
            ) from error


def now_us() -> int:
    """Return the coordinator's time in microseconds since the epoch."""
    return time.time_ns() // 1000


def _configure_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _task_values(task: Task) -> dict[str, object]:
    return {
        "model_id": task.model_id,
        "owner": task.owner,
        "state": task.state.value,
        "reason": task.reason,
        "result": task.result.SerializeToString() if task.result else b"",
        "updated_us": now_us(),
    }


def _insert_model(db: Connection, record: ModelRecord, edges: Iterable[Inheritance]) -> None:
    db.execute(
        insert(_models).values(
            id=record.id,
            owner=record.owner,
            created_us=record.created_us,
            record=record_to_proto(record).SerializeToString(),
        )
    )
    for edge in edges:
        db.execute(
            insert(_edges).values(
                parent=edge.parent,
                child=edge.child,
                edge=inheritance_to_proto(edge).SerializeToString(),
            )
        )


def _supersede(db: Connection, model_id: str, successor: ModelRecord) -> None:
    """Add the version that unlearning made, and mark the one it was made of."""
    if db.execute(select(_models.c.id).where(_models.c.id == successor.id)).first():
        return
    edge = Inheritance(model_id, successor.id, InheritanceKind.UNLEARNED)
    _insert_model(db, successor, [edge])
    data = db.execute(select(_models.c.record).where(_models.c.id == model_id)).scalar_one()
    old = replace(record_from_proto(RecordProto.FromString(data)), status=ModelStatus.SUPERSEDED)
    db.execute(
        update(_models)
        .where(_models.c.id == model_id)
        .values(record=record_to_proto(old).SerializeToString())
    )
