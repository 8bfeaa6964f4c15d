"""`disinherit graph`: view and export of an inheritance graph."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import click
import typer

from disinherit.cli.checked import STANDARD_OUTPUT, file_to_write
from disinherit.cli.commands import Commands
from disinherit.cli.connection import Connection, connected
from disinherit.cli.graph_discover import EXAMPLES as DISCOVER
from disinherit.cli.graph_discover import discover_graph
from disinherit.cli.graph_import import EXAMPLES, import_graph
from disinherit.cli.graph_sources import (
    RootsOption,
    SourceArgument,
    find_graph,
    mark_roles,
    read_graph,
)
from disinherit.cli.graph_tree import EXAMPLES as TREE
from disinherit.cli.graph_tree import tree
from disinherit.cli.lineages import describe
from disinherit.cli.output import Format, FormatOption, QuietOption, print_json, print_line
from disinherit.cli.tables import Cell, print_table, state_text
from disinherit.common.errors import GraphError, InputError
from disinherit.common.files import write_atomic
from disinherit.common.graph.formats import BINARY, FORMATS, dump_graph
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.lineages import fold_versions
from disinherit.common.graph.records import Inheritance

__all__ = ["app", "read_graph"]

SHOW = (
    "Examples:\n\n"
    "disinherit graph show runs/demo --root r1\n\n"
    "disinherit graph show --server fleet.org:50051 --all-versions"
)
EXPORT = (
    "Examples:\n\n"
    "disinherit graph export runs/demo --as svg --out umig.svg --root r1\n\n"
    "disinherit graph export --as svg --out near.svg --around r4 --depth 3\n\n"
    "disinherit graph export --as json --out graph.json"
)
_EMPTY = "No models yet. Register one, or read a family: disinherit graph import FOLDER"

app = Commands("Show, export or import an inheritance graph.")
app.command("tree", epilog=TREE)(tree)


@app.command(epilog=SHOW)
@connected
def show(
    connection: Connection,
    source: SourceArgument = None,
    root: RootsOption = None,
    all_versions: Annotated[
        bool,
        typer.Option(
            "--all-versions", help="Each version on its own line, those that were replaced, too."
        ),
    ] = False,
    quiet: QuietOption = False,
    form: FormatOption = Format.TABLE,
) -> int:
    """List the models, parents first, and those that a request at given roots would affect.

    What unlearning made of a model is on the model's own line. JSON has every version.
    """
    graph = find_graph(source, connection)
    roles = mark_roles(graph, root or [])
    if form is Format.JSON:
        print_json(_versions(graph, roles))
    elif quiet:
        models = fold_versions(graph).values()
        for id in (one.id for one in (graph.models() if all_versions else models)):
            print_line(id)
    else:
        titles = ["gen.", "model", "owner", "status", "derived from", *(["role"] if roles else [])]
        listed = _of_versions if all_versions else _of_models
        rows = [row[: len(titles)] for row in listed(graph, roles)]
        print_table(titles, rows, whole=("model", "status", "role"), empty=_EMPTY)
    return 0


def _versions(graph: InheritanceGraph, roles: dict[str, str]) -> list[dict[str, object]]:
    return [
        {
            "id": record.id,
            "owner": record.owner,
            "generation": level,
            "parents": {edge.parent: edge.weight for edge in graph.parents(record.id)},
            **_sources(graph.parents(record.id)),
            "status": record.status.value,
            "role": roles.get(record.id),
            "digest": record.digest,
        }
        for level, ids in enumerate(graph.generations())
        for record in map(graph.model, ids)
    ]


def _of_versions(graph: InheritanceGraph, roles: dict[str, str]) -> list[list[Cell]]:
    return [
        [
            *(str(level), record.id, record.owner, state_text(record.status.value)),
            *(_derivation(graph.parents(record.id)), roles.get(record.id)),
        ]
        for level, ids in enumerate(graph.generations())
        for record in map(graph.model, ids)
    ]


def _of_models(graph: InheritanceGraph, roles: dict[str, str]) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for id, model in fold_versions(graph).items():
        held = {roles.get(version.id) for version in model.versions}
        role = "root" if "root" in held else roles.get(id)
        rows.append(
            [
                *(str(model.generation), id, model.owner, describe(model)),
                *(_derivation(model.parents), role),
            ]
        )
    return rows


def _derivation(edges: Iterable[Inheritance]) -> str:
    return ", ".join(
        f"{edge.parent} ({edge.kind.value}, {edge.weight:g}{_source(edge)})" for edge in edges
    )


app.command("import", epilog=EXAMPLES)(import_graph)
app.command("discover", epilog=DISCOVER)(discover_graph)


@app.command(epilog=EXPORT)
@connected
def export(
    connection: Connection,
    form: Annotated[
        str,
        typer.Option(
            "--as",
            "--format",
            click_type=click.Choice([*FORMATS, "svg"]),
            help="For programs: json, graphml, protobuf. Drawn: dot, png, svg.",
        ),
    ],
    source: SourceArgument = None,
    out: Annotated[
        str | None,
        file_to_write(
            metavar="FILE",
            help="File to write, or -; standard output by default.",
        ),
    ] = None,
    root: RootsOption = None,
    around: Annotated[
        str, typer.Option(metavar="MODEL", help="With svg: only what is near this model.")
    ] = "",
    depth: Annotated[
        int | None, typer.Option(min=0, help="With --around: so many generations away, or 2.")
    ] = None,
    whole: Annotated[
        bool,
        typer.Option(
            "--all", help="With dot and png: every version; with svg: untouched models too."
        ),
    ] = False,
) -> int:
    """Write the graph in another format; dot, png and svg mark the affected models.

    They draw each model once, with what it forgot.
    """
    if form != "svg" and around:
        raise InputError(f"Expected --around with --as svg only, but got --as {form}.")
    if form not in ("dot", "png", "svg") and whole:
        raise InputError(f"Expected --all with --as dot, png or svg, but got --as {form}.")
    if depth is not None and not around:
        raise InputError("Expected --depth with --around MODEL, but got it alone.")
    if out is None and form in BINARY and sys.stdout.isatty():
        raise GraphError(
            f"Expected --out with {form}, as a terminal cannot show it, but got none. Name a file, "
            "or write it to the terminal all the same with --out -."
        )
    graph = find_graph(source, connection)
    if form == "svg":
        data: str | bytes = _draw(graph, root or [], around, depth, whole=whole)
    else:
        data = dump_graph(graph, form, root or [], folded=not whole)
    content = data.encode() if isinstance(data, str) else data
    if out is not None and out != STANDARD_OUTPUT:
        write_atomic(Path(out), content)
        return 0
    sys.stdout.buffer.write(content)
    sys.stdout.flush()
    return 0


def _draw(
    graph: InheritanceGraph, roots: list[str], around: str, depth: int | None, *, whole: bool
) -> str:
    # Imported here: templates take time, which other commands should not need.
    from disinherit.documents.lineage.standalone import draw_file

    return draw_file(graph, roots, around=around, depth=depth, whole=whole)


def _source(edge: Inheritance) -> str:
    return f"; {edge.source} {edge.confidence:g}" if edge.source else ""


def _sources(edges: Iterable[Inheritance]) -> dict[str, object]:
    """Return source and confidence of edges that an import read; nothing if there are none."""
    found = {
        edge.parent: {"source": edge.source, "confidence": edge.confidence}
        for edge in edges
        if edge.source
    }
    return {"sources": found} if found else {}
