"""The coordinator's durable state: graph, requests and the task of every affected model.

SQLAlchemy Core over SQLite by default, any other database by URL; every method is one transaction.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from sqlalchemy import func, insert, select

from disinherit.common.errors import LostHistoryError, StoreError
from disinherit.server.planning.coverage import LARGEST_PAGE, CoveragePage, cover, page
from disinherit.server.states import CampaignState, Task, TaskState
from disinherit.server.store import retention as destruction_rows
from disinherit.server.store import rollbacks as roll_back_rows
from disinherit.server.store.approvals import approve, find_plan_digest, put_submitted_plan
from disinherit.server.store.audit import Seal, append, entries_about, export_lines
from disinherit.server.store.audit_events import COORDINATOR, AuditKind, request_words
from disinherit.server.store.campaign_store import CampaignStore
from disinherit.server.store.campaigns import Campaign, insert_campaign
from disinherit.server.store.clock import Clock
from disinherit.server.store.database import Database
from disinherit.server.store.graph import find_descendants
from disinherit.server.store.history import find_lost, note_lost
from disinherit.server.store.leases import Lease
from disinherit.server.store.packets import PacketFiles, open_packet_files
from disinherit.server.store.repeated_tasks import resend
from disinherit.server.store.schema import prepare
from disinherit.server.store.signed_log import SignedLog
from disinherit.server.store.signing import KnownKey, find_keys
from disinherit.server.store.tables import (
    PACKETS,
    REQUESTS,
    check_same,
    find_request,
    find_submitted,
    now_us,
    put_planned_roots,
    read_task,
    task_rows,
)
from disinherit.server.store.tasks import add_tasks
from disinherit.v1.unlearning_pb2 import LogHead, UnlearningRequest

__all__ = ["CoordinatorStore", "Task", "TaskState", "now_us"]


class CoordinatorStore(CampaignStore):
    """Graph, requests and tasks in one database.

    Args:
        url: an SQLAlchemy URL, the path of an SQLite file, or a database that is open; its
            transactions that write wait in one queue, so a process opens it once.
        packets: folder of the roots' Fisher packets, or an fsspec URL; by default beside the
            SQLite file, with `.packets` after its name.

    Attributes:
        signed_log: signs what is handed out; `None` without a key.

    Raises:
        StoreError: if the database cannot be opened, is gone, or a later version made it; every
            method raises it if it fails or holds something damaged.
    """

    def __init__(self, url: str | Path | Database, packets: str | Path | None = None) -> None:
        super().__init__(url if isinstance(url, Database) else Database(url))
        self._clock = Clock(self._database)
        self.signed_log: SignedLog | None = None
        file = self._database.file
        if packets is None and file is not None:
            packets = file.with_name(f"{file.name}.packets")
        try:
            self._packets = None if packets is None else open_packet_files(packets)
            self._check_there(file)
            prepare(self._database)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def _check_there(self, file: Path | None) -> None:
        """Refuse to begin a new database beside what roots answered the one that is gone."""
        if file is None or self._packets is None or file.exists():
            return
        if self._packets.any():
            raise StoreError(
                f"Expected a coordinator database at {self._database.name!r}, as there are Fisher "
                "packets of one, but it is gone. Restore it, or remove the packets' folder as well."
            )

    def submit(
        self,
        request: UnlearningRequest,
        tasks: Sequence[Task],
        *,
        approval: bool = False,
        deadline_us: int = 0,
        actor: str = COORDINATOR,
        lease: Lease | None = None,
    ) -> bool:
        """Store a request with its tasks, and return whether it is new.

        The campaign of a new one begins with it.  One that had ended is open again if a task is
        added that is not complete, or one is to be carried out again.

        Args:
            request: the request.
            tasks: tasks to add, or to put in the place of those of the same models.
            approval: whether a new request must be approved before anything is done.
            deadline_us: when owners that stay away from a new one are given up, in microseconds
                since the epoch; 0 for never.
            actor: who submits it, for the audit log.
            lease: that of the pass this is part of.

        Raises:
            RequestError: if another request has this id; nothing is stored then.
        """
        with self.writing(lease) as db:
            stored = find_submitted(db, request.id)
            check_same(request, stored)
            if stored is None:
                # Later than all others, whatever the clock says: that is the order they go in.
                latest = db.scalar(select(func.max(REQUESTS.c.created_us))) or 0
                created = max(now_us(), latest + 1)
                data = request.SerializeToString(deterministic=True)
                values = {"id": request.id, "created_us": created, "request": data}
                db.execute(insert(REQUESTS).values(**values))
                state = CampaignState.AWAITING_APPROVAL if approval else CampaignState.RUNNING
                insert_campaign(db, request.id, state, deadline_us)
                said = request_words(request, deadline_us)
                append(db, AuditKind.RECEIVED, actor, request_id=request.id, parameters=said)
            add_tasks(db, request.id, tasks)
            if stored is None:
                put_planned_roots(db, request.id, [root.model_id for root in request.roots])
                if approval:
                    put_submitted_plan(db, request.id)
        return stored is None

    def request(self, request_id: str) -> UnlearningRequest:
        """Return a submitted request.

        Raises:
            RequestError: if there is none with this id.
        """
        with self.reading() as db:
            return find_request(db, request_id)

    def requests(self) -> list[str]:
        """Return the ids of all requests, the oldest first."""
        with self.reading() as db:
            query = select(REQUESTS.c.id).order_by(REQUESTS.c.created_us, REQUESTS.c.id)
            return list(db.execute(query).scalars())

    def tasks(self, request_id: str) -> dict[str, Task]:
        """Return the tasks of a request by model id, ancestors first."""
        with self.reading() as db:
            return {row.model_id: read_task(row) for row in task_rows(db, request_id)}

    def coverage(
        self, request_id: str, page_size: int = LARGEST_PAGE, page_token: str = ""
    ) -> CoveragePage:
        """Return every version that a request affects now, in parts.

        Args:
            request_id: the request.
            page_size: at most so many versions.
            page_token: `""` for the first part, then the `next_page_token` of the part before.

        Raises:
            RequestError: if there is no such request, or the size or the token is none.
        """
        with self.reading() as db:
            request = find_request(db, request_id)
            graph = find_descendants(db, [root.model_id for root in request.roots])
            rows = task_rows(db, request_id)
        tasks = {row.model_id: read_task(row) for row in rows}
        updated = {row.model_id: row.updated_us for row in rows}
        return page(graph, cover(graph, request, tasks, updated), page_size, page_token)

    def resend(self, request_id: str, *, actor: str = COORDINATOR) -> Campaign:
        """Let owners be asked again for what they did, and return the campaign as it stands then.

        Args:
            request_id: the request.
            actor: who wants it, for the audit log.

        Raises:
            RequestError: if there is no such request, or its campaign does not go on.
        """
        with self.writing() as db:
            return resend(db, request_id, actor)

    def roll_back(
        self,
        request_id: str,
        models: Collection[str] = (),
        reason: str = "",
        *,
        actor: str = COORDINATOR,
    ) -> Campaign:
        """Decide that what a request superseded is put back; the same again changes nothing.

        Args:
            request_id: the request.
            models: only these; none for all that are affected and not exempt.
            reason: for people to read.
            actor: who decides it, for the audit log.

        Returns:
            The campaign as it stands then.

        Raises:
            RequestError: if there is no such request, it may not be rolled back now, or a model is
                none of its own, is exempt, or was built upon since; nothing is stored then.
        """
        with self.writing() as db:
            return roll_back_rows.decide(db, request_id, models, reason, actor)

    def due_destructions(self, request_id: str = "") -> dict[str, list[str]]:
        """Return request -> the versions whose retention windows have passed.

        There is none as long as the clock shows what it should not: nobody can take it back.

        Args:
            request_id: only this request; `""` for all.
        """
        believed = self._clock.believed()
        with self.reading() as db:
            due = destruction_rows.find_due(db, request_id)
        if due and not believed:
            self._clock.warn()
            return {}
        return due

    def approve(self, request_id: str, plan: str, *, actor: str) -> Campaign:
        """Let a campaign begin, or what waits for an approval of its own join it.

        Args:
            request_id: the request.
            plan: SHA-256 of the plan that was looked at; `""` for the one that was submitted.
            actor: who approves, for the audit log.

        Raises:
            RequestError: if there is no such request, it may not be approved now, or its plan is
                another one now.
        """
        with self.writing() as db:
            return approve(db, request_id, plan, actor)

    def plan_digest(self, request_id: str) -> str:
        """Return the SHA-256 of a request's plan as it is now.

        Raises:
            RequestError: if there is no such request.
        """
        with self.reading() as db:
            return find_plan_digest(db, request_id)

    def answered_roots(self, request_id: str) -> frozenset[str]:
        """Return the roots that have answered a request, without reading what they answered."""
        with self.reading() as db:
            query = select(PACKETS.c.root).where(PACKETS.c.request_id == request_id).distinct()
            return frozenset(db.scalars(query))

    def audit_lines(self, request_id: str = "", seal: Seal | None = None) -> Iterator[bytes]:
        """Yield the lines of an export of the audit log (`disinherit.common.audit.export`).

        Args:
            request_id: only what is about this request; `""` for all.
            seal: signs its first line; `None` to leave it as it is.

        Raises:
            RequestError: if there is no such request.
        """
        return export_lines(self._database, request_id, seal)

    def audit_entries(self, request_id: str) -> list[tuple[int, bytes]]:
        """Return the number and the line of each audit entry about a request, in order."""
        with self.reading() as db:
            return entries_about(db, request_id)

    def history_lost(self) -> str:
        """Return why the coordinator asks no owner for anything; `""` if it does."""
        with self.reading() as db:
            return find_lost(db)

    def watch_history(self) -> None:
        """Look whether the log continues what was signed; if not, no owner is asked any more."""
        if self.signed_log is None:
            return
        try:
            self.signed_log.watch()
        except LostHistoryError as error:
            self._note_lost(error.why)

    def shown_head(self) -> LogHead:
        """Return where the log ends, signed, for owners to keep; empty without a key.

        Raises:
            LostHistoryError: if the log does not continue what was signed.
        """
        if self.signed_log is None:
            return LogHead()
        try:
            return self.signed_log.head()
        except LostHistoryError as error:
            self._note_lost(error.why)
            raise

    def check_shown(self, owner: str, head: LogHead) -> None:
        """Look whether the log has what an owner was shown; if not, no owner is asked any more.

        Args:
            owner: who answered.
            head: what it says that it was shown.
        """
        if self.signed_log is None or not head.signature:
            return
        missing = self.signed_log.find_missing(owner, head)
        if missing:
            self._note_lost(missing)

    def _note_lost(self, why: str) -> None:
        if not self.history_lost():
            with self.writing() as db:
                note_lost(db, why)

    def signing_keys(self) -> list[KnownKey]:
        """Return all keys that sign or did, the oldest first."""
        with self.reading() as db:
            return find_keys(db)

    @property
    def packet_files(self) -> PacketFiles:
        """Where the tensors of Fisher packets are.

        Raises:
            StoreError: if there is none.
        """
        if self._packets is None:
            raise StoreError(
                f"Expected a folder for Fisher packets beside {self._database.name!r}, or a "
                "URL, but got none. Give one when opening the store."
            )
        return self._packets
