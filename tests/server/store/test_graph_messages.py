"""The whole graph as messages: what they hold, and what is parsed for them."""

from pathlib import Path

import pytest
from sqlalchemy import text

from disinherit.common.errors import StoreError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.proto import graph_to_proto
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.server.store import graph_messages
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.store.tables import parse
from disinherit.v1.graph_pb2 import Graph

_VERSIONS = 7


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CoordinatorStore:
    """A store with a line of versions, of which two make a part."""
    monkeypatch.setattr(graph_messages, "_PART", 2)
    store = CoordinatorStore(tmp_path / "c.db")
    for age in range(_VERSIONS):
        register(store, age)
    return store


def register(store: CoordinatorStore, age: int) -> None:
    edges = [Inheritance(f"m{age - 1}", f"m{age}", InheritanceKind.TRANSFER)] if age else []
    store.register(
        ModelRecord(f"m{age}", "anna", "aa", ("cat", "dog"), "0a", age), edges, actor="x"
    )


def messages_of(store: CoordinatorStore) -> list[bytes]:
    with store.reading() as db:
        return list(graph_messages.graph_messages(db))


def merged(messages: list[bytes]) -> Graph:
    graph = Graph()
    for message in messages:
        graph.MergeFromString(message)
    graph.edges.sort(key=lambda edge: (edge.child, edge.parent))
    return graph


def expected(graph: InheritanceGraph) -> Graph:
    found = graph_to_proto(graph)
    found.models.sort(key=lambda model: (model.created_us, model.id))
    found.edges.sort(key=lambda edge: (edge.child, edge.parent))
    return found


def test_messages_hold_the_graph_whatever_their_size(
    store: CoordinatorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = messages_of(store)
    assert len(whole) == 2  # the versions, and the edges
    monkeypatch.setattr(graph_messages, "_MESSAGE_BYTES", 0)
    parts = messages_of(store)
    assert len(parts) == 7  # of seven versions and six edges, two in each
    assert merged(whole) == merged(parts) == expected(store.graph())
    assert all(Graph.FromString(part).schema_version for part in parts)


def test_only_parts_that_are_new_are_parsed(
    store: CoordinatorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []

    def counted(kind: type[Graph], data: bytes) -> Graph:
        parsed.append(data)
        return parse(kind, data)

    monkeypatch.setattr(graph_messages, "parse", counted)
    messages_of(store)
    parsed.clear()
    messages_of(store)
    assert not parsed
    register(store, _VERSIONS)
    assert merged(messages_of(store)) == expected(store.graph())
    assert len(parsed) == 2  # the last part of the versions, and that of the edges


def test_a_damaged_row_is_an_error_each_time(store: CoordinatorStore) -> None:
    messages_of(store)
    with store.writing() as db:
        db.execute(text("UPDATE model SET record = x'ff' WHERE id = 'm3'"))
    for _ in range(2):
        with pytest.raises(StoreError, match="damaged"):
            messages_of(store)
