"""The coordinator's durable state: graph, requests and the task of every affected model.

SQLAlchemy Core over SQLite by default, any other database by URL; every method is one transaction.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from sqlalchemy import insert, select

from disinherit.common.errors import (
    CheckpointError,
    GraphError,
    LabelError,
    RequestError,
    StoreError,
)
from disinherit.common.graph import InheritanceGraph
from disinherit.common.records import Inheritance, ModelRecord
from disinherit.server.database import Database
from disinherit.server.lineage import put_successor, put_version
from disinherit.server.packets import PacketStore, find_packets, put_packets
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
from disinherit.v1.unlearning_pb2 import FisherPacket, UnlearningRequest

__all__ = ["CoordinatorStore", "Task", "TaskState", "now_us"]


class CoordinatorStore:
    """Graph, requests and tasks in one database.

    Args:
        url: an SQLAlchemy URL, or the path of an SQLite file.
        packets: folder of the roots' Fisher packets; by default beside the SQLite file, with
            `.packets` after its name.

    Raises:
        StoreError: if the database cannot be opened; every method raises it if it fails or holds
            something damaged.
    """

    def __init__(self, url: str | Path, packets: Path | None = None) -> None:
        self._database = Database(url)
        file = self._database.file
        if packets is None and file is not None:
            packets = file.with_name(f"{file.name}.packets")
        self._packets = None if packets is None else PacketStore(packets)
        with self._database.writing() as db:
            METADATA.create_all(db)

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def add_model(self, record: ModelRecord, parents: Iterable[Inheritance] = ()) -> None:
        """Add a version and what it was derived from, or complete the record of a known version.

        Adding the same again changes nothing.  A known version that has no parents yet is given
        `parents`; one that has some keeps them.

        Raises:
            GraphError: if the graph refuses it; nothing is stored then.
            LabelError: if a label mapping does not fit; nothing is stored then.
        """
        with self._database.writing() as db:
            put_version(db, record, list(parents))

    def graph(self) -> InheritanceGraph:
        """Return the whole inheritance graph."""
        with self._database.reading() as db:
            records = db.execute(select(MODELS.c.record)).scalars().all()
            edges = db.execute(select(EDGES.c.edge)).scalars().all()
        try:
            return InheritanceGraph(map(read_record, records), map(read_edge, edges))
        except (GraphError, LabelError) as error:
            raise StoreError(
                f"Expected a sound inheritance graph in {self._database.name!r}, but: {error}"
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
        with self._database.writing() as db:
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
        with self._database.reading() as db:
            data = db.execute(
                select(REQUESTS.c.request).where(REQUESTS.c.id == request_id)
            ).scalar()
        if data is None:
            raise RequestError(f"Expected the id of a submitted request, but got {request_id!r}.")
        return parse(UnlearningRequest, data)

    def requests(self) -> list[str]:
        """Return the ids of all requests, the oldest first."""
        with self._database.reading() as db:
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
        with self._database.reading() as db:
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
        with self._database.writing() as db:
            put_task(db, request_id, task)
            if successor is not None:
                put_successor(db, task.model_id, successor)

    def update_all(self, request_id: str, tasks: Iterable[Task]) -> None:
        """Record the new states of several tasks, all or none."""
        with self._database.writing() as db:
            for task in tasks:
                put_task(db, request_id, task)

    def save_packets(self, request_id: str, root: str, packets: Sequence[FisherPacket]) -> None:
        """Keep what a root answered, in the place of what it answered before.

        Args:
            request_id: the request.
            root: id of the root.
            packets: its Fisher packets.

        Raises:
            StoreError: if there is no folder for them, or they cannot be written.
        """
        files = self.packet_files
        for packet in packets:
            files.write(packet.tensors, packet.digest)
        with self._database.writing() as db:
            put_packets(db, request_id, root, packets)

    def packets(self, request_id: str) -> dict[str, list[FisherPacket]]:
        """Return root -> what it answered a request with.

        A root whose files are missing or damaged is left out: it must be asked again.

        Raises:
            StoreError: if there is no folder for them.
        """
        files = self.packet_files
        with self._database.reading() as db:
            found = find_packets(db, request_id)
        complete = {}
        for root, packets in found.items():
            try:
                for packet in packets:
                    packet.tensors = files.read(packet.digest)
            except CheckpointError:
                continue
            complete[root] = packets
        return complete

    @property
    def packet_files(self) -> PacketStore:
        """The folder of Fisher packets.

        Raises:
            StoreError: if there is none.
        """
        if self._packets is None:
            raise StoreError(
                f"Expected a folder for Fisher packets beside {self._database.name!r}, but got "
                "none. Give one when opening the store."
            )
        return self._packets
