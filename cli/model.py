"""`disinherit model`: registration, withdrawal and list of model versions."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import click
import typer

from disinherit.cli.commands import Commands
from disinherit.cli.completion import complete_models, complete_owners
from disinherit.cli.connection import Connection, connected
from disinherit.cli.ids import check_model
from disinherit.cli.model_export import EXPORT_EXAMPLES, export
from disinherit.cli.model_lineage import LINEAGE_EXAMPLES, SHOW_EXAMPLES, lineage, show
from disinherit.cli.output import (
    Format,
    FormatOption,
    QuietOption,
    as_time,
    print_json,
    print_line,
)
from disinherit.cli.tables import ago, print_table, state_text
from disinherit.common.errors import GraphError
from disinherit.common.graph.proto import inheritance_to_proto, record_to_proto
from disinherit.common.graph.recipes import as_recipe
from disinherit.common.graph.records import Inheritance, ModelRecord, Provenance, as_kind
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import graph_pb2

app = Commands("Register model versions, and list them.")


@app.command(
    epilog="Examples:\n\n"
    "disinherit model register r1.safetensors --id r1 --owner anna --label cat --label dog "
    "--dataset pets --count cat=120 --count dog=95\n\n"
    "disinherit model register r4.safetensors --id r4 --owner anna --label cat --label dog "
    "--kind federated --parent r1=0.6 --parent r2=0.4\n\n"
    "disinherit model register models/ --id r5 --owner anna --kind transfer --parent r1 "
    "--rename r1:cat=tabby"
)
@connected
def register(
    connection: Connection,
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="The version's weights, safetensors; or the folder of its owner's models "
            "(ModelStore), which has its class names and what it was trained on."
        ),
    ],
    model_id: Annotated[str, typer.Option("--id", help="Unique id of this version.")],
    owner: Annotated[str, typer.Option(help="Owner of the version.")],
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS",
            help="A class name, in the order of the head's rows. Repeat. For a file of weights.",
        ),
    ] = None,
    parent: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID[=WEIGHT]", help="A version it was derived from, with its weight. Repeat."
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            click_type=click.Choice(["federated", "distributed", "incremental", "transfer"]),
            help="How it was derived from its parents: once for all, or once for each. "
            "Default: federated.",
        ),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PARENT:CLASS=NAME", help="A parent's class that has another name here. Repeat."
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="How it was computed from its parents, in this order, if it was not trained: "
            "average (the sum of the parents, each multiplied by its weight), fold, int8, nf4, or "
            'with parameters, such as "ties weights=1,1 density=0.5". Then it is computed again '
            "once they are unlearned."
        ),
    ] = "",
    dataset: Annotated[
        str | None, typer.Option(help="Data set it was trained on itself (not inherited).")
    ] = None,
    samples: Annotated[
        list[str] | None,
        typer.Option(
            "--count",
            "--samples",
            metavar="CLASS=COUNT",
            help="Training samples of a class in that data set. Repeat.",
        ),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Register a version: only digests of its weights are sent. Repeating changes nothing."""
    if samples and dataset is None:
        raise GraphError("Expected --dataset with --count, but got none.")
    counts = {name: int(_number(text, count)) for text, name, count in _pairs(samples or [])}
    provenance = None if dataset is None else Provenance(dataset, counts)
    if checkpoint.is_dir():
        record = _kept_record(checkpoint, owner, model_id)
        if label or provenance:
            raise GraphError(
                f"Expected no --label and --dataset with {checkpoint}, whose record says them, "
                f"for {model_id!r}."
            )
    else:
        record = _record_of_file(checkpoint, owner, model_id, label or [], provenance)
    edges = _edges(model_id, parent or [], kind or ["federated"], rename or [], recipe)
    message = pb.RegisterModelRequest(
        record=record_to_proto(record), parents=map(inheritance_to_proto, edges)
    )
    stored = connection.call(lambda stub: stub.RegisterModel, message).record
    _show([stored], form)
    return 0


@app.command(epilog="Example: disinherit model withdraw r1")
@connected
def withdraw(
    connection: Connection,
    model_id: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="The version; its id becomes free again.",
            autocompletion=complete_models,
            callback=check_model,
        ),
    ],
    form: FormatOption = Format.TABLE,
) -> int:
    """Withdraw a wrong registration; refused if the version has descendants or requests."""
    message = pb.WithdrawModelRequest(id=model_id)
    _show([connection.call(lambda stub: stub.WithdrawModel, message).record], form)
    return 0


@app.command("list", epilog="Example: disinherit model list --owner anna --format json")
@connected
def list_models(
    connection: Connection,
    owner: Annotated[
        str,
        typer.Option(help="Only versions of this owner.", autocompletion=complete_owners),
    ] = "",
    quiet: QuietOption = False,
    form: FormatOption = Format.TABLE,
) -> int:
    """List registered versions, oldest first. An owner's token shows that owner's versions."""
    request = pb.ListModelsRequest(owner=owner)
    pages = connection.pages(lambda stub: stub.ListModels, request)
    records = [record for page in pages for record in page.models]
    if quiet:
        for record in records:
            print_line(record.id)
    else:
        _show(records, form)
    return 0


app.command(epilog=SHOW_EXAMPLES)(show)
app.command(epilog=LINEAGE_EXAMPLES)(lineage)
app.command(epilog=EXPORT_EXAMPLES)(export)


def _kept_record(folder: Path, owner: str, model_id: str) -> ModelRecord:
    """Return the record of a version in the folder of its owner's models."""
    from disinherit.client.store.store import ModelStore

    if not (folder / "index.db").is_file():
        raise GraphError(
            f"Expected a file of weights, or the folder of an owner's models, but {folder} has no "
            "index.db."
        )
    store = ModelStore(folder, owner)
    try:
        return replace(store.record(model_id), created_us=0)  # the coordinator sets the time
    finally:
        store.close()


def _record_of_file(
    file: Path, owner: str, model_id: str, labels: list[str], provenance: Provenance | None
) -> ModelRecord:
    """Return the record of a version whose weights are in a file."""
    # Imported here because torch takes seconds, which the other commands should not.
    from disinherit.common.models.heads import check_labels
    from disinherit.common.models.scope import architecture_fingerprint
    from disinherit.common.tensors.checkpoints import load_checkpoint, weights_digest

    weights = load_checkpoint(file)
    check_labels(labels, weights, model_id)
    return ModelRecord(
        model_id,
        owner,
        architecture_fingerprint(weights),
        tuple(labels),
        weights_digest(weights),
        created_us=0,  # the coordinator sets the time
        provenance=provenance,
    )


def _edges(
    model_id: str, parents: list[str], kinds: Sequence[str], renamed: list[str], recipe: str
) -> list[Inheritance]:
    """Return the edges from a version's parents, in their order."""
    if len(kinds) not in (1, len(parents)):
        raise GraphError(
            f"Expected --kind once, or once for each of {len(parents)} parents, but got it "
            f"{len(kinds)} times."
        )
    names: dict[str, dict[str, str]] = {}
    for text in renamed:
        of, _, classes = text.partition(":")
        before, _, here = classes.partition("=")
        if not (of and before and here):
            raise GraphError(f"Expected PARENT:CLASS=NAME, but got {text!r}.")
        names.setdefault(of, {})[before] = here
    computed = as_recipe(recipe) if recipe else None
    edges = [
        Inheritance(
            name or text,
            model_id,
            as_kind(kinds[(place - 1) % len(kinds)]),
            _number(text, weight) if name else 1.0,
            names.pop(name or text, {}),
            recipe=computed,
            place=place if computed else 0,
        )
        for place, (text, name, weight) in enumerate(_pairs(parents), 1)
    ]
    if names:
        raise GraphError(f"Expected --rename for a --parent, but got it for {min(names)!r}.")
    return edges


def _pairs(texts: list[str]) -> list[tuple[str, str, str]]:
    """Return each text with the parts before and after its last `=`."""
    return [(text, text.rpartition("=")[0], text.rpartition("=")[2]) for text in texts]


def _number(text: str, number: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise GraphError(f"Expected NAME=NUMBER, but got {text!r}.") from None


def _show(records: "list[graph_pb2.ModelRecord]", form: Format) -> None:
    def status(record: graph_pb2.ModelRecord) -> str:
        return graph_pb2.ModelStatus.Name(record.status).removeprefix("MODEL_STATUS_").lower()

    if form is Format.JSON:
        print_json(
            [
                {
                    "id": record.id,
                    "owner": record.owner,
                    "status": status(record),
                    "created": as_time(record.created_us),
                    "labels": list(record.labels),
                    "architecture": record.architecture,
                    "digest": record.digest,
                    "fisher_digest": record.fisher_digest or None,
                }
                for record in records
            ]
        )
        return
    wide = form is Format.WIDE
    print_table(
        ["model", "owner", "status", "created", "digest", *(["labels"] if wide else [])],
        [
            [
                record.id,
                record.owner,
                state_text(status(record)),
                as_time(record.created_us) if wide else ago(record.created_us),
                record.digest if wide else record.digest[:12],
                *([", ".join(record.labels)] if wide else []),
            ]
            for record in records
        ],
        whole=("model", "status", "digest"),
        empty="No models yet. Register one: disinherit model register FILE --id ID --owner OWNER "
        "--label CLASS",
    )
