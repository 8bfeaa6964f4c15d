"""Damaged and unusable folders of a model store: named, refused, and left as they are."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
import torch

from disinherit.client.store.store import ModelStore
from disinherit.common.errors import CheckpointError, InputError, StoreError
from disinherit.common.tensors.checkpoints import save_checkpoint
from tests.support.stored_models import (
    assert_same_tensors,
    make_application,
    make_fishers,
    make_record,
    make_weights,
    object_names,
    state_of,
)


@pytest.mark.parametrize("damage", ["missing", "torn", "flipped", "replaced", "pickle"])
def test_damaged_files_are_named_with_their_model(
    store: ModelStore, root: Path, damage: str
) -> None:
    record = store.add(make_record(), make_weights(), make_fishers(), "head")
    for digest, load, what in (
        (record.digest, store.weights, "weights of model 'm'"),
        (record.fisher_digest, store.fishers, "Fisher summary of model 'm'"),
    ):
        path = root / "objects" / f"{digest}.safetensors"
        data = path.read_bytes()
        if damage == "missing":
            path.unlink()
        elif damage == "torn":
            path.write_bytes(data[:-3])
        elif damage == "flipped":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        elif damage == "replaced":
            save_checkpoint(path, make_weights(5))
        else:
            torch.save(make_weights(), path)
        with pytest.raises(CheckpointError, match=f"{what}.*{digest}"):
            load("m")


def test_an_index_that_is_no_database_is_refused_and_kept(root: Path) -> None:
    root.mkdir()
    index = root / "index.db"
    index.write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match=r"index\.db.*not a database"):
        ModelStore(root, "anna")
    assert index.read_bytes() == b"no database" * 100


def test_a_damaged_index_is_refused_and_no_object_is_removed(store: ModelStore, root: Path) -> None:
    store.add(make_record(), make_weights())
    store.close()
    index = root / "index.db"
    data = bytearray(index.read_bytes())
    data[4096:] = b"\xaa" * (len(data) - 4096)
    index.write_bytes(data)
    files = object_names(root)
    with pytest.raises(StoreError, match=r"index\.db"):
        ModelStore(root, "anna")
    assert object_names(root) == files


@pytest.mark.parametrize(
    ("column", "value"),
    [("labels", "[1"), ("labels", "7"), ("provenance", "{}"), ("status", "lost"), ("id", "../x")],
)
def test_a_malformed_row_is_refused(store: ModelStore, root: Path, column: str, value: str) -> None:
    store.add(make_record(), make_weights())
    with sqlite3.connect(root / "index.db") as db:
        db.execute(f"UPDATE models SET {column} = ?", (value,))
    db.close()
    with pytest.raises(StoreError, match="Expected a sound record of model"):
        store.records()


def test_an_index_without_curvature_is_brought_up_to_date(root: Path) -> None:
    with ModelStore(root, "anna") as store:
        store.add(make_record(), make_weights())
    with sqlite3.connect(root / "index.db") as db:
        db.execute("DROP TABLE curvatures")
        db.execute("PRAGMA user_version = 7")
    db.close()
    for _ in range(2):
        with ModelStore(root, "anna") as store:
            assert not store.has_curvature("m")
            assert store.curvature("m") is None


@pytest.mark.parametrize(
    ("version", "lacking"), [(3, ["destroyed", "structures"]), (4, ["structures"]), (5, [])]
)
def test_an_older_index_is_brought_up_to_date(root: Path, version: int, lacking: list[str]) -> None:
    application = make_application()
    with ModelStore(root, "anna") as store:
        store.add(make_record(), make_weights(), make_fishers(), "head")
        store.apply(application)
    with sqlite3.connect(root / "index.db") as db:
        db.execute("DROP INDEX ledger_request")
        db.execute("DROP INDEX ledger_successor")
        for table in ("ledger", "rollbacks", "destroyed"):
            db.execute(f"ALTER TABLE {table} DROP COLUMN request_digest")
        db.execute("ALTER TABLE ledger DROP COLUMN forgotten")
        for table in ("prepared", "curvatures", *lacking):
            db.execute(f"DROP TABLE {table}")
        db.execute(f"PRAGMA user_version = {version}")
    db.close()
    for _ in range(2):
        with ModelStore(root, "anna") as store:
            assert store.destroyed("m") is None
            assert store.structure("m") is None
            assert store.weights("m").keys()
            (entry,) = store.made_by("m~1")
            assert (entry.request_id, entry.request_digest) == ("forget-cats", "")
            assert entry.forgotten is None
            store.check_content("forget-cats", "f" * 64)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("PRAGMA user_version = 9", "version 8 .* got 9.*newer"),
        ("PRAGMA user_version = 2", "version 8 .* got 2.*before the first release"),
        ("PRAGMA user_version = 0", "version 8 .* got 0.*another program"),
        ("UPDATE store SET owner = 'bert'", r"store of 'anna' .* that of \['bert'\]"),
        ("DELETE FROM store", r"that of \[\]"),
        ("DROP TABLE models", "models"),
    ],
)
def test_an_index_of_something_else_is_refused(root: Path, statement: str, words: str) -> None:
    with ModelStore(root, "anna") as store:
        store.add(make_record(), make_weights())
    with sqlite3.connect(root / "index.db") as db:
        db.execute(statement)
    db.close()
    files = object_names(root)
    with pytest.raises(StoreError, match=words):
        ModelStore(root, "anna")
    assert object_names(root) == files


def test_unusable_roots_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(StoreError, match="a writable folder for the models"):
            ModelStore(root, "anna")
    (tmp_path / "a" / "index.db").mkdir(parents=True)
    (tmp_path / "b" / "lock").mkdir(parents=True)
    for root in (tmp_path / "a", tmp_path / "b"):
        with pytest.raises(StoreError):
            ModelStore(root, "anna")
    with pytest.raises(InputError, match="owner name") as refused:
        ModelStore(tmp_path / "c", "../anna")
    assert refused.type is InputError
    assert not (tmp_path / "c").exists()


def test_closed_or_removed_store_is_refused(root: Path) -> None:
    store = ModelStore(root, "anna")
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.add(make_record(), make_weights())
    with ModelStore(root, "anna") as removed:
        shutil.rmtree(root)
        with pytest.raises(StoreError, match="No such file"):
            removed.records()


def test_a_full_disk_changes_nothing(
    store: ModelStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add(make_record(), make_weights())
    before, files = state_of(store), object_names(root)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="No space left"):
            store.apply(make_application())
    assert (state_of(store), object_names(root)) == (before, files)
    assert store.apply(make_application()).successor_id == "m~1"


def test_opening_removes_leftovers_and_nothing_else(root: Path) -> None:
    with ModelStore(root, "anna") as store:
        store.add(make_record(), make_weights())
    kept = object_names(root) | {"README", "short.safetensors"}
    for name in ("README", "short.safetensors", "0" * 64 + ".safetensors", ".disinherit-1.tmp"):
        (root / "objects" / name).touch()
    with ModelStore(root, "anna") as store:
        assert object_names(root) == kept
        assert_same_tensors(store.weights("m"), make_weights())


@pytest.mark.parametrize("left", [None, b""])
def test_missing_index_is_refused_and_objects_are_kept(root: Path, left: bytes | None) -> None:
    with ModelStore(root, "anna") as store:
        store.add(make_record(), make_weights())
    index, kept = root / "index.db", object_names(root)
    saved = index.read_bytes()
    index.unlink()
    if left is not None:
        index.write_bytes(left)
    with pytest.raises(StoreError, match="gone. Restore it"):
        ModelStore(root, "anna")
    assert object_names(root) == kept
    index.write_bytes(saved)
    with ModelStore(root, "anna") as store:
        assert_same_tensors(store.weights("m"), make_weights())
