"""The report of a campaign: what was done to every affected version, when, and what is left open.

It is read in one transaction from what is stored, so the same records give the same report; the
attestation is made from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from disinherit.common.audit_chain import AuditEntry
from disinherit.common.audit_lines import read_entry
from disinherit.common.graph_digest import lineage_digest
from disinherit.server.audit_words import AuditKind
from disinherit.server.campaign_rows import Campaign, find_campaign
from disinherit.server.coverage import Covered, cover
from disinherit.server.gaps import Gap, find_gaps
from disinherit.server.graph_queries import find_descendants
from disinherit.server.model_report import ModelReport
from disinherit.server.tables import AUDIT, find_request, read_task, task_rows
from disinherit.server.tasks import Task, TaskState
from disinherit.v1.unlearning_pb2 import UnlearningRequest

_TIMES: Mapping[AuditKind, tuple[str, bool]] = {
    AuditKind.RECEIVED: ("received", False),
    AuditKind.APPROVED: ("approved", False),
    AuditKind.SENT: ("first_sent", False),
    AuditKind.APPLIED: ("last_applied", True),
    AuditKind.VERIFIED: ("last_verified", True),
    AuditKind.COMPLETED: ("ended", True),
    AuditKind.PARTIAL: ("ended", True),
    AuditKind.ABORTED: ("ended", True),
    AuditKind.HALT_DECIDED: ("ended", True),
    AuditKind.ROLLBACK_COMPLETED: ("ended", True),
    AuditKind.DESTROYED: ("last_destroyed", True),
}
"""Kind -> the time it stands for, and whether the last entry of the kind counts or the first."""


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of a campaign.

    Attributes:
        request: the request.
        campaign: where it stands.
        models: every affected version, ancestors first.
        fishers: root -> SHA-256 of the Fisher packets that it answered with.
        graph_digest: `lineage_digest` of the affected versions.
        edges: edges that lead to them.
        times_us: what happened -> when, in microseconds since the epoch.
        gaps: what the campaign leaves open.
        entries: entries of the audit log about the request.
        head: hash of the last of them.
    """

    request: UnlearningRequest
    campaign: Campaign
    models: tuple[ModelReport, ...]
    fishers: Mapping[str, tuple[str, ...]]
    graph_digest: str
    edges: int
    times_us: Mapping[str, int]
    gaps: tuple[Gap, ...]
    entries: int
    head: str


def make_report(db: Connection, request_id: str) -> Report:
    """Return the report of a campaign as it stands.

    Args:
        db: a transaction.
        request_id: the request.

    Raises:
        RequestError: if there is no such request.
    """
    request = find_request(db, request_id)
    graph = find_descendants(db, [root.model_id for root in request.roots])
    rows = task_rows(db, request_id)
    tasks = {row.model_id: read_task(row) for row in rows}
    updated = {row.model_id: row.updated_us for row in rows}
    lines = select(AUDIT.c.entry).where(AUDIT.c.request_id == request_id)
    entries = [read_entry(line) for line in db.scalars(lines.order_by(AUDIT.c.sequence))]
    latest = {(entry.event.kind, entry.event.model_id): entry for entry in entries}
    models = tuple(
        _model(covered, tasks.get(covered.model_id), latest)
        for covered in cover(graph, request, tasks, updated)
    )
    ids = [model.covered.model_id for model in models]
    return Report(
        request=request,
        campaign=find_campaign(db, request_id),
        models=models,
        fishers={
            root.model_id: latest[AuditKind.FISHER_RECEIVED, root.model_id].event.fishers
            for root in request.roots
            if (AuditKind.FISHER_RECEIVED, root.model_id) in latest
        },
        graph_digest=lineage_digest(graph, ids),
        edges=sum(len(graph.parents(id)) for id in ids),
        times_us=_times(entries),
        gaps=tuple(find_gaps(request, models)),
        entries=len(entries),
        head=entries[-1].hash if entries else "",
    )


def _model(
    covered: Covered, task: Task | None, latest: Mapping[tuple[str, str], AuditEntry]
) -> ModelReport:
    told = latest.get((AuditKind.NOTIFIED, covered.model_id))
    result = None if task is None or task.state is TaskState.ROLLED_BACK else task.result
    made = (AuditKind.APPLIED, AuditKind.INEFFECTIVE) if covered.successor else ()
    applied = next(
        (latest[kind, covered.model_id] for kind in made if (kind, covered.model_id) in latest),
        None,
    )
    return ModelReport(
        covered=covered,
        result=result,
        fishers=applied.event.fishers if applied is not None else (),
        told_us=told.event.time_us if told is not None else 0,
    )


def _times(entries: Sequence[AuditEntry]) -> dict[str, int]:
    times: dict[str, int] = {}
    for entry in entries:
        name, last = _TIMES.get(AuditKind(entry.event.kind), ("", False))
        if name and (last or name not in times):
            times[name] = entry.event.time_us
        if entry.event.kind in (AuditKind.REOPENED, AuditKind.RESUMED, AuditKind.ROLLBACK_DECIDED):
            times.pop("ended", None)
    return times
