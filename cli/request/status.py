"""Status of a request, as JSON and as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from disinherit.cli.output import Format, as_time, print_json
from disinherit.cli.request.plan import (
    changed_method,
    describe_roll_out,
    method_dict,
    roll_out_dict,
    some,
)
from disinherit.cli.tables import Cell, moment, print_facts, state_text
from disinherit.v1 import coordinator_pb2 as pb

_UNDER_WAY = {"pending", "sent", "applied", "rolling_back"}
"""States of models that change without anybody's help."""


def status_dict(status: pb.RequestStatus) -> dict[str, Any]:
    """Return the status of a request as JSON values; times in ISO 8601 and UTC, or `None`.

    Lists and watches have the number of samples instead of their digests.
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


def exit_code(state: str) -> int:
    """Return 1 for a request that has ended without being complete or rolled back, else 0.

    Example:
        >>> exit_code("running"), exit_code("complete"), exit_code("partial")
        (0, 0, 1)
    """
    return 1 if state in ("partial", "aborted", "halted") else 0


def in_words(tasks: Mapping[str, int]) -> str:
    """Return the number of models in each state as text.

    Example:
        >>> in_words({"verified": 4, "pending": 1})
        '4 verified, 1 pending'
    """
    return ", ".join(f"{count} {state}" for state, count in tasks.items()) or "none"


def waits_for_failed(request_id: str, state: str, tasks: Mapping[str, int]) -> str:
    """Return what to do about a request that is kept open by models that failed; `""` if it is not.

    Args:
        request_id: the request.
        state: its state.
        tasks: state -> number of models in it.

    Example:
        >>> waits_for_failed("q", "running", {"failed": 1, "pending": 2})
        ''
        >>> waits_for_failed("q", "running", {"failed": 1, "verified": 2})[:47]
        'What failed is tried again from time to time: `'
    """
    if state != "running" or not tasks.get("failed") or set(tasks) & _UNDER_WAY:
        return ""
    return (
        f"What failed is tried again from time to time: `disinherit coverage {request_id}` says "
        f"why it failed. Where that stays so, `disinherit request abort {request_id}` ends it, and "
        "so does a deadline."
    )


def show_status(
    status: pb.RequestStatus,
    form: Format,
    owners: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Print the status of a request.

    Args:
        status: as the coordinator sent it.
        form: format of the output.
        owners: owner -> its affected models, where they are known.
    """
    shown = status_dict(status)
    if owners is not None:
        shown["owners"] = {owner: list(models) for owner, models in sorted(owners.items())}
    if form is Format.JSON:
        print_json(shown)
        return
    facts: list[tuple[str, Cell]] = [
        ("id", shown["id"]),
        ("state", state_text(shown["state"])),
        ("models", in_words(shown["tasks"])),
        *(("forget", f"{what} at {model}") for what, model in asked(shown)),
    ]
    if shown["waves"]["of"] > 1:
        facts.append(("waves", "{begun} of {of} have begun".format(**shown["waves"])))
    facts += [("owner", f"{owner}: {some(its)}") for owner, its in shown.get("owners", {}).items()]
    kept = shown["retention_seconds"]
    facts += [
        ("method", ", ".join(changed_method(shown["method"])) or "as by default"),
        ("roll-out", "; ".join(describe_roll_out(shown["roll_out"]))),
        ("old versions", f"destroyed {kept} s after the end" if kept else "kept"),
        ("halted", shown["halted"]),
        ("reason", shown["reason"] or "none"),
        ("created", moment(status.created_us)),
        ("updated", moment(status.updated_us)),
        ("deadline", moment(status.deadline_us) or "none"),
        ("plan", shown["plan_sha256"]),
        ("approved plan", shown["approved_plan_sha256"]),
    ]
    print_facts(facts)


def asked(shown: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is to be forgotten, and at which model.

    Args:
        shown: the status of a request, as JSON values.
    """
    return [
        (
            ", ".join(root["classes"])
            or (f"{root['sample_count']} samples" if root["sample_count"] else "")
            or f"all of {shown['client']}",
            root["model"],
        )
        for root in shown["roots"]
    ]
