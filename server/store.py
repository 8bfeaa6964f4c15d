"""The coordinator's durable state: graph, requests and the task of every affected model.

SQLAlchemy Core over SQLite by default, any other database by URL.  Every method is one transaction,
and on SQLite one that writes excludes all others from its beginning, so what it checked still holds
when it is committed.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event, insert, make_url, select
from sqlalchemy.exc import SQLAlchemyError

from disinherit.common.errors import GraphError, LabelError, RequestError, StoreError
from disinherit.common.graph import InheritanceGraph
from disinherit.common.records import Inheritance, ModelRecord
from disinherit.server.lineage import put_successor, put_version
from disinherit.server.tables import (
    EDGES,
    METADATA,
    MODELS,
    REQUESTS,
    TASKS,
    now_us,
    parse,
    put_task,
    read_edge,
    read_record,
    read_task,
)
from disinherit.server.tasks import Task, TaskState
from disinherit.v1.unlearning_pb2 import UnlearningRequest

__all__ = ["CoordinatorStore", "Task", "TaskState", "now_us"]

_WRITES = "disinherit_writes"


class CoordinatorStore:
    """Graph, requests and tasks in one database.

    Args:
        url: an SQLAlchemy URL, or the path of an SQLite file.

    Raises:
        StoreError: if the database cannot be opened; every method raises it if it fails or holds
            something damaged.
    """

    def __init__(self, url: str | Path) -> None:
        self._name = str(url)
        with self._errors():
            if isinstance(url, Path):
                address = URL.create("sqlite", database=str(url))
            else:
                address = make_url(url)
                self._name = address.render_as_string(hide_password=True)
            self._engine = create_engine(address)
            if self._engine.dialect.name == "sqlite":
                event.listen(self._engine, "connect", _configure_sqlite)
                event.listen(self._engine, "begin", _begin_sqlite)
            self._writer = self._engine.execution_options(**{_WRITES: True})
            METADATA.create_all(self._writer)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def add_model(self, record: ModelRecord, parents: Iterable[Inheritance] = ()) -> None:
        """Add a version and what it was derived from, or complete the record of a known version.

        Adding the same again changes nothing.  A known version that has no parents yet is given
        `parents`; one that has some keeps them.

        Raises:
            GraphError: if the graph refuses it; nothing is stored then.
            LabelError: if a label mapping does not fit; nothing is stored then.
        """
        with self._writing() as db:
            put_version(db, record, list(parents))

    def graph(self) -> InheritanceGraph:
        """Return the whole inheritance graph."""
        with self._reading() as db:
            records = db.execute(select(MODELS.c.record)).scalars().all()
            edges = db.execute(select(EDGES.c.edge)).scalars().all()
        try:
            return InheritanceGraph(map(read_record, records), map(read_edge, edges))
        except (GraphError, LabelError) as error:
            raise StoreError(
                f"Expected a sound inheritance graph in {self._name!r}, but: {error}"
            ) from error

    def submit(self, request: UnlearningRequest, tasks: Sequence[Task]) -> bool:
        """Store a request with its tasks, and return whether it is new.

        Args:
            request: the request.
            tasks: tasks to add, or to put in the place of those of the same models.

        Raises:
            RequestError: if another request has this id; nothing is stored then.
        """
        data = request.SerializeToString(deterministic=True)
        with self._writing() as db:
            known = db.execute(
                select(REQUESTS.c.request).where(REQUESTS.c.id == request.id)
            ).scalar()
            if known is not None and known != data:
                raise RequestError(
                    f"Expected a new request id, but {request.id!r} was already used for another "
                    "request. Submit it under another id."
                )
            if known is None:
                values = {"id": request.id, "created_us": now_us(), "request": data}
                db.execute(insert(REQUESTS).values(**values))
            for task in tasks:
                put_task(db, request.id, task)
        return known is None

    def request(self, request_id: str) -> UnlearningRequest:
        """Return a submitted request.

        Raises:
            RequestError: if there is none with this id.
        """
        with self._reading() as db:
            data = db.execute(
                select(REQUESTS.c.request).where(REQUESTS.c.id == request_id)
            ).scalar()
        if data is None:
            raise RequestError(f"Expected the id of a submitted request, but got {request_id!r}.")
        return parse(UnlearningRequest, data)

    def requests(self) -> list[str]:
        """Return the ids of all requests, the oldest first."""
        with self._reading() as db:
            query = select(REQUESTS.c.id).order_by(REQUESTS.c.created_us, REQUESTS.c.id)
            return list(db.execute(query).scalars())

    def tasks(self, request_id: str) -> dict[str, Task]:
        """Return the tasks of a request by model id, ancestors first."""
        query = (
            select(TASKS)
            .join(MODELS, MODELS.c.id == TASKS.c.model_id)
            .where(TASKS.c.request_id == request_id)
            .order_by(MODELS.c.created_us, MODELS.c.id)
        )
        with self._reading() as db:
            return {row.model_id: read_task(row) for row in db.execute(query)}

    def update(self, request_id: str, task: Task, successor: ModelRecord | None = None) -> None:
        """Record a task's new state and, with it, the version that unlearning made.

        Args:
            request_id: the request.
            task: the task as it stands now.
            successor: version to add with an `unlearned` edge from the task's model.

        Raises:
            GraphError: if the graph refuses the successor; nothing is stored then.
        """
        with self._writing() as db:
            put_task(db, request_id, task)
            if successor is not None:
                put_successor(db, task.model_id, successor)

    def update_all(self, request_id: str, tasks: Iterable[Task]) -> None:
        """Record the new states of several tasks, all or none."""
        with self._writing() as db:
            for task in tasks:
                put_task(db, request_id, task)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._errors(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._errors(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, ImportError) as error:  # a driver that is not installed, too
            cause = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise StoreError(
                f"Expected a usable coordinator database at {self._name!r}, but: {cause}."
            ) from error


def _configure_sqlite(connection: Any, _: object) -> None:
    # Left to itself, the driver begins only before the first write: what was read until then may
    # be outdated by it.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
