"""`disinherit graph`: view and export of an inheritance graph."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from disinherit.cli.commands import Commands
from disinherit.cli.graph_discover import EXAMPLES as DISCOVER
from disinherit.cli.graph_discover import discover_graph
from disinherit.cli.graph_import import EXAMPLES, import_graph
from disinherit.cli.output import Format, FormatOption, print_json, print_rich
from disinherit.common.errors import GraphError
from disinherit.common.files import write_atomic
from disinherit.common.graph.formats import FORMATS, dump_graph, load_graph
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import Inheritance
from disinherit.server.store.store import CoordinatorStore

SHOW = "Example: disinherit graph show runs/demo --root r1"
EXPORT = "Example: disinherit graph export runs/demo --as png --out umig.png --root r1"

app = Commands("Show, export or import an inheritance graph.")
app.command("import", epilog=EXAMPLES)(import_graph)
app.command("discover", epilog=DISCOVER)(discover_graph)

Source = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE", help="A run's folder, a coordinator database, or a .json/.graphml file."
    ),
]
Roots = Annotated[
    list[str] | None,
    typer.Option("--root", help="Mark the models affected by a request at this root."),
]


@app.command(epilog=SHOW)
def show(source: Source, root: Roots = None, form: FormatOption = Format.TABLE) -> int:
    """List the models, parents first, and those that a request at given roots would affect."""
    graph = read_graph(source)
    roles = _roles(graph, root or [])
    if form is Format.JSON:
        print_json(
            [
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
        )
        return 0
    table = Table("generation", "model", "owner", "derived from", "status", box=None)
    if roles:
        table.add_column("role")
    for level, ids in enumerate(graph.generations()):
        for record in map(graph.model, ids):
            parents = ", ".join(
                f"{edge.parent} ({edge.kind.value}, {edge.weight:g}{_source(edge)})"
                for edge in graph.parents(record.id)
            )
            role = [roles[record.id]] if roles else []
            table.add_row(str(level), record.id, record.owner, parents, record.status.value, *role)
    print_rich(table)
    return 0


@app.command(epilog=EXPORT)
def export(
    source: Source,
    form: Annotated[
        str,
        typer.Option(
            "--as",
            "--format",
            help="json, graphml, dot, png, protobuf.",
            autocompletion=lambda: list(FORMATS),
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="File to write; standard output by default.")
    ] = None,
    root: Roots = None,
) -> int:
    """Write the graph in another format; dot and png mark the affected models."""
    data = dump_graph(read_graph(source), form, root or [])
    content = data.encode() if isinstance(data, str) else data
    if out is not None:
        write_atomic(out, content)
    else:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
    return 0


def read_graph(source: Path) -> InheritanceGraph:
    """Return the graph of a run's folder, a coordinator database or an exported file.

    Raises:
        GraphError: if it does not exist or holds no graph.
    """
    path = source / "coordinator.db" if source.is_dir() else source
    if not path.is_file():
        raise GraphError(
            f"Expected a run's folder, a coordinator database or an exported graph, but got "
            f"{str(source)!r}, which does not exist or holds no graph."
        )
    if path.suffix in (".json", ".graphml"):
        return load_graph(path.read_bytes(), path.suffix[1:])
    store = CoordinatorStore(path)
    try:
        return store.graph()
    finally:
        store.close()


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


def _roles(graph: InheritanceGraph, roots: list[str]) -> dict[str, str]:
    if not roots:
        return {}
    affected = set(graph.affected(roots))
    return {
        record.id: "root"
        if record.id in roots
        else "affected"
        if record.id in affected
        else "untouched"
        for record in graph.models()
    }
