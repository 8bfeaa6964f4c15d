"""Status of a request, as JSON and as text."""

from collections.abc import Mapping, Sequence

from disinherit.cli.output import Format, print_json, warn_line
from disinherit.cli.request.next_steps import next_steps
from disinherit.cli.request.plan import changed_method, describe_roll_out, some
from disinherit.cli.request.words import asked, in_words
from disinherit.cli.tables import Cell, moment, print_facts, state_text
from disinherit.documents.campaign.status_values import status_dict
from disinherit.v1 import coordinator_pb2 as pb


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
        begun = "none" if shown["state"] == "awaiting_approval" else shown["waves"]["begun"]
        facts.append(("waves", f"{begun} of {shown['waves']['of']} have begun"))
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
