"""Sources of inheritance graphs for commands: a run, a database, a file, or the coordinator."""

from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.connection import Connection
from disinherit.common.errors import GraphError
from disinherit.common.graph.formats import load_graph
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.documents.campaign.gathering import gather_graph

SourceArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[SOURCE]",
        help="A run's folder, a coordinator database, or a .json, .graphml or .pb file; by default "
        "the coordinator at --server.",
    ),
]
RootsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--root",
        metavar="MODEL",
        help="Mark the models affected by a request at this root. Repeat.",
    ),
]


_EXPORTED = {".json": "json", ".graphml": "graphml", ".pb": "protobuf", ".protobuf": "protobuf"}
"""Suffix of a file -> format of the graph in it."""


def find_graph(source: Path | None, connection: Connection) -> InheritanceGraph:
    """Return the graph of a source, or that of the coordinator if there is none.

    Raises:
        DisinheritError: if it does not exist, or the call fails.
    """
    return gather_graph(connection) if source is None else read_graph(source)


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
    if path.suffix in _EXPORTED:
        return load_graph(path.read_bytes(), _EXPORTED[path.suffix])
    # Imported here: a graph of the coordinator or of a file needs no database, nor its extra.
    from disinherit.server.store.store import CoordinatorStore

    store = CoordinatorStore(path)
    try:
        return store.graph()
    finally:
        store.close()


def mark_roles(graph: InheritanceGraph, roots: list[str]) -> dict[str, str]:
    """Return version -> root, affected or untouched; nothing without roots.

    Raises:
        GraphError: if a root is unknown.
    """
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
