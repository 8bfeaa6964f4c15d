"""The inheritance graph as node-link JSON and GraphML.

Output is ordered by age and id, so equal graphs give equal text. Input is checked like any change
of a graph, and must be complete (`InheritanceGraph.validate`). Keys and
attributes beyond those of the schema are ignored.
"""

import io
import json
import sys
from collections.abc import Collection, Mapping
from typing import Annotated, Any, NotRequired, TypedDict, TypeVar
from xml.etree.ElementTree import ParseError

import networkx as nx
from msgspec import Meta

from disinherit.common.errors import GraphError, InputError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.proto import SCHEMA_VERSION, check_version
from disinherit.common.graph.recipes import as_recipe
from disinherit.common.graph.records import (
    FisherScale,
    Inheritance,
    InheritanceKind,
    ModelRecord,
    ModelStatus,
    Provenance,
)
from disinherit.common.settings import check
from disinherit.common.text import load_json

_NESTED = ("labels", "provenance", "fisher_scale")
_MOST = sys.float_info.max
_Finite = Annotated[float, Meta(ge=-_MOST, le=_MOST, description="a finite number")]

T = TypeVar("T")


class _Provenance(TypedDict):
    dataset: str
    samples_per_class: dict[str, int]
    sample_set_digest: str


class _Scale(TypedDict):
    scope: str
    sums: list[_Finite]
    head_values: NotRequired[int]  # files of 0.1.0 have none
    values: NotRequired[int]


class _Record(TypedDict):
    id: str
    owner: str
    architecture: str
    labels: list[str]
    digest: str
    created_us: int
    provenance: _Provenance | None
    fisher_digest: str
    status: ModelStatus
    fisher_scale: NotRequired[_Scale]


class _Edge(TypedDict):
    parent: str
    child: str
    kind: InheritanceKind
    weight: _Finite
    labels: dict[str, str]
    recipe: NotRequired[str]  # only where the child was computed without training
    place: NotRequired[int]
    source: NotRequired[str]  # only where an import read the edge
    confidence: NotRequired[_Finite]


class _Versioned(TypedDict):
    schema_version: int


class _Graph(TypedDict):
    models: list[_Record]
    edges: list[_Edge]


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
    """Read a graph written by `to_json`.

    Raises:
        GraphError: if the text is no JSON, a key is missing, a value has a wrong type, the schema
            version is unknown, or a model or an edge is refused.
        LabelError: if a label mapping does not fit.
    """
    content = _parse_json(text, "the graph")
    check_version(_checked(_Versioned, content, "the graph")["schema_version"])
    graph = _checked(_Graph, content, "the graph")
    return InheritanceGraph(
        map(_record_from_dict, graph["models"]), map(_edge_from_dict, graph["edges"])
    )


def to_graphml(graph: InheritanceGraph) -> str:
    """Write a graph as GraphML; label spaces, mappings and provenance are JSON strings in it.

    Raises:
        GraphError: if an architecture has characters that XML does not keep.
    """
    plain = nx.DiGraph(schema_version=SCHEMA_VERSION)
    for record in graph.models():
        if not record.architecture.isprintable() or record.architecture.strip() != (
            record.architecture
        ):
            raise GraphError(
                f"Expected architecture of model {record.id!r} to be printable, but got "
                f"{record.architecture!r}."
            )
        plain.add_node(record.id, **_flat(_record_to_dict(record), _NESTED))
    for edge in graph.edges():
        plain.add_edge(edge.parent, edge.child, **_flat(_edge_to_dict(edge), ("labels",)))
    buffer = io.BytesIO()
    nx.write_graphml_xml(plain, buffer)
    return buffer.getvalue().decode() + "\n"


def from_graphml(text: str) -> InheritanceGraph:
    """Read a graph written by `to_graphml`.

    Raises:
        GraphError: if the text is no directed GraphML, an attribute is missing or malformed, the
            schema version is unknown, or a model or an edge is refused.
        LabelError: if a label mapping does not fit.
    """
    try:
        plain = nx.read_graphml(io.BytesIO(text.encode()))
    # networkx does not check its input: malformed files raise any of these.
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
    check_version(_checked(_Versioned, plain.graph, "the graph")["schema_version"])
    models, edges = [], []
    for id, data in plain.nodes(data=True):
        where = f"node {id!r}"
        nested = _nested({**data, "id": id}, where)
        models.append(_record_from_dict(_checked(_Record, nested, where)))
    for parent, child, data in plain.edges(data=True):
        where = f"edge {parent!r} -> {child!r}"
        nested = _nested({**data, "parent": parent, "child": child}, where)
        edges.append(_edge_from_dict(_checked(_Edge, nested, where)))
    return InheritanceGraph(models, edges)


def _record_to_dict(record: ModelRecord) -> dict[str, Any]:
    provenance, scale = record.provenance, record.fisher_scale
    scaled = {} if scale is None else {"fisher_scale": _scale_to_dict(scale)}
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
        **scaled,
    }


def _record_from_dict(data: _Record) -> ModelRecord:
    provenance, scale = data["provenance"], data.get("fisher_scale")
    return ModelRecord(
        id=data["id"],
        owner=data["owner"],
        architecture=data["architecture"],
        labels=tuple(data["labels"]),
        digest=data["digest"],
        created_us=data["created_us"],
        provenance=None if provenance is None else Provenance(**provenance),
        fisher_digest=data["fisher_digest"],
        status=data["status"],
        fisher_scale=None if scale is None else _scale_from_dict(scale),
    )


def _scale_to_dict(scale: FisherScale) -> dict[str, Any]:
    counts = {"head_values": scale.head_values, "values": scale.values} if scale.values else {}
    return {"scope": scale.scope, "sums": list(scale.sums), **counts}


def _scale_from_dict(data: _Scale) -> FisherScale:
    counts = data.get("head_values", 0), data.get("values", 0)
    return FisherScale(data["scope"], tuple(data["sums"]), *counts)


def _edge_to_dict(edge: Inheritance) -> dict[str, Any]:
    more: dict[str, str | float] = {}
    if edge.recipe is not None:
        more = {"recipe": str(edge.recipe), "place": edge.place}
    if edge.source:
        more |= {"source": edge.source, "confidence": float(edge.confidence)}
    return {
        "parent": edge.parent,
        "child": edge.child,
        "kind": edge.kind.value,
        "weight": float(edge.weight),
        "labels": dict(sorted(edge.labels.items())),
        **more,
    }


def _edge_from_dict(data: _Edge) -> Inheritance:
    return Inheritance(
        data["parent"],
        data["child"],
        data["kind"],
        data["weight"],
        data["labels"],
        as_recipe(data["recipe"]) if "recipe" in data else None,
        data.get("place", 0),
        data.get("source", ""),
        data.get("confidence", 0.0),
    )


def _parse_json(text: str, where: str) -> object:
    try:
        return load_json(text)
    except ValueError as error:
        raise GraphError(f"Expected {where} to be JSON, but {error}.") from error


def _checked(kind: type[T], values: object, where: str) -> T:
    try:
        return check(kind, values, where)
    except InputError as error:
        raise GraphError(str(error)) from None


def _flat(data: Mapping[str, Any], nested: Collection[str]) -> dict[str, Any]:
    """Return the GraphML attributes of a model or an edge, without its ends, with flat values."""
    ends = ("id", "parent", "child")
    return {
        key: json.dumps(value) if key in nested else value
        for key, value in data.items()
        if key not in ends
    }


def _nested(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    texts = {key: data[key] for key in _NESTED if isinstance(data.get(key), str)}
    parsed = {key: _parse_json(text, f"{key!r} of {where}") for key, text in texts.items()}
    return {**data, **parsed}
