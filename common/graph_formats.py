"""The inheritance graph as protobuf, node-link JSON, GraphML, DOT and PNG.

What is written is ordered by age and id, so equal graphs give equal text. What is read is checked
as any change of a graph is, and must be complete (`InheritanceGraph.validate`). Keys and
attributes beyond those of the schema are ignored.
"""

import io
import json
from collections.abc import Collection, Mapping
from enum import StrEnum
from types import UnionType
from typing import Any, TypeVar
from xml.etree.ElementTree import ParseError

import networkx as nx
from google.protobuf.message import DecodeError

from disinherit.common.errors import GraphError
from disinherit.common.graph import InheritanceGraph
from disinherit.common.records import (
    Inheritance,
    InheritanceKind,
    ModelRecord,
    ModelStatus,
    Provenance,
)
from disinherit.v1 import graph_pb2

SCHEMA_VERSION = 1

_Enum = TypeVar("_Enum", bound=StrEnum)

# Distinct without colour vision, too.
_COLOURS = {"root": "#d55e00", "affected": "#f0c36d", "untouched": "#ffffff"}


def record_to_proto(record: ModelRecord) -> graph_pb2.ModelRecord:
    """Convert a version to its message.

    Raises:
        GraphError: if protobuf cannot hold a value, such as a time beyond 64 bits.
    """
    try:
        message = graph_pb2.ModelRecord(
            id=record.id,
            owner=record.owner,
            architecture=record.architecture,
            labels=record.labels,
            digest=record.digest,
            created_us=record.created_us,
            fisher_digest=record.fisher_digest,
            status=f"MODEL_STATUS_{record.status.name}",
        )
        if record.provenance is not None:
            message.provenance.dataset = record.provenance.dataset
            message.provenance.samples_per_class.update(record.provenance.samples_per_class)
            message.provenance.sample_set_digest = record.provenance.sample_set_digest
            message.provenance.SetInParent()
    except ValueError as error:
        raise GraphError(f"Expected model {record.id!r} to fit protobuf, but {error}.") from error
    return message


def record_from_proto(message: graph_pb2.ModelRecord) -> ModelRecord:
    """Convert a message to the version it describes.

    Raises:
        GraphError: if a value is malformed, or the status is unset or unknown.
    """
    provenance = None
    if message.HasField("provenance"):
        provenance = Provenance(
            message.provenance.dataset,
            message.provenance.samples_per_class,
            message.provenance.sample_set_digest,
        )
    status = graph_pb2.ModelStatus.items()
    return ModelRecord(
        id=message.id,
        owner=message.owner,
        architecture=message.architecture,
        labels=tuple(message.labels),
        digest=message.digest,
        created_us=message.created_us,
        provenance=provenance,
        fisher_digest=message.fisher_digest,
        status=_from_number(ModelStatus, status, message.status, f"model {message.id!r}"),
    )


def inheritance_to_proto(edge: Inheritance) -> graph_pb2.Inheritance:
    """Convert an edge to its message.

    Raises:
        GraphError: if protobuf cannot hold a value, such as a lone surrogate in a class name.
    """
    try:
        return graph_pb2.Inheritance(
            parent=edge.parent,
            child=edge.child,
            kind=f"INHERITANCE_KIND_{edge.kind.name}",
            weight=edge.weight,
            labels=edge.labels,
        )
    except ValueError as error:
        name = f"{edge.parent!r} -> {edge.child!r}"
        raise GraphError(f"Expected inheritance {name} to fit protobuf, but {error}.") from error


def inheritance_from_proto(message: graph_pb2.Inheritance) -> Inheritance:
    """Convert a message to the edge it describes.

    Raises:
        GraphError: if the kind is unset or unknown.
    """
    kinds = graph_pb2.InheritanceKind.items()
    where = f"inheritance {message.parent!r} -> {message.child!r}"
    return Inheritance(
        parent=message.parent,
        child=message.child,
        kind=_from_number(InheritanceKind, kinds, message.kind, where),
        weight=message.weight,
        labels=message.labels,
    )


def graph_to_proto(graph: InheritanceGraph) -> graph_pb2.Graph:
    """Convert a graph to its message.

    Raises:
        GraphError: if protobuf cannot hold a value.
    """
    return graph_pb2.Graph(
        schema_version=SCHEMA_VERSION,
        models=map(record_to_proto, graph.models()),
        edges=map(inheritance_to_proto, graph.edges()),
    )


def graph_from_proto(message: graph_pb2.Graph) -> InheritanceGraph:
    """Convert a message to the graph it describes.

    Raises:
        GraphError: if the schema version is unknown, or a model or an edge is refused.
        LabelError: if a label mapping does not fit.
    """
    _check_version(message.schema_version)
    return InheritanceGraph(
        map(record_from_proto, message.models), map(inheritance_from_proto, message.edges)
    )


def to_protobuf(graph: InheritanceGraph) -> bytes:
    """Serialise a graph as `disinherit.v1.Graph`; equal graphs give equal bytes.

    Raises:
        GraphError: if protobuf cannot hold a value.
    """
    return bytes(graph_to_proto(graph).SerializeToString(deterministic=True))


def from_protobuf(data: bytes) -> InheritanceGraph:
    """Read a graph from a serialised `disinherit.v1.Graph`.

    Raises:
        GraphError: if the bytes are no such message, or `graph_from_proto` refuses it.
        LabelError: if a label mapping does not fit.
    """
    try:
        message = graph_pb2.Graph.FromString(data)
    except DecodeError as error:
        raise GraphError(f"Expected a serialised inheritance graph, but {error}.") from error
    return graph_from_proto(message)


def to_json(graph: InheritanceGraph) -> str:
    """Write a graph as node-link JSON: `{"schema_version": 1, "models": [...], "edges": [...]}`.

    The keys of a model and an edge are those of `ModelRecord` and `Inheritance`.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "models": [_record_to_dict(record) for record in graph.models()],
        "edges": [_edge_to_dict(edge) for edge in graph.edges()],
    }
    return json.dumps(content, indent=2) + "\n"


def from_json(text: str) -> InheritanceGraph:
    """Read a graph that `to_json` wrote.

    Raises:
        GraphError: if the text is no JSON, a key is missing, a value has another type than
            expected, the schema version is unknown, or a model or an edge is refused.
        LabelError: if a label mapping does not fit.
    """
    content = _parse_json(text, "the graph")
    _check_version(_take(content, "schema_version", int, "the graph"))
    models = enumerate(_take(content, "models", list, "the graph"))
    edges = enumerate(_take(content, "edges", list, "the graph"))
    return InheritanceGraph(
        [_record_from_dict(data, f"models[{index}]") for index, data in models],
        [_edge_from_dict(data, f"edges[{index}]") for index, data in edges],
    )


def to_graphml(graph: InheritanceGraph) -> str:
    """Write a graph as GraphML; label spaces, mappings and provenance are JSON strings in it.

    Raises:
        GraphError: if an architecture or a digest has characters that XML does not keep.
    """
    plain = nx.DiGraph(schema_version=SCHEMA_VERSION)
    for record in graph.models():
        for name in ("architecture", "digest", "fisher_digest"):
            value = getattr(record, name)
            if not value.isprintable() or value != value.strip():
                raise GraphError(
                    f"Expected {name} of model {record.id!r} to be printable, but got {value!r}."
                )
        plain.add_node(record.id, **_flat(_record_to_dict(record), ("labels", "provenance")))
    for edge in graph.edges():
        plain.add_edge(edge.parent, edge.child, **_flat(_edge_to_dict(edge), ("labels",)))
    buffer = io.BytesIO()
    nx.write_graphml_xml(plain, buffer)
    return buffer.getvalue().decode() + "\n"


def from_graphml(text: str) -> InheritanceGraph:
    """Read a graph that `to_graphml` wrote.

    Raises:
        GraphError: if the text is no directed GraphML, an attribute is missing or malformed, the
            schema version is unknown, or a model or an edge is refused.
        LabelError: if a label mapping does not fit.
    """
    try:
        plain = nx.read_graphml(io.BytesIO(text.encode()))
    # networkx does not check what it reads: malformed files surface as any of these.
    except (
        ParseError,
        nx.NetworkXError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise GraphError(f"Expected an inheritance graph as GraphML, but {error}.") from error
    if not plain.is_directed():
        raise GraphError("Expected a directed GraphML graph, but got an undirected one.")
    _check_version(_take(plain.graph, "schema_version", int, "the graph"))
    models, edges = [], []
    for id, data in plain.nodes(data=True):
        where = f"node {id!r}"
        nested = _nested({**data, "id": id}, ("labels", "provenance"), where)
        models.append(_record_from_dict(nested, where))
    for parent, child, data in plain.edges(data=True):
        where = f"edge {parent!r} -> {child!r}"
        nested = _nested({**data, "parent": parent, "child": child}, ("labels",), where)
        edges.append(_edge_from_dict(nested, where))
    return InheritanceGraph(models, edges)


def to_dot(
    graph: InheritanceGraph, roots: Collection[str] = (), *, cleansed: Collection[str] = ()
) -> str:
    """Write a graph in Graphviz's DOT language, with roots and affected versions coloured.

    Args:
        graph: the graph to draw.
        roots: roots of a request; without them nothing is coloured.
        cleansed: successors the request's campaign made, as in `InheritanceGraph.affected`.

    Raises:
        GraphError: if the graph refuses the roots or the cleansed versions.
    """
    colours = _colours(graph, roots, cleansed)
    lines = [
        "digraph inheritance {",
        "  rankdir=LR;",
        "  node [shape=box, style=filled];",
    ]
    for record in graph.models():
        label = f"{_escape(record.id)}\\n{_escape(record.owner)}"
        lines.append(f'  "{record.id}" [label="{label}", fillcolor="{colours[record.id]}"];')
    for edge in graph.edges():
        parts = [f"{edge.kind} {edge.weight:.3g}" if edge.kind.merges else f"{edge.kind}"]
        parts += [f"{source} → {target}" for source, target in sorted(edge.labels.items())]
        style = ", style=dashed" if edge.kind is InheritanceKind.UNLEARNED else ""
        label = "\\n".join(map(_escape, parts))
        lines.append(f'  "{edge.parent}" -> "{edge.child}" [label="{label}"{style}];')
    return "\n".join([*lines, "}"]) + "\n"


def to_png(
    graph: InheritanceGraph, roots: Collection[str] = (), *, cleansed: Collection[str] = ()
) -> bytes:
    """Draw a graph from left to right by generation, coloured as by `to_dot`.

    Raises:
        GraphError: if matplotlib is not installed, or the graph refuses the roots or the cleansed
            versions.
    """
    colours = _colours(graph, roots, cleansed)
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise GraphError(
            "Expected matplotlib to draw a PNG, but it is not installed; run "
            "`pip install 'disinherit[simulation]'` or write DOT."
        ) from error
    generations = graph.generations()
    places = {
        id: (float(x), (len(ids) - 1) / 2 - row)
        for x, ids in enumerate(generations)
        for row, id in enumerate(ids)
    }
    # The raster has limits: a very large graph is drawn small rather than refused.
    width = min(max(2.0 * len(generations), 4), 60)
    height = min(max([0.9 * len(ids) for ids in generations], default=0) + 1.5, 60)
    figure = Figure(figsize=(width, height), dpi=100)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(-0.5, max(len(generations), 1) - 0.5)
    reach = max([len(ids) for ids in generations], default=0) / 2 + 0.5
    axes.set_ylim(-reach, reach)
    for edge in graph.edges():
        arrow = {
            "arrowstyle": "-|>",
            "connectionstyle": "arc3,rad=0.15",
            "shrinkA": 9,
            "shrinkB": 9,
            "color": "#555555",
            "linestyle": "--" if edge.kind is InheritanceKind.UNLEARNED else "-",
        }
        axes.annotate("", places[edge.child], places[edge.parent], arrowprops=arrow)
    for id, place in places.items():
        axes.plot(*place, "o", markersize=14, color=colours[id], markeredgecolor="black", zorder=3)
        name = id if len(id) <= 20 else f"{id[:19]}…"
        axes.annotate(
            name, place, (0, -12), textcoords="offset points", ha="center", va="top", fontsize=8
        )
    if roots:
        for role, colour in _COLOURS.items():
            axes.plot([], [], "o", color=colour, markeredgecolor="black", label=role)
        axes.legend(loc="upper left", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")  # without pyplot: always Agg, and no global state
    return buffer.getvalue()


def _check_version(version: int) -> None:
    if version != SCHEMA_VERSION:
        raise GraphError(
            f"Expected an inheritance graph of schema version {SCHEMA_VERSION}, but got "
            f"{version}; use a release of Disinherit that knows it."
        )


def _from_number(
    kind: type[_Enum], items: Collection[tuple[str, int]], number: int, where: str
) -> _Enum:
    name = next((name for name, value in items if value == number), "")
    for member in kind:
        if name.endswith(f"_{member.name}"):
            return member
    raise GraphError(
        f"Expected a {kind.__name__} that schema version {SCHEMA_VERSION} knows in {where}, but "
        f"got number {number}."
    )


def _from_name(kind: type[_Enum], name: str, where: str) -> _Enum:
    try:
        return kind(name)
    except ValueError as error:
        raise GraphError(
            f"Expected one of {[member.value for member in kind]} in {where}, but got {name!r}."
        ) from error


def _record_to_dict(record: ModelRecord) -> dict[str, Any]:
    provenance = record.provenance
    return {
        "id": record.id,
        "owner": record.owner,
        "architecture": record.architecture,
        "labels": list(record.labels),
        "digest": record.digest,
        "created_us": record.created_us,
        "provenance": None
        if provenance is None
        else {
            "dataset": provenance.dataset,
            "samples_per_class": dict(sorted(provenance.samples_per_class.items())),
            "sample_set_digest": provenance.sample_set_digest,
        },
        "fisher_digest": record.fisher_digest,
        "status": record.status.value,
    }


def _record_from_dict(data: object, where: str) -> ModelRecord:
    provenance = None
    given = _take(data, "provenance", dict | None, where)
    if given is not None:
        inside = f"the provenance of {where}"
        provenance = Provenance(
            _take(given, "dataset", str, inside),
            _take_map(given, "samples_per_class", int, inside),
            _take(given, "sample_set_digest", str, inside),
        )
    labels = _take(data, "labels", list, where)
    if not all(isinstance(label, str) for label in labels):
        raise GraphError(f"Expected class names in 'labels' of {where}, but got {labels!r:.80}.")
    return ModelRecord(
        id=_take(data, "id", str, where),
        owner=_take(data, "owner", str, where),
        architecture=_take(data, "architecture", str, where),
        labels=tuple(labels),
        digest=_take(data, "digest", str, where),
        created_us=_take(data, "created_us", int, where),
        provenance=provenance,
        fisher_digest=_take(data, "fisher_digest", str, where),
        status=_from_name(ModelStatus, _take(data, "status", str, where), where),
    )


def _edge_to_dict(edge: Inheritance) -> dict[str, Any]:
    return {
        "parent": edge.parent,
        "child": edge.child,
        "kind": edge.kind.value,
        "weight": float(edge.weight),
        "labels": dict(sorted(edge.labels.items())),
    }


def _edge_from_dict(data: object, where: str) -> Inheritance:
    return Inheritance(
        parent=_take(data, "parent", str, where),
        child=_take(data, "child", str, where),
        kind=_from_name(InheritanceKind, _take(data, "kind", str, where), where),
        weight=_take(data, "weight", int | float, where),
        labels=_take_map(data, "labels", str, where),
    )


def _parse_json(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GraphError(f"Expected {where} to be JSON, but {error}.") from error


def _take(data: object, key: str, kind: type | UnionType, where: str) -> Any:
    """Return `data[key]`, if `data` is an object with it and it is of this kind."""
    if not isinstance(data, Mapping):
        raise GraphError(f"Expected {where} to be an object, but got {data!r:.80}.")
    if key not in data:
        raise GraphError(f"Expected key {key!r} in {where}, but got only {list(data)!r:.120}.")
    value = data[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        name = getattr(kind, "__name__", str(kind))
        raise GraphError(f"Expected {key!r} of {where} to be {name}, but got {value!r:.80}.")
    return value


def _take_map(data: object, key: str, kind: type, where: str) -> dict[str, Any]:
    values = _take(data, key, dict, where)
    return {name: _take(values, name, kind, f"{key!r} of {where}") for name in values}


def _flat(data: Mapping[str, Any], nested: Collection[str]) -> dict[str, Any]:
    """GraphML attributes of a model or an edge: its ends are given elsewhere, the rest is flat."""
    ends = ("id", "parent", "child")
    return {
        key: json.dumps(value) if key in nested else value
        for key, value in data.items()
        if key not in ends
    }


def _nested(data: Mapping[str, Any], nested: Collection[str], where: str) -> dict[str, Any]:
    parsed = {
        key: _parse_json(_take(data, key, str, where), f"{key!r} of {where}") for key in nested
    }
    return {**data, **parsed}


def _colours(
    graph: InheritanceGraph, roots: Collection[str], cleansed: Collection[str]
) -> dict[str, str]:
    affected = graph.affected(roots, cleansed=cleansed) if roots else ()
    return (
        {record.id: _COLOURS["untouched"] for record in graph.models()}
        | dict.fromkeys(affected, _COLOURS["affected"])
        | dict.fromkeys(roots, _COLOURS["root"])
    )


def _escape(text: str) -> str:
    """Text as it must stand in a DOT label to be shown literally."""
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
    return shown.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')
