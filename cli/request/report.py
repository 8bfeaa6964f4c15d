"""`disinherit request report`: result of every affected version, and the gaps."""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from disinherit.cli.audit import ask_attestation
from disinherit.cli.connection import Connection, connected
from disinherit.cli.graph_sources import ask_graph
from disinherit.cli.ids import RequestId
from disinherit.cli.output import Format, FormatOption, as_time, print_json, print_line, print_rich
from disinherit.cli.request.status import exit_code, status_dict
from disinherit.cli.request.words import in_words
from disinherit.common.files import write_atomic
from disinherit.common.wire.recognition import SAMPLE_FIGURES
from disinherit.common.wire.remedies import remedy_word
from disinherit.documents.intervals import Share
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import unlearning_pb2

if TYPE_CHECKING:
    from disinherit.documents.campaign.members import CampaignRecords

EXAMPLES = (
    "Examples:\n\n"
    "disinherit request report forget-0123456789ab --format json\n\n"
    "disinherit request report forget-0123456789ab --html report.html --letter letter.txt"
)

_ENDED = ("complete", "partial", "aborted", "rolled_back")


@connected
def report(
    connection: Connection,
    request_id: RequestId,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the report as a page, ready to print, here."),
    ] = None,
    letter: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a letter to the person, a template, here."),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Print the results and gaps of a request; exit code 1 if it ended and is not complete.

    With parameters, digests, accuracies before and after, times and gaps. The page and the letter
    name what was asked and why: keep and delete them like the request itself.
    """
    values = ask_report(connection, request_id)
    if html is not None or letter is not None:
        _write_documents(connection, values, html, letter)
    if form is Format.JSON:
        print_json(values)
    else:
        _print(values)
        for path in (html, letter):
            if path is not None:
                print_line(f"Written: {path}")
    return exit_code(values["request"]["state"])


def _write_documents(
    connection: Connection, values: Mapping[str, Any], html: Path | None, letter: Path | None
) -> None:
    # Imported here: templates take time, which other commands should not need.
    from disinherit.documents.campaign.letter import write_letter
    from disinherit.documents.campaign.page import render_campaign

    records = ask_records(connection, values)
    if html is not None:
        write_atomic(html, render_campaign(records).encode())
    if letter is not None:
        write_atomic(letter, write_letter(records).encode())


def ask_records(connection: Connection, values: Mapping[str, Any]) -> "CampaignRecords":
    """Return all that a document about a request is made from.

    Args:
        connection: to the coordinator.
        values: its report, by `ask_report`.

    Raises:
        DisinheritError: if a call fails.
    """
    from disinherit.documents.campaign.members import CampaignRecords

    known = connection.call(lambda stub: stub.GetSigningKeys, pb.GetSigningKeysRequest()).keys
    attestation = ""
    if known and values["request"]["state"] in _ENDED:
        data = ask_attestation(connection, values["request"]["id"])
        attestation = hashlib.sha256(data).hexdigest()
    return CampaignRecords(
        report=values,
        graph=ask_graph(connection),
        keys=[one.key_id for one in known if not one.revoked_us],
        attestation_sha256=attestation,
        made=datetime.now(UTC),
        version=importlib.metadata.version("disinherit"),
    )


def ask_report(connection: Connection, request_id: str) -> dict[str, Any]:
    """Return the report of a request as JSON values.

    Raises:
        DisinheritError: if a call fails.
    """
    ask = pb.GetReportRequest(id=request_id)
    models: list[pb.ModelReport] = []
    for answer in connection.pages(lambda stub: stub.GetReport, ask):
        models += answer.models
    return _summary(answer.summary) | {"models": [_model(model) for model in models]}


def _summary(summary: pb.ReportSummary) -> dict[str, Any]:
    status = summary.status
    asked = {
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
    return {
        "request": status_dict(status) | asked,
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
        "forget": _recognition(result.forget) if result.HasField("forget") else None,
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


def _recognition(found: unlearning_pb2.Recognition) -> dict[str, Any]:
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
    return shown


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


def _shares(changes: list[dict[str, Any]]) -> str:
    """Return how much of each root's change was added.

    Example:
        >>> change = {"root": "r1", "coefficient": 0.5, "measured": 0.48, "root_method": "replay"}
        >>> _shares([change | {"note": None}])
        '0.5 of r1 (replay, 0.48 measured)'
    """
    words = []
    for one in changes:
        left = "" if one["measured"] is None else f", {one['measured']:.2f} measured"
        note = "" if one["note"] is None else f"; {one['note']}"
        words.append(f"{one['coefficient']:g} of {one['root']} ({one['root_method']}{left}{note})")
    return ", ".join(words)


def _print(values: dict[str, Any]) -> None:
    head = Table(box=None, show_header=False)
    head.add_row("request", f"{values['request']['id']}, {values['request']['state']}")
    head.add_row("models", in_words(values["coverage"]))
    for name, when in values["times"].items():
        head.add_row(name.replace("_", " "), when)
    approved = "approved" in values["times"] or values["request"]["state"] == "awaiting_approval"
    for name, seconds in values["seconds"].items():
        unknown = "not yet" if approved or "approved" not in name else "no approval was needed"
        head.add_row(name, unknown if seconds is None else f"{seconds:.2f} s")
    for model in values["models"]:
        if model["applied"] and model["applied"]["unknown_samples"]:
            unknown = model["applied"]["unknown_samples"]
            head.add_row("unknown samples", f"{unknown} left out at {model['model']}")
    changed = any(model["applied"] and "changes" in model["applied"] for model in values["models"])
    columns = ("changes",) if changed else ("alpha", "lambda", "gauge")
    models = Table("model", "owner", "state", "remedy", "became", *columns, box=None)
    for model in values["models"]:
        applied, figures = model["applied"], []
        if changed:
            figures = [_shares(applied.get("changes", []))] if applied else []
        elif applied:
            strengths = [applied[name] for name in columns]
            figures = ["-" if value is None else f"{value:g}" for value in strengths]
        words = (model["model"], model["owner"], model["state"], model.get("remedy"))
        models.add_row(*words, model["successor"], *figures)
    gaps = Table("left open", "", box=None)
    for gap in values["gaps"]:
        about = f" ({', '.join(gap['models'])})" if gap["models"] else ""
        gaps.add_row(gap["kind"].replace("_", " "), gap["text"] + about)
    print_rich(head, models, gaps)
