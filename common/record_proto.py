"""Versions and inheritance as protobuf messages.

Apart from the whole graph, which an owner of models never handles.
"""

from collections.abc import Collection
from enum import StrEnum
from typing import TypeVar

from disinherit.common.errors import GraphError
from disinherit.common.records import (
    FisherScale,
    Inheritance,
    InheritanceKind,
    ModelRecord,
    ModelStatus,
    Provenance,
)
from disinherit.v1 import graph_pb2

SCHEMA_VERSION = 1

_Enum = TypeVar("_Enum", bound=StrEnum)


def record_to_proto(record: ModelRecord) -> graph_pb2.ModelRecord:
    """Convert a version to its message.

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
            status=graph_pb2.ModelStatus.Value(f"MODEL_STATUS_{record.status.name}"),
        )
        if record.provenance is not None:
            message.provenance.dataset = record.provenance.dataset
            message.provenance.samples_per_class.update(record.provenance.samples_per_class)
            message.provenance.sample_set_digest = record.provenance.sample_set_digest
            message.provenance.SetInParent()
        if record.fisher_scale is not None:
            message.fisher_scale.scope = record.fisher_scale.scope
            message.fisher_scale.sums.extend(record.fisher_scale.sums)
            message.fisher_scale.SetInParent()
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
    scale = None
    if message.HasField("fisher_scale"):
        scale = FisherScale(message.fisher_scale.scope, tuple(message.fisher_scale.sums))
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
        fisher_scale=scale,
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
            kind=graph_pb2.InheritanceKind.Value(f"INHERITANCE_KIND_{edge.kind.name}"),
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
