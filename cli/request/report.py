"""`disinherit request report`: result of every affected version, and the gaps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from disinherit.cli.connection import Connection, connected
from disinherit.cli.ids import RequestId
from disinherit.cli.output import Format, FormatOption, print_json, print_line, print_rich
from disinherit.cli.request.status import exit_code, status_dict
from disinherit.cli.request.words import in_words
from disinherit.common.files import write_atomic
from disinherit.documents.campaign.gathering import gather_records, gather_report
from disinherit.documents.campaign.values import report_values

EXAMPLES = (
    "Examples:\n\n"
    "disinherit request report forget-0123456789ab --format json\n\n"
    "disinherit request report forget-0123456789ab --html report.html --letter letter.txt"
)


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
    summary, models = gather_report(connection, request_id)
    values = report_values(summary, models)
    return values | {"request": values["request"] | status_dict(summary.status)}


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
