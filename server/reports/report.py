"""Report of a campaign: the results for every affected version, times, and open gaps.

A report is read in one transaction, and equal records give equal reports.  Attestations are made
from reports.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row

from disinherit.common.audit.canonical import Json
from disinherit.common.audit.chain import AuditEntry
from disinherit.common.audit.gaps import Gap, find_gaps
from disinherit.common.audit.story import read_story, times
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.server.planning.coverage import LARGEST_PAGE, CoveragePage, Covered, cover, page
from disinherit.server.states import Task, TaskState
from disinherit.server.store.audit_events import (
    DECISIONS,
    AuditKind,
    graph_details,
    method_details,
    result_details,
    selection_details,
)
from disinherit.server.store.audit_lines import read_line
from disinherit.server.store.campaigns import Campaign, find_campaign
from disinherit.server.store.graph import StoredPart, read_descendants
from disinherit.server.store.known_plans import plan_again
from disinherit.server.store.notifications import ModelTimes, times_of
from disinherit.server.store.remembering import remembered
from disinherit.server.store.request_lines import entries_about
from disinherit.server.store.request_rows import find_request, read_task, task_rows
from disinherit.server.store.store import CoordinatorStore
from disinherit.v1.unlearning_pb2 import ModelResult, UnlearningRequest

_NEVER = ModelTimes()


@dataclass(frozen=True, slots=True)
class ModelReport:
    """The results for one affected version.

    Attributes:
        covered: its coverage.
        result: its owner's result; `None` without one, and after a roll-back.
        fishers: SHA-256 of the merged Fisher packets that dampened it.
        notified_us: when its owner was notified, in microseconds since the epoch; 0 if it was not.
        destroyed_us: when its owner destroyed it, by the audit log; 0 if it did not.
        held_by: a version of the same owner with identical weights, which kept them; `""` without
            one.
        times: when its owner was told of the request, and when it had done it.
    """

    covered: Covered
    result: ModelResult | None
    fishers: tuple[str, ...]
    notified_us: int
    destroyed_us: int = 0
    held_by: str = ""
    times: ModelTimes = _NEVER

    def statement_entry(self) -> dict[str, Json]:
        """Return its entry in attestations."""
        covered, result = self.covered, self.result
        return {
            "id": covered.model_id,
            "owner": covered.owner,
            "state": covered.state.value,
            "late": not covered.updated_us,
            "digest_before": covered.digest_before,
            "successor": covered.successor or None,
            "digest_after": covered.digest_after or None,
            "parameters": None if result is None else result_details(result),
            "fishers": list(self.fishers),
            "selected": None if result is None else selection_details(result),
            "out_of_scope": None if result is None else list(result.out_of_scope),
            "notified_us": self.notified_us or None,
            "destroyed_us": self.destroyed_us or None,
            "held_by": self.held_by or None,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The report of a campaign.

    Attributes:
        request: the request.
        campaign: the campaign.
        models: every affected version, ancestors first.
        fishers: root -> SHA-256 of the Fisher packets that it answered with.
        statement_models: the entries of `models` in attestations.
        graph_digest: `lineage_digest` of the affected versions at the end of the campaign; of the
            current ones before that.
        versions: number of these versions.
        edges: number of edges that lead to them.
        times_us: event -> time, in microseconds since the epoch.
        gaps: open gaps of the campaign.
        entries: number of audit entries about the request.
        head: hash of the last of these entries.
        decisions: those about the whole request, from its submission to its end.
    """

    request: UnlearningRequest
    campaign: Campaign
    models: tuple[ModelReport, ...]
    fishers: Mapping[str, tuple[str, ...]]
    statement_models: tuple[Mapping[str, Json], ...]
    graph_digest: str
    versions: int
    edges: int
    times_us: Mapping[str, int]
    gaps: tuple[Gap, ...]
    entries: int
    head: str
    decisions: tuple[AuditEntry, ...] = ()


def report_of(store: CoordinatorStore, request_id: str) -> Report:
    """Return the report of a campaign from a store, read in one transaction.

    Raises:
        RequestError: if there is no such request.
    """
    with store.reading() as db:
        return make_report(db, request_id)


def make_report(db: Connection, request_id: str) -> Report:
    """Return the current report of a campaign.

    Args:
        db: a transaction.
        request_id: the request.

    Raises:
        RequestError: if the request is unknown.
    """
    request = find_request(db, request_id)
    lines = tuple(line for _, line in entries_about(db, request_id))
    return _report(*_stored(db, request), find_campaign(db, request_id), lines)


def _stored(
    db: Connection, request: UnlearningRequest
) -> tuple[StoredPart, bytes, tuple[Row[Any], ...]]:
    """Return what coverage follows from: the part of the graph, the request, and its tasks."""
    part = read_descendants(db, [root.model_id for root in request.roots])
    data = request.SerializeToString(deterministic=True)
    return part, data, tuple(task_rows(db, request.id))


@remembered
def _report(
    part: StoredPart,
    data: bytes,
    rows: tuple[Row[Any], ...],
    campaign: Campaign,
    lines: tuple[bytes, ...],
) -> Report:
    request = UnlearningRequest.FromString(data)
    graph, covered = _covered(part, data, rows)
    tasks = {row.model_id: read_task(row) for row in rows}
    entries = [read_line(line) for line in lines]
    latest = {(entry.event.kind, entry.event.model_id): entry for entry in entries}
    told = times_of(rows, entries)
    models = tuple(
        _model(one, tasks.get(one.model_id), latest, told.get(one.model_id, _NEVER))
        for one in covered
    )
    statement_models = tuple(model.statement_entry() for model in models)
    lineage = _logged_graph(entries) or graph_details(
        graph, [one.covered.model_id for one in models]
    )
    return Report(
        request=request,
        campaign=campaign,
        models=models,
        fishers={
            root.model_id: latest[AuditKind.FISHER_RECEIVED, root.model_id].event.fishers
            for root in request.roots
            if (AuditKind.FISHER_RECEIVED, root.model_id) in latest
        },
        statement_models=statement_models,
        graph_digest=str(lineage["sha256"]),
        versions=int(lineage["models"]),
        edges=int(lineage["edges"]),
        times_us=times(entries),
        gaps=tuple(find_gaps(method_details(request.method), statement_models)),
        entries=len(entries),
        head=entries[-1].hash if entries else "",
        decisions=tuple(entry for entry in entries if entry.event.kind in DECISIONS),
    )


def _model(
    covered: Covered,
    task: Task | None,
    latest: Mapping[tuple[str, str], AuditEntry],
    times: ModelTimes,
) -> ModelReport:
    notified = latest.get((AuditKind.NOTIFIED, covered.model_id))
    gone = latest.get((AuditKind.DESTROYED, covered.model_id))
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
        notified_us=notified.event.time_us if notified is not None else 0,
        destroyed_us=gone.event.time_us if gone is not None else 0,
        held_by=str(gone.event.parameters.get("held_by", "")) if gone is not None else "",
        times=times,
    )


def _logged_graph(entries: Sequence[AuditEntry]) -> Mapping[str, Any] | None:
    """Return the graph summary in the log entry that ended the campaign, if any."""
    ended = read_story(entries).ended if entries else None
    found = None if ended is None else ended.event.parameters.get("graph")
    return found if isinstance(found, Mapping) else None


def coverage_of(
    store: CoordinatorStore, request_id: str, page_size: int = LARGEST_PAGE, page_token: str = ""
) -> CoveragePage:
    """Return every version that a request affects now, in pages.

    Args:
        store: the store.
        request_id: the request.
        page_size: at most so many versions.
        page_token: `""` for the first page, then the `next_page_token` of the page before.

    Raises:
        RequestError: if there is no such request, or the size or the token is invalid.
    """
    with store.reading() as db:
        return find_coverage(db, find_request(db, request_id), page_size, page_token)


def find_coverage(
    db: Connection, request: UnlearningRequest, page_size: int, page_token: str
) -> CoveragePage:
    """Return a page of `coverage_of` in a transaction; arguments and errors are those there."""
    graph, covered = _covered(*_stored(db, request))
    return page(graph, list(covered), page_size, page_token)


@remembered
def _covered(
    part: StoredPart, data: bytes, rows: tuple[Row[Any], ...]
) -> tuple[InheritanceGraph, Sequence[Covered]]:
    """Return the graph of a part, and every version that a request affects there."""
    graph = part.graph()
    tasks = {row.model_id: read_task(row) for row in rows}
    updated = {row.model_id: row.updated_us for row in rows}
    planned = plan_again(part, UnlearningRequest.FromString(data), tasks)
    return graph, cover(graph, planned, tasks, updated)
