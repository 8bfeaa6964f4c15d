"""`disinherit graph import`: families of models that others recorded, into a graph."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from disinherit.cli.checked import file_to_write
from disinherit.cli.connection import Connection, connected
from disinherit.cli.output import Format, FormatOption, print_json, print_line, print_rich
from disinherit.common.errors import GraphError, InputError
from disinherit.common.files import write_atomic
from disinherit.common.graph.formats import dump_graph, load_graph
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.proto import (
    inheritance_to_proto,
    record_to_proto,
)
from disinherit.common.limits import BATCH_BYTES
from disinherit.documents.campaign.gathering import gather_graph
from disinherit.v1 import coordinator_pb2 as pb

if TYPE_CHECKING:
    from disinherit.families.importing import Imported
    from disinherit.server.store.store import CoordinatorStore

_FORMATS = (".json", ".graphml")
_SHOWN = 20
_BATCH = 200
_BATCH_BYTES = BATCH_BYTES.most // 2
EXAMPLES = (
    "Examples:\n\n"
    "disinherit graph import ~/.cache/huggingface/hub --out family.json\n\n"
    "disinherit graph import models edges.csv --store coordinator.db --owner anna\n\n"
    "disinherit graph import models --dry-run"
)


@connected
def import_graph(
    connection: Connection,
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...",
            help="Folders of models, the Hugging Face cache, MLflow's mlruns; or edge lists "
            "(.csv, .json), dvc.lock, databases of MLflow (.db).",
        ),
    ],
    origin: Annotated[
        Literal["auto", "models", "mlflow", "dvc", "edges"],
        typer.Option("--from", help="What the sources are."),
    ] = "auto",
    out: Annotated[
        Path | None,
        file_to_write(help="A .json or .graphml file to write or to update."),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="A coordinator's database, or a folder that has one.")
    ] = None,
    owner: Annotated[str, typer.Option(help="Owner of the versions that are new.")] = "local",
    alias: Annotated[
        list[str] | None,
        typer.Option(help="PARENT=MODEL: what a renamed parent is called here. Repeat."),
    ] = None,
    at_least: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Confidence below which an edge is listed and not recorded."
        ),
    ] = 0.0,
    declare: Annotated[
        bool,
        typer.Option(
            "--declare",
            help="Let names in edge lists that no other source has become models without weights. "
            "Without other sources, and registered versions, they do so anyway.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be recorded.")
    ] = False,
    form: FormatOption = Format.TABLE,
) -> int:
    """Record who was derived from whom by cards, configs and registries, with source and doubts.

    Without --out and --store, versions are registered at the coordinator. Nothing is fetched from
    the network, and nothing in a file is run. Importing again changes only what has changed.
    """
    from disinherit.families.importing import Origin, import_families

    if out is not None and store is not None:
        raise GraphError("Expected --out or --store, but got both.")
    aliases = dict(_alias(text) for text in alias or [])
    database = None if store is None else store / "coordinator.db" if store.is_dir() else store
    known: InheritanceGraph | Callable[[], InheritanceGraph] | None
    if database is not None:
        known = _of_database(database)
    elif out is not None:
        known = _read_file(out)
    else:
        known = None if dry_run else partial(gather_graph, connection)
    imported = import_families(
        sources,
        origin=Origin(origin),
        owner=owner,
        aliases=aliases,
        at_least=at_least,
        known=known,
        registered=out is None,
        declare=declare,
    )
    refused: list[Exception] = []
    if dry_run:
        pass
    elif database is not None:
        refused = _record(imported, database)
    elif out is not None:
        _write_file(imported, out)
    else:
        refused = list(_register(imported, connection))
    _show(imported, refused, form)
    return 1 if refused else 0


def _of_database(path: Path) -> InheritanceGraph:
    """Return the graph in a coordinator's database; one that is not there is not made yet."""
    if not path.exists():
        return InheritanceGraph()
    with _opened(path) as database:
        return database.graph()


def _record(imported: "Imported", path: Path) -> list[Exception]:
    """Record versions in a coordinator's database, which is made if need be; return refusals."""
    from disinherit.server.service.confirming import PERSON

    with _opened(path) as database:
        return database.add_imported(imported.graph, imported.changed, actor=PERSON)


@contextmanager
def _opened(path: Path) -> "Iterator[CoordinatorStore]":
    from disinherit.server.store.store import CoordinatorStore

    with closing(CoordinatorStore(path)) as database:
        yield database


def _write_file(imported: "Imported", out: Path) -> None:
    if imported.changed or not out.exists():
        data = dump_graph(imported.graph, out.suffix[1:])
        write_atomic(out, data.encode() if isinstance(data, str) else data)


def _register(imported: "Imported", connection: Connection) -> Iterator[Exception]:
    for answer in connection.exchange(lambda stub: stub.RegisterModels, _batches(imported)):
        yield from (InputError(model.refused) for model in answer.models if model.refused)


def _batches(imported: "Imported") -> Iterator[pb.RegisterModelsRequest]:
    batch, size = pb.RegisterModelsRequest(), 0
    for id in imported.changed:
        parents = map(inheritance_to_proto, imported.graph.parents(id))
        record = record_to_proto(imported.graph.model(id))
        message = pb.RegisterModelRequest(record=record, parents=parents)
        if len(batch.models) == _BATCH or (size and size + message.ByteSize() > _BATCH_BYTES):
            yield batch
            batch, size = pb.RegisterModelsRequest(), 0
        batch.models.append(message)
        size += message.ByteSize()
    if batch.models:
        yield batch


def _read_file(path: Path) -> InheritanceGraph:
    if path.suffix not in _FORMATS:
        raise GraphError(
            f"Expected --out to end with {' or '.join(_FORMATS)}, but got {str(path)!r}."
        )
    return load_graph(path.read_bytes(), path.suffix[1:]) if path.exists() else InheritanceGraph()


def _alias(text: str) -> tuple[str, str]:
    name, equals, model = text.partition("=")
    if not (name and equals and model):
        raise GraphError(f"Expected PARENT=MODEL as --alias, but got {text!r}.")
    return name, model


def _show(imported: "Imported", refused: list[Exception], form: Format) -> None:
    graph = imported.graph
    changed = set(imported.changed)
    edges = [edge for edge in graph.edges() if edge.source]
    if form is Format.JSON:
        print_json(
            {
                "models": imported.models,
                "changed": list(imported.changed),
                "edges": [
                    {
                        "parent": edge.parent,
                        "parent_digest": graph.model(edge.parent).digest or None,
                        "child": edge.child,
                        "kind": edge.kind.value,
                        "weight": edge.weight,
                        "recipe": edge.recipe and str(edge.recipe),
                        "source": edge.source,
                        "confidence": edge.confidence,
                        "changed": edge.child in changed,
                    }
                    for edge in edges
                ],
                "findings": [
                    {"kind": one.kind.value, "model": one.model, "text": one.text}
                    for one in imported.findings
                ],
                "refused": list(map(str, refused)),
            }
        )
        return
    table = Table(box=None)
    for column in ("child", "parent (weights)", "kind", "source"):
        table.add_column(column, overflow="fold")
    for edge in edges:
        if edge.child in changed:
            pinned = graph.model(edge.parent).digest[:8] or "not pinned"
            how = f", {edge.recipe.name}" if edge.recipe else ""
            table.add_row(
                edge.child,
                f"{edge.parent} ({pinned})",
                f"{edge.kind.value} {edge.weight:.3g}{how}",
                f"{edge.source} {edge.confidence:g}",
            )
    print_rich(table)
    seen: dict[str, int] = {}
    for one in imported.findings:
        kind = one.kind.value
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= _SHOWN:
            print_line(f"{kind}: {one.model}: {one.text}")
    for kind, count in seen.items():
        if count > _SHOWN:
            print_line(f"{kind}: {count - _SHOWN} more; --format json lists all")
    for error in refused:
        print_line(f"refused: {error}")
    print_line(
        f"{imported.models} models read, {len(changed)} versions new or changed, "
        f"{len(imported.findings)} findings"
    )
