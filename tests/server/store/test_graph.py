"""Parts of the stored graph: the same answers as from the whole graph."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.proto import record_to_proto
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord, Provenance
from disinherit.server.planning.class_names import follow_classes
from disinherit.server.planning.targets import find_origins
from disinherit.server.service.models import Models
from disinherit.server.service.principals import Principal, Role
from disinherit.server.store import graph, graph_store
from disinherit.server.store.database import Database
from disinherit.server.store.graph import (
    find_descendants,
    find_graph,
    find_holders,
    find_parentless,
    find_records,
    page_records,
)
from disinherit.server.store.model_pages import page_rows
from disinherit.server.store.model_rows import insert_edges, insert_records, read_record
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.store.tables import EDGES, HOLDINGS, METADATA, MODELS
from tests.support.changes import look
from tests.support.graph_cases import random_graphs


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(tmp_path_factory.mktemp("graphs") / "graph.db")
    with database.writing() as db:
        METADATA.create_all(db)
    yield database
    database.close()


def fill(database: Database, graph: InheritanceGraph) -> None:
    with database.writing() as db:
        for table in (EDGES, HOLDINGS, MODELS):
            db.execute(delete(table))
        insert_records(db, graph.models())
        insert_edges(db, graph.edges())


@settings(max_examples=60, deadline=None)
@given(graph=random_graphs(), data=st.data())
def test_a_part_answers_as_the_whole(
    database: Database, graph: InheritanceGraph, data: st.DataObject
) -> None:
    fill(database, graph)
    ids = [record.id for record in graph.models()]
    with database.reading() as db:
        assert find_graph(db) == graph
        if not ids:
            return
        roots = data.draw(st.lists(st.sampled_from(ids), min_size=1, unique=True))
        made = {e.child for e in graph.edges() if e.kind is InheritanceKind.UNLEARNED}
        cleansed = data.draw(st.sets(st.sampled_from(sorted(made)))) if made else set()
        part = find_descendants(db, roots)
        stops = {id for id in cleansed if id in part and part.parents(id)}
        origins = find_origins(graph, roots)
        assert find_origins(part, roots) == origins
        starts = {*roots, *(one for some in origins.values() for one in some)}
        assert part.affected(starts) == graph.affected(starts)
        affected = set(graph.affected(starts))
        reached = graph.affected(starts, cleansed=cleansed)
        assert part.affected(starts, cleansed=stops) == reached
        assert follow_classes(part, roots, reached, stops, origins).failed == (
            follow_classes(graph, roots, reached, cleansed, origins).failed
        )
        for id in reached:
            found = part.upstream_roots(id, starts, cleansed=stops)
            assert found == graph.upstream_roots(id, starts, cleansed=cleansed)
        assert all(part.parents(id) == graph.parents(id) for id in affected)
        around = {edge.parent for id in affected for edge in graph.parents(id)}
        assert {record.id for record in part.models()} == affected | around


@settings(max_examples=60, deadline=None)
@given(graph=random_graphs(), data=st.data())
def test_versions_are_found_by_id_owner_age_and_class(
    database: Database, graph: InheritanceGraph, data: st.DataObject
) -> None:
    fill(database, graph)
    everyone = list(graph.models())
    with database.reading() as db:
        wanted = {record.id for record in everyone[::2]} | {"nobody"}
        assert find_records(db, wanted) == {r.id: r for r in everyone if r.id in wanted}
        owner = data.draw(st.sampled_from(["", *(record.owner for record in everyone)]))
        size = data.draw(st.integers(1, 3))
        seen: list[ModelRecord] = []
        after = None
        while found := page_records(db, owner, after, size):
            seen += found
            after = seen[-1].created_us, seen[-1].id
        assert seen == [record for record in everyone if owner in ("", record.owner)]
        room = data.draw(st.integers(0, 1000))
        after, paged, more = None, list[ModelRecord](), True
        while more:
            rows, more = page_rows(db, owner, after, size, room)
            assert len(rows) <= size
            assert len(rows) < 2 or sum(len(row[2]) for row in rows) <= room
            paged += [read_record(row[2]) for row in rows]
            after = rows[-1][:2] if rows else None
        assert paged == seen
        classes = {
            name
            for record in everyone
            if record.provenance
            for name in record.provenance.samples_per_class
        }
        some = data.draw(st.sets(st.sampled_from(sorted(classes)))) if classes else set()
        assert find_holders(db, some) == [
            record
            for record in everyone
            if record.provenance
            and any(record.provenance.samples_per_class.get(name) for name in some)
        ]


def test_what_a_version_was_trained_on_may_become_known_later(tmp_path: Path) -> None:
    store = CoordinatorStore(tmp_path / "c.db")
    before = ModelRecord("r", "anna", "aa", ("cat", "dog"), "0a", 1)
    store.add_model(before)
    assert look(store, find_holders, ["cat"]) == []
    for learned in ({"cat": 2}, {"dog": 1, "cat": 0}):
        after = ModelRecord(
            "r", "anna", "aa", ("cat", "dog"), "0a", 1, Provenance("animals", learned)
        )
        store.add_model(after)
        held = [name for name in ("cat", "dog") if look(store, find_holders, [name])]
        assert held == [name for name, count in learned.items() if count]
    store.close()


def test_registering_and_listing_do_not_read_the_whole_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> Any:
        raise AssertionError("the whole graph was read")

    monkeypatch.setattr(graph_store, "find_graph", refuse)
    monkeypatch.setattr("disinherit.server.service.models.graph_messages", refuse)
    store = CoordinatorStore(tmp_path / "c.db")
    models = Models(store, lambda _: None)
    operator = Principal("operator", Role.OPERATOR)
    registered = []
    for age in range(5):
        edges = [Inheritance(f"m{age - 1}", f"m{age}", InheritanceKind.TRANSFER)] if age else []
        record = ModelRecord(f"m{age}", "anna", "aa", ("cat", "dog"), "0a", 0)
        registered.append(models.register(operator, record, edges))
    pages = [models.list(operator, "", 2, "")]
    while pages[-1].next_page_token:
        pages.append(models.list(operator, "", 2, pages[-1].next_page_token))
    assert [len(page.models) for page in pages] == [2, 2, 1]
    listed = [record for page in pages for record in page.models]
    assert listed == [record_to_proto(record) for record in registered]
    with pytest.raises(AssertionError, match="whole graph"):
        list(models.graph())
    with pytest.raises(AssertionError, match="whole graph"):
        store.graph()
    store.close()


def test_only_parentless_versions_with_the_class_are_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any owner may register long records, and everybody's submissions ask for them."""
    store = CoordinatorStore(tmp_path / "store.db")
    models = Models(store, lambda _: None)
    anna = Principal("anna", Role.OWNER, "anna")
    for name, labels in (("a", ("cat", "dog")), ("b", ("category", "dog")), ("c", ("owl",))):
        models.register(anna, ModelRecord(name, "anna", "aa", labels, "", 0), [])
    store.close()
    read: list[bytes] = []

    def counting(data: bytes) -> ModelRecord:
        read.append(data)
        return read_record(data)

    monkeypatch.setattr(graph, "read_record", counting)
    database = Database(tmp_path / "store.db")
    with database.reading() as db:
        assert [one.id for one in find_parentless(db, ["cat"])] == ["a"]
        assert len(read) == 2  # "category" has the same letters
        assert [one.id for one in find_parentless(db, ["owl", "yak"])] == ["c"]
        assert find_parentless(db, ["yak"]) == []
        assert len(read) == 3
    database.close()
