"""A request that has ended, with every personal thing that a report may have, for its exports."""

from collections.abc import Iterator
from typing import Any

from disinherit.cli.request.report import ask_report
from disinherit.common.audit.attestation import LIMITS, NOTICE, coverage_of, gaps_of
from disinherit.common.exports.finished import FinishedRequest, without_words
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import unlearning_pb2

REASON = "Jane Doe withdrew her consent"
NAMED_CLASS = "jane-doe"
SAMPLE = "5a" * 32
SALT = b"of-the-root".hex()
OWNER_TEXT = "cannot read patient_7.png"
PERSONAL = (REASON, NAMED_CLASS, SAMPLE, SALT, OWNER_TEXT)
"""What no export may have."""

METHOD = {"scope": "head", "reference": "retained", "merge": "max", "bound": "1.0"}
BEFORE, AFTER = "b" * 64, "a" * 64


class _Told:
    """A connection to a coordinator that reports on one request."""

    def pages(self, _: Any, __: Any) -> Iterator[pb.GetReportResponse]:
        root = unlearning_pb2.Root(model_id="r1", classes=[NAMED_CLASS])
        samples = unlearning_pb2.Root(model_id="r2", samples=[SAMPLE], sample_salt=SALT)
        status = pb.RequestStatus(
            request=unlearning_pb2.UnlearningRequest(id="q", reason=REASON, roots=[root, samples]),
            state=pb.CAMPAIGN_STATE_PARTIAL,
            reason=OWNER_TEXT,
        )
        result = unlearning_pb2.ModelResult(
            deltas=[unlearning_pb2.AppliedDelta(root="r1", coefficient=0.5, note=OWNER_TEXT)],
            error=OWNER_TEXT,
        )
        covered = pb.ModelCoverage(model_id="r1", owner="anna", state="failed", reason=OWNER_TEXT)
        yield pb.GetReportResponse(
            summary=pb.ReportSummary(status=status),
            models=[pb.ModelReport(coverage=covered, result=result)],
        )


def model(name: str, *, after: float | None = 0.0, **changes: Any) -> dict[str, Any]:
    """Entry of a version in an attestation: forgotten to some accuracy, or left as it was."""
    forget = {"measure": "accuracy", "before": "0.9", "after": repr(after), "margin": "0.1"}
    figures = {"forget": forget, "retain_before": "0.8", "retain_after": "0.75"}
    done = after is not None
    return {
        "id": name,
        "owner": "anna",
        "state": "verified" if done else "failed",
        "late": False,
        "digest_before": BEFORE,
        "successor": f"{name}~q" if done else None,
        "digest_after": AFTER if done else None,
        "parameters": {**figures, "remedy": "suppressed"} if done else None,
        "fishers": [],
        "selected": {"values": 3, "of": 8} if done else None,
        "out_of_scope": [] if done else None,
        "notified_us": None,
        "destroyed_us": None,
        "held_by": None,
        **changes,
    }


def finished(*models: dict[str, Any], state: str = "partial") -> FinishedRequest:
    """A request that has ended; r1 has forgotten, and r2 failed, unless said otherwise."""
    entries = list(models) or [model("r1"), model("r2", after=None)]
    report = ask_report(_Told(), "q")  # type: ignore[arg-type]
    predicate = {
        "notice": NOTICE,
        "limits": list(LIMITS),
        "request": {
            "id": "q",
            "sha256": "c" * 64,
            "roots": ["r1", "r2"],
            "forgets": "samples",
            "method": METHOD,
        },
        "state": state,
        "times_us": {"received": 1_000_000, "ended": 3_500_000},
        "graph": {"sha256": "d" * 64, "models": len(entries), "edges": 1},
        "models": entries,
        "coverage": coverage_of(entries),
        "gaps": gaps_of(METHOD, entries),
        "log": {"entries": 9, "head": "e" * 64},
    }
    return FinishedRequest(predicate, b'{"signed": "envelope"}\n', without_words(report))
