"""Status of a request, as JSON and as text."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from disinherit.cli.plans import method_dict, roll_out_dict
from disinherit.v1 import coordinator_pb2 as pb


def status_dict(status: pb.RequestStatus) -> dict[str, Any]:
    """Return how a request stands as JSON values; times as ISO 8601 in UTC, or `None`.

    Lists and watches have the number of samples and not their digests.
    """
    counts = status.sample_counts or [len(root.samples) for root in status.request.roots]
    state = pb.CampaignState.Name(status.state).removeprefix("CAMPAIGN_STATE_").lower()
    return {
        "id": status.request.id,
        "state": state,
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


def as_time(microseconds: int) -> str | None:
    """Return a time as ISO 8601 in UTC; `None` for 0.

    Example:
        >>> as_time(1_000_000)
        '1970-01-01T00:00:01+00:00'
    """
    if not microseconds:
        return None
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="seconds")


def exit_code(state: str) -> int:
    """Return 1 for a request that has ended without being complete or rolled back, else 0.

    Example:
        >>> exit_code("running"), exit_code("complete"), exit_code("partial")
        (0, 0, 1)
    """
    return 1 if state in ("partial", "aborted", "halted") else 0


def in_words(tasks: Mapping[str, int]) -> str:
    """Return the numbers of models by state.

    Example:
        >>> in_words({"verified": 4, "pending": 1})
        '4 verified, 1 pending'
    """
    return ", ".join(f"{count} {state}" for state, count in tasks.items()) or "none"
