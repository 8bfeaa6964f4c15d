"""The coordinator's durable state: graph, requests and tasks, in SQLite or any database by URL.

Every method is one transaction.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from sqlalchemy import func, insert, select

from disinherit.common.errors import LostHistoryError, StoreError
from disinherit.server.now import now_us
from disinherit.server.states import CampaignState, Task
from disinherit.server.store import retention, rollbacks
from disinherit.server.store.approvals import approve, put_submitted_plan
from disinherit.server.store.audit import Seal, append, export_lines
from disinherit.server.store.audit_events import COORDINATOR, AuditKind, request_details
from disinherit.server.store.campaign_store import CampaignStore
from disinherit.server.store.campaigns import Campaign, insert_campaign
from disinherit.server.store.clock import Clock
from disinherit.server.store.database import Database
from disinherit.server.store.history import find_lost, note_lost
from disinherit.server.store.leases import Lease
from disinherit.server.store.model_rows import put_planned_roots
from disinherit.server.store.packets import PacketFiles, open_packet_files
from disinherit.server.store.presence import Attendance
from disinherit.server.store.queries import Query, WriteQuery
from disinherit.server.store.repeated_tasks import resend
from disinherit.server.store.request_rows import (
    check_same,
    find_request,
    find_submitted,
    read_task,
    task_rows,
)
from disinherit.server.store.schema import prepare
from disinherit.server.store.signed_log import SignedLog
from disinherit.server.store.tables import REQUESTS
from disinherit.server.store.tasks import add_tasks, put_first_tasks
from disinherit.v1.unlearning_pb2 import LogHead, UnlearningRequest

_LATEST = Query(select(func.max(REQUESTS.c.created_us)))
_INSERT = WriteQuery(insert(REQUESTS))
_FEW_TASKS = 200
"""Tasks, at most, that are stored in a moment."""


class CoordinatorStore(CampaignStore):
    """Graph, requests and tasks in one database.

    Args:
        url: an SQLAlchemy URL, the path of an SQLite file as a `Path`, or an open database. Its
            writers share one queue, so a process opens it once.
        packets: folder of the roots' Fisher packets, or an fsspec URL; by default beside the
            SQLite file, with `.packets` after its name.

    Attributes:
        signed_log: signs exports and attestations; `None` without a key.

    Raises:
        StoreError: if the database cannot be opened, is gone, or a later version made it; every
            method raises it if the database fails or is damaged.
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
        """Refuse to create a database beside the packets of one that is gone."""
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

        A new request begins its campaign.  An ended campaign reopens if a new task is not complete,
        or a known one is pending again.

        Args:
            request: the request.
            tasks: tasks to add, or to replace those of the same models.
            approval: whether a new request needs an approval before anything is done.
            deadline_us: when unreachable owners are given up, in microseconds since the epoch; 0
                for never. Known requests keep theirs.
            actor: who submits it, for the audit log.
            lease: the lease of the pass that writes.

        Raises:
            RequestError: if another request has this id; nothing is stored then.
        """
        with self.writing(lease, together=len(tasks) <= _FEW_TASKS) as db:
            stored = find_submitted(db, request.id)
            check_same(request, stored)
            if stored is None:
                # Later than all others, even if the clock was set back: requests run in this order.
                latest = _LATEST.scalar(db, {}) or 0
                created = max(now_us(), latest + 1)
                data = request.SerializeToString(deterministic=True)
                _INSERT.run(db, {"id": request.id, "created_us": created, "request": data})
                state = CampaignState.AWAITING_APPROVAL if approval else CampaignState.RUNNING
                insert_campaign(db, request.id, state, deadline_us)
                details = request_details(request, deadline_us)
                append(db, AuditKind.RECEIVED, actor, request_id=request.id, parameters=details)
            if stored is not None:
                add_tasks(db, request.id, tasks)
            else:
                put_first_tasks(db, request.id, tasks)
                put_planned_roots(db, request.id, [root.model_id for root in request.roots])
                if approval:
                    put_submitted_plan(db, request, deadline_us)
        return stored is None

    def request(self, request_id: str) -> UnlearningRequest:
        """Return a submitted request.

        Raises:
            RequestError: if there is no such request.
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

    def resend(self, request_id: str, *, actor: str = COORDINATOR) -> Campaign:
        """Send all finished tasks of a request again, and return its campaign.

        Args:
            request_id: the request.
            actor: who decides it, for the audit log.

        Raises:
            RequestError: if there is no such request, or the state of its campaign does not allow
                it.
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
        """Decide to put back the versions that a request superseded; repeating changes nothing.

        Args:
            request_id: the request.
            models: only these models; empty for all that are affected and not exempt.
            reason: for people to read.
            actor: who decides it, for the audit log.

        Returns:
            The campaign after the decision.

        Raises:
            RequestError: if there is no such request, it cannot be rolled back now, or a model is
                not affected, is exempt, or has descendants since; nothing is stored then.
        """
        with self.writing() as db:
            return rollbacks.decide(db, request_id, models, reason, actor)

    def due_destructions(self, request_id: str = "") -> dict[str, list[str]]:
        """Return request -> the versions whose retention windows have passed.

        The result is empty while the clock is implausible, since destruction is final.

        Args:
            request_id: only this request; `""` for all.
        """
        believed = self._clock.believed()
        with self.reading() as db:
            due = retention.find_due(db, request_id)
        if due and not believed:
            self._clock.warn()
            return {}
        return due

    def approve(self, request_id: str, plan: str, *, actor: str) -> Campaign:
        """Approve a plan: start its campaign, or add the versions that wait for an approval.

        Args:
            request_id: the request.
            plan: SHA-256 of the plan that the approver looked at; `""` for the submitted plan.
            actor: the approver, for the audit log.

        Raises:
            RequestError: if the request is unknown, cannot be approved now, or its plan has
                changed.
        """
        with self.writing(together=True) as db:
            return approve(db, request_id, plan, actor)

    def audit_lines(self, request_id: str = "", seal: Seal | None = None) -> Iterator[bytes]:
        """Yield the lines of an export of the audit log (`disinherit.common.audit.export`).

        Args:
            request_id: only entries about this request; `""` for all.
            seal: signs the first line; `None` for no signature.

        Raises:
            RequestError: if there is no such request.
        """
        return export_lines(self._database, request_id, seal)

    def attendance(self, way: str) -> Attendance:
        """Return the record of the owners that are connected to this process.

        Args:
            way: how they are connected: `agent` or `flower`.
        """
        return Attendance(self._database, way)

    def history_lost(self) -> str:
        """Return what history is missing, which stops the coordinator; `""` if none."""
        with self.reading() as db:
            return find_lost(db)

    def watch_history(self) -> None:
        """Check that the log continues what was signed; otherwise stop asking owners."""
        if self.signed_log is None:
            return
        try:
            self.signed_log.watch()
        except LostHistoryError as error:
            self._note_lost(error.why)

    def shown_head(self) -> LogHead:
        """Return the signed head of the log, for owners to keep; empty without a key.

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
        """Check that the log has the head that an owner was shown; otherwise stop asking owners.

        Args:
            owner: the owner that answered.
            head: the head that it was shown.
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

    @property
    def packet_files(self) -> PacketFiles:
        """The files of tensors of Fisher packets.

        Raises:
            StoreError: if the store has no place for them.
        """
        if self._packets is None:
            raise StoreError(
                f"Expected a folder for Fisher packets beside {self._database.name!r}, or a "
                "URL, but got none. Give one when opening the store."
            )
        return self._packets
