"""Formats of the inheritance graph; each has its own module.

============  ==========  ======================================================
format        read back   description
============  ==========  ======================================================
`json`        yes         node-link JSON, for programs and version control
`graphml`     yes         GraphML, for Gephi, yEd and networkx
`protobuf`    yes         `disinherit.v1.Graph`, for stores and services
`dot`         no          Graphviz source, roots and affected versions coloured
`png`         no          a drawing with the same colours
============  ==========  ======================================================
"""

import hashlib
from collections.abc import Callable, Collection

from disinherit.common.audit.canonical import Json, canonical
from disinherit.common.errors import GraphError
from disinherit.common.graph.drawing import to_dot, to_png
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.json_text import from_graphml, from_json, to_graphml, to_json
from disinherit.common.graph.proto import from_protobuf, to_protobuf
from disinherit.common.text import did_you_mean

_TEXT_READERS = {"json": from_json, "graphml": from_graphml}
_WRITERS: dict[str, Callable[[InheritanceGraph], str | bytes]] = {
    "json": to_json,
    "graphml": to_graphml,
    "protobuf": to_protobuf,
}
_DRAWERS: dict[str, Callable[..., str | bytes]] = {"dot": to_dot, "png": to_png}

FORMATS = (*_WRITERS, *_DRAWERS)
BINARY = ("protobuf", "png")
"""Those of `FORMATS` that are no text."""


def load_graph(data: str | bytes, format: str) -> InheritanceGraph:
    """Read a graph written by `dump_graph`.

    Args:
        data: the graph; text formats also as UTF-8 bytes.
        format: `json`, `graphml` or `protobuf`.

    Raises:
        GraphError: if the format is unknown or only a drawing, the data does not fit the format, or
            a model or an edge is refused.
        LabelError: if a label mapping does not fit.

    Example:
        >>> load_graph(dump_graph(InheritanceGraph(), "json"), "json")
        InheritanceGraph(0 models, 0 edges)
    """
    if format not in _WRITERS:
        _check_format(format)
        raise GraphError(
            f"Expected a graph in one of the formats {', '.join(_WRITERS)}, but got {format}, "
            f"which is a drawing; export the graph in one of the others."
        )
    if format in _TEXT_READERS:
        return _TEXT_READERS[format](_text(data, format))
    if isinstance(data, str):
        raise GraphError(f"Expected bytes to read as {format}, but got text.")
    return from_protobuf(data)


def dump_graph(
    graph: InheritanceGraph,
    format: str,
    roots: Collection[str] = (),
    *,
    cleansed: Collection[str] = (),
    folded: bool = False,
) -> str | bytes:
    """Write a graph in one of `FORMATS`.

    Args:
        graph: the graph to write.
        format: `json`, `graphml`, `protobuf`, `dot` or `png`.
        roots: roots of a request, coloured in a drawing; the other formats hold the graph alone.
        cleansed: successors that the request's campaign made, as in `InheritanceGraph.affected`.
        folded: whether a drawing shows all versions of a model as one; the other formats hold all.

    Returns:
        Text for `json`, `graphml` and `dot`, bytes for `protobuf` and `png`.

    Raises:
        GraphError: if the format is unknown, the graph refuses the roots or the cleansed versions,
            the format cannot hold a value, or matplotlib is needed but not installed.
    """
    _check_format(format)
    if roots:
        graph.affected(roots, cleansed=cleansed)  # refuses a mistyped id in every format
    if format in _DRAWERS:
        return _DRAWERS[format](graph, roots, cleansed=cleansed, folded=folded)
    return _WRITERS[format](graph)


def _check_format(format: str) -> None:
    if format not in FORMATS:
        raise GraphError(
            f"Expected a graph format among {', '.join(FORMATS)}, but got {format!r}; choose one "
            f"of these.{did_you_mean(format, FORMATS)}"
        )


def _text(data: str | bytes, format: str) -> str:
    if isinstance(data, str):
        return data
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise GraphError(f"Expected {format} as UTF-8 text, but {error}.") from error


def lineage_digest(graph: InheritanceGraph, models: Collection[str]) -> str:
    """Return the SHA-256 of some versions and all edges that lead to them.

    It covers canonical JSON `{"edges": [[parent, child, kind, weight, labels], ...], "models":
    [[id, owner, architecture, digest], ...]}`, both sorted, with the weight as text; the recipe and
    the place follow in edges that have them.  Fields that
    may change later without a change of lineage (status, Fisher summary, source) are not covered.

    Args:
        graph: graph with the versions and their parents.
        models: ids of the versions.

    Returns:
        64 hexadecimal digits.

    Raises:
        GraphError: if a version is unknown.
    """
    records = [graph.model(model) for model in sorted(models)]
    edges: list[Json] = [
        [
            edge.parent,
            edge.child,
            edge.kind.value,
            repr(float(edge.weight)),
            dict(edge.labels),
            *((str(edge.recipe), edge.place) if edge.recipe else ()),
        ]
        for record in records
        for edge in sorted(graph.parents(record.id), key=lambda edge: edge.parent)
    ]
    versions: list[Json] = [
        [record.id, record.owner, record.architecture, record.digest] for record in records
    ]
    return hashlib.sha256(canonical({"edges": edges, "models": versions})).hexdigest()
