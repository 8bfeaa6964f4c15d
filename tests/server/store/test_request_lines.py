"""The entries about a request are found by their contents, as by a look into every line."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, func, insert, select, update

from disinherit.common.audit.export import read_entry
from disinherit.server.store import request_lines
from disinherit.server.store.audit import append
from disinherit.server.store.audit_events import AuditKind
from disinherit.server.store.request_lines import entries_about
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.store.tables import AUDIT

REQUESTS = ("q", "p", 'a "name"', "é")


@pytest.fixture
def store(tmp_path: Path, database: str | None) -> Iterator[CoordinatorStore]:
    store = CoordinatorStore(database or tmp_path / "c.db")
    yield store
    store.close()


def write(store: CoordinatorStore, *requests: str) -> None:
    for request in requests:
        with store.writing() as db:
            append(db, AuditKind.PAUSED, "operator:ci", request_id=request)


def slow(db: Connection, request: str) -> list[tuple[int, bytes]]:
    rows = db.execute(select(AUDIT.c.sequence, AUDIT.c.entry).order_by(AUDIT.c.sequence)).all()
    return [
        (row.sequence, row.entry)
        for row in rows
        if read_entry(row.entry).event.request_id == request
    ]


def check(store: CoordinatorStore) -> None:
    with store.reading() as db:
        for request in (*REQUESTS, "nobody"):
            assert entries_about(db, request) == slow(db, request)


def test_entries_are_those_of_a_look_into_every_line(
    store: CoordinatorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(store)
    for _ in range(3):
        write(store, *REQUESTS, "", "q", "q")
        check(store)
    looks: list[str] = []
    real = request_lines._looked_up

    def looked_up(db: Connection, request: str) -> list[tuple[int, bytes]]:
        looks.append(request)
        return real(db, request)

    monkeypatch.setattr(request_lines, "_looked_up", looked_up)
    write(store, "q")
    check(store)
    assert looks == []


def test_columns_do_not_matter(store: CoordinatorStore) -> None:
    write(store, "q", "p", "q")
    check(store)
    with store.writing() as db:
        db.execute(update(AUDIT).where(AUDIT.c.sequence == 1).values(request_id="p"))
    check(store)
    with store.reading() as db:
        assert [sequence for sequence, _ in entries_about(db, "q")] == [1, 3]


def test_what_was_removed_or_changed_since_is_not_remembered(store: CoordinatorStore) -> None:
    write(store, "q", "p", "q", "p")
    check(store)
    with store.writing() as db:
        line = db.scalar(select(AUDIT.c.entry).where(AUDIT.c.sequence == 2))
        assert line is not None
        other = line.replace(b'"request":"p"', b'"request":"q"')
        db.execute(update(AUDIT).where(AUDIT.c.sequence == 2).values(entry=other))
        db.execute(delete(AUDIT).where(AUDIT.c.sequence == 3))
    with store.reading() as db:
        assert [sequence for sequence, _ in entries_about(db, "p")] == [4]
        assert 3 not in [sequence for sequence, _ in entries_about(db, "q")]


def test_a_log_from_a_backup_is_looked_at_anew(store: CoordinatorStore) -> None:
    write(store, "q", "p")
    with store.reading() as db:
        backup = [dict(row._mapping) for row in db.execute(select(AUDIT))]
    write(store, "q", "q", "p")
    check(store)
    with store.writing() as db:
        db.execute(delete(AUDIT))
        db.execute(insert(AUDIT), backup)
    check(store)
    write(store, "p", "p", "q", "p")  # longer than what was known
    check(store)
    check(store)


def test_a_transaction_from_before_sees_what_was_there_then(store: CoordinatorStore) -> None:
    write(store, "q", "p")
    with store.reading() as before:
        assert before.scalar(select(func.count()).select_from(AUDIT)) == 2
        write(store, "q", "q")
        check(store)
        assert len(entries_about(before, "q")) == 1
    check(store)
