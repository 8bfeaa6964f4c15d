"""`disinherit request export`: a request that has ended, in the forms of other tools."""

import enum
import json
from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.checked import writable
from disinherit.cli.connection import Connection, connected
from disinherit.cli.ids import RequestId
from disinherit.cli.output import print_line
from disinherit.cli.request.report import ask_report
from disinherit.common.audit.attestation import read_statement
from disinherit.common.audit.dsse import read_envelope
from disinherit.common.errors import InputError
from disinherit.common.exports.finished import FinishedRequest, without_words
from disinherit.common.exports.mlflow_runs import check_store, write_run
from disinherit.common.exports.model_cards import write_section
from disinherit.common.exports.openlineage import run_event, run_id
from disinherit.common.files import write_atomic
from disinherit.documents.campaign.bundle import pack_bundle
from disinherit.documents.campaign.gathering import gather_attestation

EXAMPLES = (
    "Examples:\n\n"
    "disinherit request export forget-0123456789ab --as bundle --out evidence.zip\n\n"
    "disinherit request export forget-0123456789ab --as openlineage --out event.json\n\n"
    "disinherit request export forget-0123456789ab --as mlflow --out sqlite:///mlflow.db\n\n"
    "disinherit request export forget-0123456789ab --as card --out README.md --model r4"
)


class ExportForm(enum.StrEnum):
    """ExportForm of an export."""

    BUNDLE = "bundle"
    OPENLINEAGE = "openlineage"
    MLFLOW = "mlflow"
    CARD = "card"


@connected
def export(
    connection: Connection,
    request_id: RequestId,
    form: Annotated[
        ExportForm,
        typer.Option(
            "--as",
            "--format",
            help="bundle: the evidence, for offline verification: attestation, audit log, keys, "
            "report, as a zip file. openlineage: a run event, as JSON. mlflow: a run, with "
            "figures, report and attestation. card: a section of a model card.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="The file to write; the card to add to; for mlflow, a folder or tracking URI.",
        ),
    ],
    model: Annotated[
        list[str] | None, typer.Option(help="In a card, only this affected version. Repeat.")
    ] = None,
) -> int:
    """Export a request that has ended: its evidence, or records for other tools.

    Exporting again updates the export.

    No export has the reason, names of classes, ids or digests of samples, or text of owners.
    """
    if model and form is not ExportForm.CARD:
        raise InputError(f"Expected --model with --as card only, but got --as {form}.")
    if form is ExportForm.MLFLOW:
        check_store(out)
    else:
        writable(out)
    data = gather_attestation(connection, request_id)
    report = without_words(ask_report(connection, request_id))
    statement = read_statement(read_envelope(data))
    done = FinishedRequest(statement["predicate"], data, report)
    if form is ExportForm.BUNDLE:
        write_atomic(Path(out), pack_bundle(connection, data, report))
        print_line(
            f"evidence about {done.id}, {done.state}, in {out}: its README.txt says how to verify"
        )
    elif form is ExportForm.OPENLINEAGE:
        event = json.dumps(run_event(done), indent=2, allow_nan=False)
        write_atomic(Path(out), event.encode() + b"\n")
        print_line(f"run {run_id(done.id)} of {done.id}, {done.state}, in {out}")
    elif form is ExportForm.MLFLOW:
        print_line(f"run {write_run(done, out)} of {done.id}, {done.state}, in {out}")
    else:
        write_section(Path(out), done, model or [])
        print_line(f"section about {done.id}, {done.state}, in {out}")
    return 0
