"""`disinherit report`: the report of a finished run."""

from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.checked import file_to_write
from disinherit.cli.output import Format, FormatOption, print_json, print_rich
from disinherit.common.errors import DataError
from disinherit.common.files import write_atomic
from disinherit.common.text import load_json
from disinherit.simulations.report.check import check_report
from disinherit.simulations.report.document import RunReport
from disinherit.simulations.report.html import render_html
from disinherit.simulations.report.table import render_tables

EXAMPLES = "Example: disinherit report runs/demo --format json"


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder.")],
    html: Annotated[
        Path | None,
        file_to_write(help="Write the HTML page here; DIR/report.html by default."),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Print a run's report and rewrite its HTML page."""
    found = read_report(folder)
    page = html or folder / "report.html"
    write_atomic(page, render_html(found).encode())
    if form is Format.JSON:
        print_json(found)
    else:
        print_rich(*render_tables(found), f"Report: {page}")
    return 0


def read_report(folder: Path) -> RunReport:
    """Return the report of a run.

    Raises:
        DataError: if it is missing or damaged.
    """
    path = folder / "report.json"
    try:
        return check_report(load_json(path.read_text()))
    except OSError as error:
        raise DataError(
            f"Expected a finished run with a report at {str(path)!r}, but: {error.strerror}."
        ) from None
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"Expected JSON in {str(path)!r}, but: {error}.") from None
