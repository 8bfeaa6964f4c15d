"""The inheritance graph as protobuf: round trips and refusals."""

from collections.abc import Callable

import pytest
from hypothesis import given

from disinherit.common.errors import GraphError, InputError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.proto import (
    from_protobuf,
    graph_from_proto,
    graph_to_proto,
    inheritance_from_proto,
    inheritance_to_proto,
    record_from_proto,
    record_to_proto,
    to_protobuf,
)
from disinherit.common.graph.records import (
    Inheritance,
    InheritanceKind,
    ModelRecord,
    ModelStatus,
    Provenance,
)
from disinherit.v1 import graph_pb2
from tests.support.graph_cases import random_graphs, sample


@given(random_graphs())
def test_round_trips_are_identities(graph: InheritanceGraph) -> None:
    assert from_protobuf(to_protobuf(graph)) == graph
    for record in graph.models():
        assert record_from_proto(record_to_proto(record)) == record
    for edge in graph.edges():
        assert inheritance_from_proto(inheritance_to_proto(edge)) == edge


def test_every_kind_and_status_has_its_own_number() -> None:
    for kind in InheritanceKind:
        message = inheritance_to_proto(Inheritance("a", "b", kind))
        assert graph_pb2.InheritanceKind.Name(message.kind) == f"INHERITANCE_KIND_{kind.name}"
        assert inheritance_from_proto(message).kind is kind
    for status in ModelStatus:
        record = record_to_proto(ModelRecord("a", "b", "", (), "", 0, status=status))
        assert graph_pb2.ModelStatus.Name(record.status) == f"MODEL_STATUS_{status.name}"
        assert record_from_proto(record).status is status


def message_with(change: Callable[[graph_pb2.Graph], object]) -> graph_pb2.Graph:
    message = graph_to_proto(sample())
    change(message)
    return message


PROTO_REFUSALS: dict[str, tuple[Callable[[graph_pb2.Graph], object], str]] = {
    "no version": (lambda m: m.ClearField("schema_version"), "schema version 1, but got 0"),
    "later version": (lambda m: setattr(m, "schema_version", 2), "schema version 1, but got 2"),
    "no status": (lambda m: m.models[0].ClearField("status"), "in model 'r', but got number 0"),
    "unknown status": (lambda m: setattr(m.models[0], "status", 9), "model 'r', but got number 9"),
    "no kind": (lambda m: m.edges[0].ClearField("kind"), "'r' -> 'm', but got number 0"),
    "malformed id": (lambda m: setattr(m.models[0], "id", "../r"), "but got '../r'"),
    "no weight": (lambda m: m.edges[0].ClearField("weight"), "but got 0.0"),
    "incomplete merge": (lambda m: m.edges.__delitem__(0), "'m' to sum to 1, but got 0.75"),
    "model missing": (lambda m: m.models.__delitem__(0), "in the graph, but got 'r'"),
    "model twice": (lambda m: m.models.append(m.models[0]), "not taken, but got 'r'"),
    "label mapping": (lambda m: m.edges[2].labels.update({"cow": "dog"}), "'m' -> 't'"),
}


@pytest.mark.parametrize("name", PROTO_REFUSALS)
def test_protobuf_reader_refuses(name: str) -> None:
    change, reason = PROTO_REFUSALS[name]
    with pytest.raises(InputError, match=reason):
        graph_from_proto(message_with(change))


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(GraphError, match="Expected a serialised inheritance graph"):
        from_protobuf(b"\xff\xff")


def test_names_that_protobuf_cannot_hold_are_refused() -> None:
    graph = InheritanceGraph([ModelRecord("m", "ann", "", ("\ud800",), "", 0)])
    with pytest.raises(GraphError, match="Expected model 'm' to fit protobuf"):
        to_protobuf(graph)


def test_mapping_that_protobuf_cannot_hold_is_refused() -> None:
    edge = Inheritance("a", "b", InheritanceKind.TRANSFER, labels={"\ud800": "cat"})
    with pytest.raises(GraphError, match="Expected inheritance 'a' -> 'b' to fit protobuf"):
        inheritance_to_proto(edge)


def test_versions_share_the_names_of_their_classes() -> None:
    """Of versions with 100 classes each, a name of its own for each was most of their memory."""
    labels = tuple(f"class {number}" for number in range(100))
    counts = dict.fromkeys(reversed(labels), 5)
    one, two = (
        record_from_proto(
            record_to_proto(ModelRecord(id, "o", "", labels, "", 0, Provenance("data", counts)))
        )
        for id in ("a", "b")
    )
    assert one.labels is two.labels
    assert one.provenance is not None
    assert two.provenance is not None
    pairs = zip(one.provenance.samples_per_class, two.provenance.samples_per_class, strict=True)
    assert all(mine is other for mine, other in pairs)
