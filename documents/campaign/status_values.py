"""The status of a request, its method and its roll-out as values of JSON, and its whole report."""

from collections.abc import Sequence
from typing import Any

from disinherit.common.encodings import Encoding
from disinherit.common.errors import FisherError
from disinherit.common.method import DELTA_CODES
from disinherit.documents.campaign.values import campaign_state, report_values
from disinherit.documents.words import as_time
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import unlearning_pb2


def status_dict(status: pb.RequestStatus) -> dict[str, Any]:
    """Return the status of a request as JSON values; times in ISO 8601 and UTC, or `None`.

    Lists and watches have the number of samples instead of their digests.
    """
    counts = status.sample_counts or [len(root.samples) for root in status.request.roots]
    return {
        "id": status.request.id,
        "state": campaign_state(status.state),
        "tasks": dict(sorted(status.tasks.items())),
        "reason": status.request.reason,
        "roots": [
            {
                "model": root.model_id,
                "classes": list(root.classes),
                "samples": list(root.samples),
                "sample_count": count,
                "salt": root.sample_salt or None,
            }
            for root, count in zip(status.request.roots, counts, strict=True)
        ],
        "method": method_dict(status.request.method),
        "roll_out": roll_out_dict(status.request.roll_out),
        "retention_seconds": status.request.retention_seconds or None,
        "client": status.request.client or None,
        "created": as_time(status.created_us),
        "updated": as_time(status.updated_us),
        "deadline": as_time(status.deadline_us),
        "waves": {"begun": status.waves_begun, "of": status.waves},
        "halted": status.reason or None,
        "plan_sha256": status.plan_sha256 or None,
        "approved_plan_sha256": status.approved_plan_sha256 or None,
    }


def whole_report(summary: pb.ReportSummary, models: Sequence[pb.ModelReport]) -> dict[str, Any]:
    """Return a report with the status of its request as JSON values.

    Args:
        summary: of the last page.
        models: of all pages.
    """
    values = report_values(summary, models)
    status = status_dict(summary.status)
    more = {name: value for name, value in values["request"].items() if name not in status}
    return values | {"request": status | more}


def method_dict(method: unlearning_pb2.Method) -> dict[str, Any]:
    """Return the values of a method by name; `None` for values that each owner tunes.

    Those about changes of roots are left out where descendants inherit Fisher information.
    """
    try:
        encoding = str(Encoding.from_proto(method.encoding))
    except FisherError:  # of a later release
        encoding = str(method.encoding)
    values = {
        "scope": method.scope,
        "reference": method.reference,
        "merge": method.merge,
        "alpha": method.alpha if method.HasField("alpha") else None,
        "lambda": method.lam if method.HasField("lam") else None,
        "gauge": method.gauge if method.HasField("gauge") else None,
        "exponent": method.exponent,
        "bound": method.bound,
        "row_scoped": method.row_scoped,
        "encoding": encoding,
        "repair_steps": method.repair_steps,
        "min_inheritance": method.min_inheritance,
        "rescale": method.rescale,
    }
    if method.mechanism:
        values |= {
            "mechanism": method.mechanism,
            "root_method": method.root_method,
            "delta_encoding": _delta_encoding(method.delta_encoding),
            "delta_rank": method.delta_rank,
            "calibration_rounds": method.calibration_rounds,
        }
    return values


def _delta_encoding(number: int) -> str:
    known = {int(code): name for name, code in DELTA_CODES.items()}
    return known.get(number, str(number))  # of a later release


def roll_out_dict(roll_out: unlearning_pb2.RollOut) -> dict[str, Any]:
    """Return waves and thresholds of a roll-out by name; `None` for no threshold."""
    return {
        "canaries": list(roll_out.canaries),
        "canary_count": roll_out.canary_count,
        "waves": [
            wave.fraction if wave.HasField("fraction") else wave.count for wave in roll_out.waves
        ],
        **{
            name: getattr(roll_out, name) if roll_out.HasField(name) else None
            for name in ("min_success", "max_retain_drop", "max_error_rate")
        },
    }
