"""Versions, inheritance and whole graphs as protobuf messages and bytes.

Output is ordered by age and id, so equal graphs give equal bytes. Input is checked like any change
of a graph, and must be complete (`InheritanceGraph.validate`).
"""

import functools
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import DecodeError

from disinherit.common.errors import GraphError
from disinherit.common.graph.recipes import as_recipe
from disinherit.common.graph.records import (
    FisherScale,
    Inheritance,
    InheritanceKind,
    ModelRecord,
    ModelStatus,
    Provenance,
)
from disinherit.v1 import graph_pb2

if TYPE_CHECKING:
    from disinherit.common.graph.graph import InheritanceGraph

SCHEMA_VERSION = 1

_Enum = TypeVar("_Enum", bound=StrEnum)
_STATUSES = {one: graph_pb2.ModelStatus.Value(f"MODEL_STATUS_{one.name}") for one in ModelStatus}
_KINDS = {
    one: graph_pb2.InheritanceKind.Value(f"INHERITANCE_KIND_{one.name}") for one in InheritanceKind
}


_FEW = 1000
"""Class names, at most, that versions share in memory."""


def record_to_proto(
    record: ModelRecord, status: ModelStatus | None = None
) -> graph_pb2.ModelRecord:
    """Convert a version to its message.

    Args:
        record: the version.
        status: its status in the message; `None` for its own.

    Raises:
        GraphError: if protobuf cannot hold a value, such as a lone surrogate in a class name.
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
            status=_STATUSES[status or record.status],
        )
        if record.provenance is not None:
            message.provenance.dataset = record.provenance.dataset
            message.provenance.samples_per_class.update(record.provenance.samples_per_class)
            message.provenance.sample_set_digest = record.provenance.sample_set_digest
            message.provenance.SetInParent()
        if record.fisher_scale is not None:
            message.fisher_scale.scope = record.fisher_scale.scope
            message.fisher_scale.sums.extend(record.fisher_scale.sums)
            message.fisher_scale.head_values = record.fisher_scale.head_values
            message.fisher_scale.values = record.fisher_scale.values
            message.fisher_scale.SetInParent()
    except ValueError as error:
        raise GraphError(f"Expected model {record.id!r} to fit protobuf, but {error}.") from error
    return message


def record_from_proto(message: graph_pb2.ModelRecord) -> ModelRecord:
    """Convert a message to its version.

    Raises:
        GraphError: if a value is malformed, or the status is unset or unknown.
    """
    provenance = None
    if message.HasField("provenance"):
        counts = message.provenance.samples_per_class
        provenance = Provenance(
            message.provenance.dataset,
            {name: counts[name] for name in _names(tuple(sorted(counts)))},
            message.provenance.sample_set_digest,
        )
    scale = None
    if message.HasField("fisher_scale"):
        stored = message.fisher_scale
        scale = FisherScale(stored.scope, tuple(stored.sums), stored.head_values, stored.values)
    return ModelRecord(
        id=message.id,
        owner=message.owner,
        architecture=message.architecture,
        labels=_names(tuple(message.labels)),
        digest=message.digest,
        created_us=message.created_us,
        provenance=provenance,
        fisher_digest=message.fisher_digest,
        status=_member(_STATUSES, message.status, f"model {message.id!r}"),
        fisher_scale=scale,
    )


def _names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the same names, which most versions have in common: most of a record's memory."""
    return _kept_names(names) if len(names) <= _FEW else names


@functools.lru_cache(maxsize=64)
def _kept_names(names: tuple[str, ...]) -> tuple[str, ...]:
    return names


def inheritance_to_proto(edge: Inheritance) -> graph_pb2.Inheritance:
    """Convert an edge to its message.

    Raises:
        GraphError: if protobuf cannot hold a value, such as a lone surrogate in a class name.
    """
    try:
        return graph_pb2.Inheritance(
            parent=edge.parent,
            child=edge.child,
            kind=_KINDS[edge.kind],
            weight=edge.weight,
            labels=edge.labels,
            recipe="" if edge.recipe is None else str(edge.recipe),
            place=edge.place,
            source=edge.source,
            confidence=edge.confidence,
        )
    except ValueError as error:
        name = f"{edge.parent!r} -> {edge.child!r}"
        raise GraphError(f"Expected inheritance {name} to fit protobuf, but {error}.") from error


def inheritance_from_proto(message: graph_pb2.Inheritance) -> Inheritance:
    """Convert a message to its edge.

    Raises:
        GraphError: if the kind is unset or unknown, or the recipe is malformed.
    """
    where = f"inheritance {message.parent!r} -> {message.child!r}"
    return Inheritance(
        parent=message.parent,
        child=message.child,
        kind=_member(_KINDS, message.kind, where),
        weight=message.weight,
        labels=message.labels,
        recipe=as_recipe(message.recipe) if message.recipe else None,
        place=message.place,
        source=message.source,
        confidence=message.confidence,
    )


def graph_to_proto(graph: "InheritanceGraph") -> graph_pb2.Graph:
    """Convert a graph to its message.

    Raises:
        GraphError: if protobuf cannot hold a value.
    """
    return graph_pb2.Graph(
        schema_version=SCHEMA_VERSION,
        models=(record_to_proto(record) for record in graph.models()),
        edges=map(inheritance_to_proto, graph.edges()),
    )


def graph_from_proto(message: graph_pb2.Graph) -> "InheritanceGraph":
    """Convert a message to its graph.

    Raises:
        GraphError: if the schema version is unknown, or a model or an edge is refused.
        LabelError: if a label mapping does not fit.
    """
    # Imported here: an owner of models handles records only, and loads no networkx.
    from disinherit.common.graph.graph import InheritanceGraph

    check_version(message.schema_version)
    return InheritanceGraph(
        map(record_from_proto, message.models), map(inheritance_from_proto, message.edges)
    )


def to_protobuf(graph: "InheritanceGraph") -> bytes:
    """Serialise a graph as `disinherit.v1.Graph`; equal graphs give equal bytes.

    Raises:
        GraphError: if protobuf cannot hold a value.
    """
    return bytes(graph_to_proto(graph).SerializeToString(deterministic=True))


def from_protobuf(data: bytes) -> "InheritanceGraph":
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


def check_version(version: int) -> None:
    """Check that a graph has the schema version of this release, in any format.

    Raises:
        GraphError: if it has another one.
    """
    if version != SCHEMA_VERSION:
        raise GraphError(
            f"Expected an inheritance graph of schema version {SCHEMA_VERSION}, but got "
            f"{version}; use a release of Disinherit that supports it."
        )


def _member(numbers: Mapping[_Enum, int], number: int, where: str) -> _Enum:
    """Return the member of an enum that has a number on the wire."""
    for member, known in numbers.items():
        if known == number:
            return member
    kind = type(next(iter(numbers))).__name__
    raise GraphError(
        f"Expected a {kind} of schema version {SCHEMA_VERSION} in {where}, but got number {number}."
    )
