"""Status of a request, as JSON and as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from disinherit.cli.output import Format, as_time, print_json, warn_line
from disinherit.cli.request.next_steps import next_steps
from disinherit.cli.request.plan import (
    changed_method,
    describe_roll_out,
    method_dict,
    roll_out_dict,
    some,
)
from disinherit.cli.request.words import asked, in_words
from disinherit.cli.tables import Cell, moment, print_facts, state_text
from disinherit.documents.campaign.values import campaign_state
from disinherit.v1 import coordinator_pb2 as pb


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


def exit_code(state: str) -> int:
    """Return 1 for a request that has ended without being complete or rolled back, else 0.

    Example:
        >>> exit_code("running"), exit_code("complete"), exit_code("partial")
        (0, 0, 1)
    """
    return 1 if state in ("partial", "aborted", "halted") else 0


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
    for step in next_steps(shown):
        warn_line(step)
