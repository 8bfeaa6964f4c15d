"""The inheritance graph as node-link JSON and GraphML.

What is written is ordered by age and id, so equal graphs give equal text. What is read is checked
as any change of a graph is, and must be complete (`InheritanceGraph.validate`). Keys and
attributes beyond those of the schema are ignored.
"""

import io
import json
import sys
from collections.abc import Collection, Mapping
from enum import StrEnum
from types import UnionType
from typing import Any, TypeVar
from xml.etree.ElementTree import ParseError

import networkx as nx

from disinherit.common.errors import GraphError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.proto import SCHEMA_VERSION, check_version
from disinherit.common.graph.records import (
    FisherScale,
    Inheritance,
    InheritanceKind,
    ModelRecord,
    ModelStatus,
    Provenance,
)
from disinherit.common.text import load_json

_SCALE = "fisher_scale"
_NESTED = ("labels", "provenance", _SCALE)

_Enum = TypeVar("_Enum", bound=StrEnum)


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
    check_version(_take(content, "schema_version", int, "the graph"))
    models = enumerate(_take(content, "models", list, "the graph"))
    edges = enumerate(_take(content, "edges", list, "the graph"))
    return InheritanceGraph(
        [_record_from_dict(data, f"models[{index}]") for index, data in models],
        [_edge_from_dict(data, f"edges[{index}]") for index, data in edges],
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
    check_version(_take(plain.graph, "schema_version", int, "the graph"))
    models, edges = [], []
    for id, data in plain.nodes(data=True):
        where = f"node {id!r}"
        keys = [key for key in _NESTED if key in data or key != _SCALE]
        nested = _nested({**data, "id": id}, keys, where)
        models.append(_record_from_dict(nested, where))
    for parent, child, data in plain.edges(data=True):
        where = f"edge {parent!r} -> {child!r}"
        nested = _nested({**data, "parent": parent, "child": child}, ("labels",), where)
        edges.append(_edge_from_dict(nested, where))
    return InheritanceGraph(models, edges)


def _from_name(kind: type[_Enum], name: str, where: str) -> _Enum:
    try:
        return kind(name)
    except ValueError as error:
        raise GraphError(
            f"Expected one of {[member.value for member in kind]} in {where}, but got {name!r}."
        ) from error


def _record_to_dict(record: ModelRecord) -> dict[str, Any]:
    provenance, scale = record.provenance, record.fisher_scale
    said = {} if scale is None else {_SCALE: _scale_to_dict(scale)}
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
        **said,
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
        fisher_scale=_scale_from_dict(data, where),
    )


def _scale_to_dict(scale: FisherScale) -> dict[str, Any]:
    counts = {"head_values": scale.head_values, "values": scale.values} if scale.values else {}
    return {"scope": scale.scope, "sums": list(scale.sums), **counts}


def _scale_from_dict(data: object, where: str) -> FisherScale | None:
    if not isinstance(data, Mapping) or _SCALE not in data:
        return None
    inside = f"the Fisher scale of {where}"
    given = _take(data, _SCALE, dict, where)
    sums = _take(given, "sums", list, inside)
    if not all(
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
        for value in sums
    ):
        raise GraphError(f"Expected finite numbers as 'sums' of {inside}, but got {sums!r:.80}.")
    head_values, values = (
        _take(given, name, int, inside) if name in given else 0
        for name in ("head_values", "values")  # files of 0.1.0 have none
    )
    return FisherScale(
        _take(given, "scope", str, inside), tuple(map(float, sums)), head_values, values
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
        return load_json(text)
    except ValueError as error:
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
