"""A model store whose process is killed at every step of a write."""

import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

from disinherit.client.store.store import ModelStore
from disinherit.common.graph.records import ModelStatus
from tests.support.crashing import crash_everywhere
from tests.support.stored_models import (
    assert_same_fishers,
    assert_same_tensors,
    make_application,
    make_fishers,
    make_record,
    make_weights,
    object_names,
)


def test_a_crash_while_applying_leaves_old_or_new(tmp_path: Path) -> None:
    base = tmp_path / "base"
    with ModelStore(base, "anna") as store:
        old = store.add(make_record(), make_weights(), make_fishers(), "head")
    application = make_application()

    def work(root: Path) -> None:
        with ModelStore(root, "anna") as store:
            store.apply(application)

    def check(root: Path) -> str:
        with ModelStore(root, "anna") as store:
            entry = store.applied("forget-cats", old.digest)
            outcome = "old" if entry is None else "new"
            if entry is None:
                assert store.records() == (old,)
            assert_same_tensors(store.weights("m"), make_weights(0))
            assert_same_fishers(store.fishers("m"), make_fishers(1.0))
            assert len(object_names(root)) == (2 if entry is None else 4)
            # The message is repeated, and applied once.
            again = store.apply(replace(application, result=b"again"))
            assert again.result == (b"again" if entry is None else b"\x00reply")
            assert [record.id for record in store.records()] == ["m", "m~1"]
            assert store.record("m").status is ModelStatus.SUPERSEDED
            assert store.record("m~1").status is ModelStatus.ACTIVE
            assert_same_tensors(store.weights("m~1"), make_weights(1))
            assert_same_fishers(store.fishers("m~1"), make_fishers(2.0))
            assert len(object_names(root)) == 4
        return outcome

    seen = crash_everywhere(tmp_path, base, work, check)
    assert seen == sorted(seen, reverse=True)
    assert seen.count("old") > 40
    assert seen.count("new") >= 2


def test_a_crash_while_opening_and_adding_leaves_nothing_or_all(tmp_path: Path) -> None:
    def work(root: Path) -> None:
        with ModelStore(root, "anna") as store:
            store.add(make_record(), make_weights(), make_fishers(), "head")

    def check(root: Path) -> str:
        with ModelStore(root, "anna") as store:
            outcome = "full" if store.records() else "empty"
            assert len(object_names(root)) == (2 if store.records() else 0)
            if outcome == "empty":
                store.add(make_record(), make_weights(), make_fishers(), "head")
            assert_same_tensors(store.weights("m"), make_weights())
            assert_same_fishers(store.fishers("m"), make_fishers())
        return outcome

    seen = crash_everywhere(tmp_path, None, work, check)
    assert seen == sorted(seen)
    assert seen.count("empty") > 40
    assert seen.count("full") >= 2


def test_a_crash_inside_a_commit_is_undone(store: ModelStore, root: Path, tmp_path: Path) -> None:
    before = store.add(make_record(), make_weights(), make_fishers(), "head")
    copy = tmp_path / "copy"
    with sqlite3.connect(root / "index.db", isolation_level=None) as db:
        # SQLite writes to the file before the end of a transaction that outgrows its cache.
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN")
        db.execute("UPDATE models SET digest = 'lost', fisher_digest = '', architecture = 'lost'")
        for number in range(50):
            db.execute(
                "INSERT INTO ledger VALUES ('r', ?, 'd', 'm', 'd', zeroblob(9000), '', '')",
                (str(number),),
            )
        shutil.copytree(root, copy)
        db.execute("ROLLBACK")
    db.close()
    assert (copy / "index.db-journal").exists()
    assert b"lost" in (copy / "index.db").read_bytes()
    with ModelStore(copy, "anna") as survivor:
        assert survivor.records() == (before,)
        assert_same_tensors(survivor.weights("m"), make_weights())
        assert_same_fishers(survivor.fishers("m"), make_fishers())
