"""The report of a request as values of JSON, from the coordinator's messages."""

from collections.abc import Sequence
from typing import Any

from disinherit.common.wire.recognition import ATTACK_FIGURES, FALSE_ALARMS, SAMPLE_FIGURES
from disinherit.common.wire.remedies import remedy_word
from disinherit.documents.intervals import Share
from disinherit.documents.words import as_time
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import unlearning_pb2


def report_values(summary: pb.ReportSummary, models: Sequence[pb.ModelReport]) -> dict[str, Any]:
    """Return a report as values of JSON; times in ISO 8601 and UTC, or `None`.

    Args:
        summary: of the last page.
        models: of all pages.
    """
    return _summary(summary) | {"models": [_model(model) for model in models]}


def campaign_state(state: int) -> str:
    """Return the name of a campaign's state; one of a later release has its number only.

    Example:
        >>> campaign_state(1)
        'awaiting_approval'
        >>> campaign_state(99)
        '99'
    """
    if state not in pb.CampaignState.values():
        return str(state)
    name = pb.CampaignState.Name(pb.CampaignState.ValueType(state))
    return name.removeprefix("CAMPAIGN_STATE_").lower()


def _asked(summary: pb.ReportSummary) -> dict[str, Any]:
    status = summary.status
    request = status.request
    counts = status.sample_counts or [len(root.samples) for root in request.roots]
    return {
        "id": request.id,
        "state": campaign_state(status.state),
        "reason": request.reason,
        "roots": [
            {"model": root.model_id, "classes": list(root.classes), "sample_count": count}
            for root, count in zip(request.roots, counts, strict=True)
        ],
        "client": request.client or None,
        "created": as_time(status.created_us),
        "deadline": as_time(status.deadline_us),
        "approved_plan_sha256": status.approved_plan_sha256 or None,
        "submitted_by": status.submitted_by or None,
        "approved": as_time(status.approved_us),
        "approved_by": status.approved_by or None,
        "decisions": [
            {
                "time": as_time(one.time_us),
                "kind": one.kind,
                "actor": one.actor or None,
                "sequence": one.sequence,
            }
            for one in summary.decisions
        ],
    }


def _summary(summary: pb.ReportSummary) -> dict[str, Any]:
    return {
        "request": _asked(summary),
        "request_sha256": summary.request_sha256,
        "graph": {
            "sha256": summary.graph_sha256,
            "models": summary.models,
            "edges": summary.edges,
        },
        "coverage": dict(sorted(summary.coverage.items())),
        "times": {
            name: as_time(when)
            for name, when in sorted(summary.times_us.items(), key=lambda item: item[1])
        },
        "seconds": {
            "approved to applied": _between(summary, "approved", "last_applied"),
            "received to ended": _between(summary, "received", "ended"),
        },
        "gaps": [
            {"kind": gap.kind, "models": list(gap.model_ids), "text": gap.text}
            for gap in summary.gaps
        ],
        "audit": {
            "entries": summary.audit_entries,
            "head": summary.audit_head,
            "log_sequence": summary.log_sequence,
            "log_head": summary.log_head or None,
            "key": summary.key_id or None,
        },
    }


def _between(summary: pb.ReportSummary, first: str, last: str) -> float | None:
    """Return the seconds between two events; `None` if one is missing."""
    times = summary.times_us
    if first not in times or last not in times:
        return None
    return (times[last] - times[first]) / 1e6


def _model(model: pb.ModelReport) -> dict[str, Any]:
    covered = model.coverage
    return {
        "model": covered.model_id,
        "owner": covered.owner,
        "state": covered.state,
        "reason": covered.reason,
        "digest_before": covered.digest_before,
        "successor": covered.successor_id or None,
        "digest_after": covered.digest_after or None,
        "applied": _applied(model.result) if model.HasField("result") else None,
        "fishers": list(model.fishers),
        "notified": as_time(model.notified_us),
        "told": as_time(covered.told_us),
        "acknowledged": as_time(covered.acknowledged_us),
        "done": as_time(covered.done_us),
        "destroy_due": as_time(covered.destroy_us),
        "destroyed": as_time(covered.destroyed_us),
        "held_by": model.held_by or None,
        "hardly_known": covered.measured.hardly_known,
        **({"remedy": remedy_word(covered.remedy)} if covered.remedy else {}),
    }


def _changes(result: unlearning_pb2.ModelResult) -> dict[str, Any]:
    """Return the changes of roots that were added; nothing where Fisher information was used."""
    if not result.deltas:
        return {}
    return {
        "changes": [
            {
                "root": one.root,
                "coefficient": one.coefficient,
                "measured": one.measured if one.HasField("measured") else None,
                "root_method": one.root_method,
                "note": one.note or None,
            }
            for one in result.deltas
        ],
    }


def _strength(result: unlearning_pb2.ModelResult) -> dict[str, float | None]:
    """Return the strength of dampening; `None` where it did not matter."""
    named = {"alpha": result.alpha, "lambda": result.lam, "gauge": result.gauge}
    return {name: value if result.alpha else None for name, value in named.items()}


def _applied(result: unlearning_pb2.ModelResult) -> dict[str, Any]:
    return {
        **_strength(result),
        "tuned": result.tuned,
        "repair_steps": result.repair_steps,
        "inheritance": result.inheritance if result.HasField("inheritance") else None,
        "scale": result.scale or 1.0,
        "retain": {
            "before": result.retain_before,
            "after": result.retain_after,
            "samples": result.retain_samples,
            **_intervals(result.retain_before, result.retain_after, result.retain_samples),
        }
        if result.HasField("retain_before") and result.HasField("retain_after")
        else None,
        "forget": recognition_values(result.forget) if result.HasField("forget") else None,
        "unknown_samples": result.unknown_samples,
        "dampened": {
            one.parameter: {"values": sum(one.rows), "of": one.total} for one in result.selections
        },
        "out_of_scope": list(result.out_of_scope),
        "not_covered": list(result.not_covered),
        "seconds": {
            "fisher": result.fisher_seconds,
            "tune": result.tune_seconds,
            "apply": result.apply_seconds,
        },
        **({"tied": list(result.tied)} if result.tied else {}),
        **_changes(result),
    }


def recognition_values(found: unlearning_pb2.Recognition) -> dict[str, Any]:
    """Return what an owner measured of a model, with the intervals of shares."""
    shown = {
        "measure": found.measure,
        "before": found.before,
        "after": found.after,
        "floor": found.floor,
        "margin": found.margin,
        "samples": found.samples,
        "source": found.source,
    }
    if found.measure == "accuracy":
        shown |= _intervals(found.before, found.after, found.samples)
    if found.measure == "auc":
        shown |= {name: getattr(found, name) for name in SAMPLE_FIGURES}
        shown["at_1_percent_false_alarms"] = _attack(found)
    return shown


def _attack(found: unlearning_pb2.Recognition) -> dict[str, Any] | None:
    """Return the shares that an attacker finds; `None` without enough unseen samples."""
    if not found.HasField("found_after"):
        return None
    before, after = (getattr(found, name) for name in ATTACK_FIGURES)
    return {
        "before": before,
        "after": after,
        **_intervals(before, after, found.samples),
        "unseen": found.unseen,
        "never_saw": FALSE_ALARMS,
    }


def _intervals(before: float, after: float, samples: int) -> dict[str, list[float]]:
    """Return Wilson's 95 % intervals of two shares from 0 to 1; nothing without samples.

    Example:
        >>> _intervals(1.0, 0.0, 50)
        {'before_interval': [0.9287, 1.0], 'after_interval': [0.0, 0.0713]}
    """
    found = {"before_interval": before, "after_interval": after}
    shares = {name: Share(100 * value, samples).interval for name, value in found.items()}
    return {
        name: [round(bound / 100, 4) for bound in interval]
        for name, interval in shares.items()
        if interval is not None
    }
