"""The inheritance graph as protobuf messages and bytes.

What is written is ordered by age and id, so equal graphs give equal bytes. What is read is checked
as any change of a graph is, and must be complete (`InheritanceGraph.validate`).
"""

from google.protobuf.message import DecodeError

from disinherit.common.errors import GraphError
from disinherit.common.graph import InheritanceGraph
from disinherit.common.record_proto import (
    SCHEMA_VERSION,
    inheritance_from_proto,
    inheritance_to_proto,
    record_from_proto,
    record_to_proto,
)
from disinherit.v1 import graph_pb2

__all__ = [
    "SCHEMA_VERSION",
    "check_version",
    "from_protobuf",
    "graph_from_proto",
    "graph_to_proto",
    "inheritance_from_proto",
    "inheritance_to_proto",
    "record_from_proto",
    "record_to_proto",
    "to_protobuf",
]


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
    check_version(message.schema_version)
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


def check_version(version: int) -> None:
    """Check that a graph was written with the schema that is read here, in whatever format.

    Raises:
        GraphError: if it was not.
    """
    if version != SCHEMA_VERSION:
        raise GraphError(
            f"Expected an inheritance graph of schema version {SCHEMA_VERSION}, but got "
            f"{version}; use a release of Disinherit that knows it."
        )
