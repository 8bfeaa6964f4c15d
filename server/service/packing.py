"""Conversion of requests, coverage and reports to protobuf messages."""

from collections import Counter
from collections.abc import Sequence

from disinherit.common.audit.gaps import DESCRIPTIONS
from disinherit.common.limits import REASON, clipped
from disinherit.server.planning.coverage import Covered
from disinherit.server.planning.notes import PlanNote
from disinherit.server.planning.previews import PlannedModel, Preview
from disinherit.server.reports.report import ModelReport, Report
from disinherit.server.service.documents import LogEnd
from disinherit.server.service.principals import Principal, Role
from disinherit.server.store.audit_events import AuditKind, request_digest
from disinherit.server.store.notifications import ModelTimes
from disinherit.server.store.owners import KnownOwner
from disinherit.server.store.presence import Presence
from disinherit.server.store.status import RequestStatus
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1.unlearning_pb2 import ModelResult

_NOTED = 100
"""Most versions of a note in an answer."""

MOST_NOTES = 100
"""Most notes of a plan in an answer."""


def status_to_proto(status: RequestStatus) -> pb.RequestStatus:
    """Convert the status of a request."""
    campaign = status.campaign
    return pb.RequestStatus(
        request=status.request,
        state=pb.CampaignState.Value(f"CAMPAIGN_STATE_{campaign.state.name}"),
        tasks=status.tasks,
        created_us=campaign.created_us,
        updated_us=campaign.updated_us,
        deadline_us=campaign.deadline_us,
        reason=campaign.halt_reason,
        waves=status.waves,
        waves_begun=campaign.open_waves,
        plan_sha256=status.plan,
        approved_plan_sha256=campaign.approved_plan,
        received_us=status.received_us,
        approved_us=status.approved_us,
        submitted_by=status.submitted_by,
        approved_by=status.approved_by,
    )


def listed_to_proto(status: RequestStatus) -> pb.RequestStatus:
    """Convert the status of a request, with the number of samples instead of their digests.

    Tens of thousands of digests per request would bloat lists and watches.
    """
    listed = status_to_proto(status)
    counts = [len(root.samples) for root in listed.request.roots]
    if any(counts):
        listed.sample_counts.extend(counts)
        for root in listed.request.roots:
            root.ClearField("samples")
    return listed


def coverage_to_proto(covered: Covered, times: ModelTimes) -> pb.ModelCoverage:
    """Convert the coverage of an affected version, with the times of its owner."""
    return pb.ModelCoverage(
        model_id=covered.model_id,
        owner=covered.owner,
        state=covered.state.value,
        reason=covered.reason,
        successor_id=covered.successor,
        digest_before=covered.digest_before,
        digest_after=covered.digest_after,
        updated_us=covered.updated_us,
        wave=covered.wave,
        destroy_us=covered.destroy_us,
        destroyed_us=covered.destroyed_us,
        remedy=covered.remedy,
        told_us=times.told_us,
        acknowledged_us=times.acknowledged_us,
        done_us=times.done_us,
        measured=None if covered.result is None else _measured(covered.result),
    )


def _measured(result: ModelResult) -> pb.Measured:
    found = pb.Measured(retain_samples=result.retain_samples)
    if result.HasField("forget"):
        found.forget.CopyFrom(result.forget)
    elif result.HasField("hardly_known"):
        found.forget.CopyFrom(result.hardly_known)
        found.hardly_known = True
    if result.HasField("retain_before"):
        found.retain_before = result.retain_before
    if result.HasField("retain_after"):
        found.retain_after = result.retain_after
    return found


def planned_to_proto(
    planned: PlannedModel, presence: Presence | None, preview: Preview
) -> pb.PlannedModel:
    """Convert what a request would do with a version.

    Args:
        planned: it.
        presence: the presence of its owner; `None` if it never was connected.
        preview: what the request would do.
    """
    return pb.PlannedModel(
        model_id=planned.model_id,
        owner=planned.owner,
        root=planned.root,
        state=planned.state.value,
        reason=planned.reason,
        recipe=planned.recipe,
        shares=[
            pb.InheritedShare(root=root, coefficient=share)
            for root, share in planned.shares.items()
        ],
        owner_online=presence is not None and presence.online,
        owner_last_seen_us=0 if presence is None else presence.seen_us,
        missing_summary=planned.model_id in preview.missing_summaries,
    )


def note_to_proto(note: PlanNote) -> pb.PlanNote:
    """Convert a note of a plan."""
    text = clipped(note.text, REASON)
    return pb.PlanNote(text=text, warning=note.warning, model_ids=note.models[:_NOTED])


def some_notes(notes: Sequence[str]) -> list[str]:
    """Return the notes of a plan that fit beside a page: so many, and each cut to its limit."""
    kept = [clipped(note, REASON) for note in notes[:MOST_NOTES]]
    if len(notes) > MOST_NOTES:
        kept.append(f"{len(notes) - MOST_NOTES} more notes are left out.")
    return kept


def event_for(caller: Principal, event: pb.FleetEvent) -> pb.FleetEvent:
    """Return an event as a caller may see it: viewers may not see who acts."""
    if not event.actor or caller.role is not Role.VIEWER:
        return event
    shown = pb.FleetEvent()
    shown.CopyFrom(event)
    shown.ClearField("actor")
    return shown


def status_for(caller: Principal, status: pb.RequestStatus) -> pb.RequestStatus:
    """Return the new message of a status as a caller may see it: without names for viewers."""
    if caller.role is Role.VIEWER:
        status.ClearField("submitted_by")
        status.ClearField("approved_by")
    return status


def summary_for(caller: Principal, summary: pb.ReportSummary) -> pb.ReportSummary:
    """Return the new message of a summary as a caller may see it: without names for viewers."""
    status_for(caller, summary.status)
    if caller.role is Role.VIEWER:
        for decision in summary.decisions:
            decision.ClearField("actor")
    return summary


def owner_to_proto(owner: KnownOwner) -> pb.Owner:
    """Convert an owner."""
    found = pb.Owner(
        name=owner.name,
        models=owner.models,
        active_models=owner.active_models,
        pending_tasks=owner.pending_tasks,
    )
    if owner.presence is not None:
        found.online = owner.presence.online
        found.last_seen_us = owner.presence.seen_us
        found.way = owner.presence.way
        found.release = owner.presence.details.release
        details = owner.presence.details
        found.hours, found.bytes_per_second = details.hours, details.bytes_per_second
        found.downloaded_bytes = details.download.size
        found.download_us = details.download.taken_us
    if owner.access is not None:
        found.access, found.access_us = owner.access.state, owner.access.at_us
    return found


def summary_to_proto(report: Report, log: LogEnd) -> pb.ReportSummary:
    """Convert the summary of a report, with the end of the whole audit log."""
    states = Counter(model.covered.state.value for model in report.models)
    tasks = Counter(
        model.covered.state.value for model in report.models if model.covered.updated_us
    )
    waves = max((model.covered.wave for model in report.models), default=0) + 1
    return pb.ReportSummary(
        status=listed_to_proto(
            RequestStatus(
                report.request,
                report.campaign,
                tasks,
                waves,
                "",
                *_last(report, AuditKind.RECEIVED),
                *_last(report, AuditKind.APPROVED),
            )
        ),
        request_sha256=request_digest(report.request),
        graph_sha256=report.graph_digest,
        models=report.versions,
        edges=report.edges,
        coverage=states,
        times_us=report.times_us,
        gaps=[
            pb.Gap(kind=gap.kind.value, model_ids=gap.models, text=DESCRIPTIONS[gap.kind])
            for gap in report.gaps
        ],
        audit_entries=report.entries,
        audit_head=report.head,
        decisions=[
            pb.Decision(
                kind=entry.event.kind,
                time_us=entry.event.time_us,
                actor=entry.event.actor,
                sequence=entry.sequence,
            )
            for entry in report.decisions
        ],
        log_sequence=log.sequence,
        log_head=log.head,
        key_id=log.key_id,
    )


def _last(report: Report, kind: AuditKind) -> tuple[int, str]:
    """Return time and actor of the last decision of a kind; 0 and `""` if there was none."""
    found = [entry.event for entry in report.decisions if entry.event.kind == kind]
    return (found[-1].time_us, found[-1].actor) if found else (0, "")


def model_report_to_proto(model: ModelReport) -> pb.ModelReport:
    """Convert the report on one version."""
    return pb.ModelReport(
        coverage=coverage_to_proto(model.covered, model.times),
        result=model.result,
        fishers=model.fishers,
        notified_us=model.notified_us,
        held_by=model.held_by,
    )
