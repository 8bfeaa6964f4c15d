"""Queries as text that is made once: the same rows as the statements that they are made of."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import bindparam, delete, event, insert, select, text, update

from disinherit.common.errors import StoreError
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.server.store import (
    graph,
    graph_messages,
    model_pages,
    notifications,
    signing,
    status,
)
from disinherit.server.store.queries import Query, WriteQuery
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.store.tables import HOLDINGS, MODELS


@pytest.fixture
def store(tmp_path: Path, database: str | None) -> Iterator[CoordinatorStore]:
    store = CoordinatorStore(database or tmp_path / "c.db")
    for number in range(6):
        record = ModelRecord(f"m{number}", f"o{number % 2}", "aa", ("cat", "dog"), "0a", 0)
        parents = [Inheritance(f"m{number - 1}", record.id, InheritanceKind.TRANSFER)]
        store.register(record, parents if number else [], actor="operator:ci")
    yield store
    store.close()


_PAGE = {"owner": "o1", "one_more": 3, "size": 10_000}


@pytest.mark.parametrize(
    ("query", "values"),
    [
        (graph._RECORDS, {"ids": ["m1", "m4", "m4", "none"]}),
        (graph._RECORDS, {"ids": []}),
        (graph._RECORDS, {"ids": ["m2"]}),
        (graph._REACHED_ROWS, {"ids": ["m3"]}),
        (graph._EDGES["child"], {"ids": ["m5", "m1"]}),
        (graph_messages._ALL_EDGES, {}),
        (model_pages._page(True, False), _PAGE),
        (model_pages._page(False, True), _PAGE | {"after_us": 0, "after_id": ""}),
        (Query(select(MODELS.c.id).where(MODELS.c.owner.in_(["o0", "o2"]))), {}),
        (
            Query(
                select(MODELS.c.id, MODELS.c.owner)
                .where(
                    MODELS.c.id.in_(bindparam("some", expanding=True)),
                    MODELS.c.owner.in_(bindparam("of", expanding=True)),
                    MODELS.c.created_us > bindparam("since"),
                )
                .order_by(MODELS.c.id)
            ),
            {"of": ["o1", "o0"], "some": ["m1", "m3", "m2"], "since": 5},
        ),
    ],
)
def test_a_query_finds_what_its_statement_finds(
    store: CoordinatorStore, query: Query, values: dict[str, Any]
) -> None:
    with store.reading() as db:
        expected = [tuple(row) for row in db.execute(query._statement, values)]
        for _ in range(2):
            assert sorted(map(tuple, query.all(db, values))) == sorted(expected)
        first = query.first(db, values)
        assert (first is None) == (not expected)
        assert len(query.scalars(db, values)) == len(expected)


def test_the_text_for_each_number_of_values_is_made_once(
    store: CoordinatorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = Query(select(MODELS.c.id).where(MODELS.c.id.in_(bindparam("ids", expanding=True))))
    with store.reading() as db:
        for count in (1, 2, 1, 2, 0, 0):
            query.all(db, {"ids": ["m1", "m2"][:count]})
        texts = query._made[db.dialect.name]
    assert sorted(texts._known) == [(0,), (1,), (2,)]
    monkeypatch.setattr("disinherit.server.store.queries._MOST", 3)
    with store.reading() as db:
        assert len(query.all(db, {"ids": ["m1", "m2", "m3"]})) == 3
    assert sorted(texts._known) == [(3,)]


@pytest.mark.parametrize(
    ("query", "values"),
    [
        (signing._KEYS, {}),
        (status._DECISIONS, {"requests": ["q", "r"]}),
        (notifications._ACKNOWLEDGED, {"request": "q", "models": ["m1", "m2"]}),
    ],
)
def test_entries_of_a_kind_are_found_without_a_look_at_all_of_the_request(
    tmp_path: Path, query: Query, values: dict[str, Any]
) -> None:
    store = CoordinatorStore(tmp_path / "c.db")
    with store.reading() as db:
        query.all(db, values)
        text, given = query._made["sqlite"].filled(values)
        steps = [row.detail for row in db.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", given)]
    assert "ix_audit_model (request_id=? AND model_id=? AND kind=?)" in steps[0]
    store.close()


def test_what_is_written_is_there_whoever_listens(store: CoordinatorStore) -> None:
    """Statements go to the driver itself, or by SQLAlchemy if somebody wants to know of each."""
    put = WriteQuery(insert(HOLDINGS))
    take = WriteQuery(delete(HOLDINGS).where(HOLDINGS.c.model_id == bindparam("model")))
    held = Query(select(HOLDINGS).order_by(HOLDINGS.c.model_id))
    heard: list[str] = []

    def hear(*args: Any) -> None:
        heard.append(str(args[2]))

    for listened in (False, True):
        with store.writing() as db:
            if listened:
                event.listen(db, "before_cursor_execute", hear)
            put.run(db, {"class_digest": "c", "model_id": "m1"})
            assert put.run(db, *({"class_digest": "c", "model_id": f"m{i}"} for i in (2, 3))) == 2
            rows = held.all(db, {})
            assert [row.model_id for row in rows] == ["m1", "m2", "m3"]
            assert held.first(db, {}) == ("c", "m1")
            assert [take.run(db, {"model": f"m{i}"}) for i in (1, 2, 3, 4)] == [1, 1, 1, 0]
            assert held.first(db, {}) is None
            assert held.scalar(db, {}) is None
    assert len(heard) == 10


def test_an_error_of_the_driver_is_one_of_the_store(store: CoordinatorStore) -> None:
    put = WriteQuery(insert(HOLDINGS))
    row = {"class_digest": "c", "model_id": "m1"}
    with pytest.raises(StoreError, match="(?i)unique"), store.writing() as db:
        put.run(db, row, row)
    with store.reading() as db:
        assert Query(select(HOLDINGS)).all(db, {}) == []


def test_many_rows_are_written_as_each_by_itself(store: CoordinatorStore) -> None:
    """Whether values stand for one parameter, for several, for many at a time, or beside a fixed
    one.
    """
    many = MODELS.c.id.in_(bindparam("ids", expanding=True))
    renamed = update(MODELS).where(MODELS.c.id == bindparam("model")).values(owner=bindparam("who"))
    fixed = update(MODELS).where(MODELS.c.id == bindparam("model")).values(owner="fixed")
    named = update(MODELS).where(many).values(owner=bindparam("who"))
    held = Query(select(MODELS.c.id, MODELS.c.owner).order_by(MODELS.c.id))
    statements: list[tuple[Any, list[dict[str, Any]]]] = [
        (renamed, [{"model": f"m{i}", "who": f"w{i}"} for i in range(4)]),
        (fixed, [{"model": f"m{i}"} for i in range(3)]),
        (named, [{"ids": [f"m{i}", f"m{i + 1}"], "who": f"w{i}"} for i in range(3)]),
    ]
    for statement, rows in statements:
        with store.writing() as db:
            before = held.all(db, {})
            db.execute(text("SAVEPOINT before"))
            for row in rows:
                WriteQuery(statement).run(db, row)
            expected = held.all(db, {})
            db.execute(text("ROLLBACK TO before"))
            assert WriteQuery(statement).run(db, *rows) >= len(rows)
            assert held.all(db, {}) == expected != before
    taken = WriteQuery(delete(HOLDINGS).where(HOLDINGS.c.model_id == bindparam("model")))
    put = WriteQuery(insert(HOLDINGS))
    with store.writing() as db:
        put.run(db, *({"class_digest": "c", "model_id": f"m{i}"} for i in range(4)))
        assert taken.run(db, *({"model": f"m{i}"} for i in range(3))) == 3
        assert [row.model_id for row in Query(select(HOLDINGS)).all(db, {})] == ["m3"]
