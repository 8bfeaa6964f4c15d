"""`disinherit request report`: result of every affected version, and the gaps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from disinherit.cli.checked import file_to_write
from disinherit.cli.connection import Connection, connected
from disinherit.cli.ids import RequestId
from disinherit.cli.output import Format, FormatOption, print_json, print_line
from disinherit.cli.request.status import exit_code
from disinherit.cli.request.words import in_words
from disinherit.cli.tables import Cell, print_facts, print_table, state_text
from disinherit.common.files import write_atomic
from disinherit.documents.campaign.evidence_words import evidence
from disinherit.documents.campaign.gathering import gather_records, gather_report
from disinherit.documents.campaign.status_values import whole_report
from disinherit.documents.pages import WORST
from disinherit.documents.words import joined

EXAMPLES = (
    "Examples:\n\n"
    "disinherit request report forget-0123456789ab --format json\n\n"
    "disinherit request report forget-0123456789ab --html report.html --letter letter.txt"
)

_STRENGTHS = ("alpha", "lambda", "gauge")


@connected
def report(
    connection: Connection,
    request_id: RequestId,
    html: Annotated[
        Path | None,
        file_to_write(
            metavar="FILE",
            help="Write the report as a page, ready to print, here.",
        ),
    ] = None,
    letter: Annotated[
        Path | None,
        file_to_write(
            metavar="FILE",
            help="Write a letter to the person, a template, here.",
        ),
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
        _print(values, wide=form is Format.WIDE)
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

    records = gather_records(connection, values)
    if html is not None:
        write_atomic(html, render_campaign(records).encode())
    if letter is not None:
        write_atomic(letter, write_letter(records).encode())


def ask_report(connection: Connection, request_id: str) -> dict[str, Any]:
    """Return the report of a request as JSON values.

    Raises:
        DisinheritError: if a call fails.
    """
    return whole_report(*gather_report(connection, request_id))


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


def _measured(model: dict[str, Any], figure: str) -> str:
    """Return what was measured of a model, before and after, with the number of samples.

    Example:
        >>> kept = {"before": 0.9, "after": 0.89, "samples": 900}
        >>> _measured({"applied": {"retain": kept}}, "retain")
        '90.0 → 89.0 % of 900'
    """
    found = (model["applied"] or {}).get(figure)
    if not found:
        return ""
    if found.get("measure") == "auc":
        named = ""
        if "named_after" in found:
            before, after = 100 * found["named_before"], 100 * found["named_after"]
            named = f"named {before:.1f} → {after:.1f} %, "
        auc = f"AUC {found['before']:.2f} → {found['after']:.2f}"
        return f"{named}{auc} of {found['samples']}"
    before, after = 100 * found["before"], 100 * found["after"]
    return f"{before:.1f} → {after:.1f} % of {found['samples']}"


def _print(values: dict[str, Any], *, wide: bool) -> None:
    facts: list[tuple[str, Cell]] = [
        ("request", f"{values['request']['id']}, {values['request']['state']}"),
        ("models", in_words(values["coverage"])),
    ]
    facts += [(name.replace("_", " "), when) for name, when in values["times"].items()]
    approved = "approved" in values["times"] or values["request"]["state"] == "awaiting_approval"
    for name, seconds in values["seconds"].items():
        unknown = "not yet" if approved or "approved" not in name else "no approval was needed"
        facts.append((name, unknown if seconds is None else f"{seconds:.2f} s"))
    for model in values["models"]:
        if model["applied"] and model["applied"]["unknown_samples"]:
            unknown = model["applied"]["unknown_samples"]
            facts.append(("unknown samples", f"{unknown} left out at {model['model']}"))
    print_facts(facts)
    changed = any(model["applied"] and "changes" in model["applied"] for model in values["models"])
    titles = ["model", "state", "owner", "remedy", "became", "recognised", "kept"]
    more = (["changes"] if changed else []) + (list(_STRENGTHS) if wide else [])
    print_line()
    rows = (_row(model, more) for model in values["models"])
    print_table([*titles, *more], rows, ("model", "state", "became"))
    print_line()
    _print_evidence(values["models"])
    gaps: list[list[Cell]] = []
    for gap in values["gaps"]:
        names = joined(gap["models"]) if len(gap["models"]) > 6 else ", ".join(gap["models"])
        about = f" ({names})" if names else ""
        gaps.append([gap["kind"].replace("_", " "), gap["text"] + about])
    print_table(("left open", "what it means"), gaps, ("left open",), "Nothing known is left open.")


def _print_evidence(models: Sequence[Mapping[str, Any]]) -> None:
    """Print what owners measured in the words of the page, the worst models first."""
    measured = [
        (model["model"], found)
        for model in models
        if (found := (model["applied"] or {}).get("forget"))
    ]
    measured.sort(key=lambda one: one[1]["floor"] - one[1]["after"])
    rows: list[tuple[Cell, Cell]] = [
        (joined(ids), words) for ids, words in evidence(measured[:WORST])
    ]
    if len(measured) > WORST:
        rows.append(("", f"The {WORST} worst of {len(measured)} measured models; JSON has all."))
    if rows:
        print_table(("model", "what its owner measured of what is to be forgotten"), rows)
        print_line()


def _row(model: dict[str, Any], more: Sequence[str]) -> list[Cell]:
    applied = model["applied"] or {}
    row: list[Cell] = [model["model"], state_text(model["state"]), model["owner"]]
    row += [model.get("remedy"), model["successor"]]
    row += [_measured(model, "forget"), _measured(model, "retain")]
    for name in more:
        value = applied.get(name)
        shown = _shares(applied.get("changes", [])) if name == "changes" else None
        row.append(shown if name == "changes" else "-" if value is None else f"{value:g}")
    return row
