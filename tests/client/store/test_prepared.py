"""Weights of roots that are kept between the question about a change and its application."""

import sqlite3
from pathlib import Path

import pytest
import torch
from torch import Tensor

from disinherit.client.store.index_file import SCHEMA_VERSION
from disinherit.client.store.ledger import Commit
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import StoreError
from disinherit.common.graph.identifiers import successor_id
from disinherit.common.graph.records import ModelRecord
from disinherit.common.tensors.checkpoints import weights_digest

OLD = {"weight": torch.zeros(2, 3)}
NEW = {"weight": torch.ones(2, 3)}


def _record(model_id: str, weights: dict[str, Tensor], created_us: int = 1) -> ModelRecord:
    return ModelRecord(model_id, "ann", "arch", ("a", "b"), weights_digest(weights), created_us)


def _files(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "objects").glob("*.safetensors")}


def _apply(store: ModelStore, request_id: str, weights: dict[str, Tensor]) -> None:
    store.apply(
        Commit(
            request_id=request_id,
            model_id="m",
            expected_digest=weights_digest(OLD),
            successor=_record(successor_id("m", request_id), weights, 2),
            weights=weights,
            result=b"",
        )
    )


def test_prepared_weights_are_read_back_and_survive_the_next_opening(tmp_path: Path) -> None:
    with ModelStore(tmp_path, "ann") as store:
        store.add(_record("m", OLD), OLD)
        assert store.prepared("q", "m") is None
        assert store.prepare("q", "m", NEW, b"how") == weights_digest(NEW)
    with ModelStore(tmp_path, "ann") as store:
        found = store.prepared("q", "m")
        assert found is not None
        assert torch.equal(found[0]["weight"], NEW["weight"])
        assert found[1] == b"how"
        assert store.prepared("other", "m") is None
        assert [record.id for record in store.records()] == ["m"]


def test_they_go_with_the_application_of_any_request(tmp_path: Path) -> None:
    with ModelStore(tmp_path, "ann") as store:
        store.add(_record("m", OLD), OLD)
        other = {"weight": torch.full((2, 3), 2.0)}
        store.prepare("q", "m", NEW, b"")
        store.prepare("later", "m", other, b"")
        _apply(store, "q", NEW)
        assert store.prepared("q", "m") is None
        assert store.prepared("later", "m") is None
    with ModelStore(tmp_path, "ann"):
        assert _files(tmp_path) == {weights_digest(OLD), weights_digest(NEW)}


def test_they_go_with_a_roll_back_and_are_refused_thereafter(tmp_path: Path) -> None:
    with ModelStore(tmp_path, "ann") as store:
        store.add(_record("m", OLD), OLD)
        store.prepare("q", "m", NEW, b"")
        store.roll_back("q", "m", weights_digest(OLD))
        assert store.prepared("q", "m") is None
        with pytest.raises(StoreError, match="rolled back"):
            store.prepare("q", "m", NEW, b"")
    with ModelStore(tmp_path, "ann"):
        assert _files(tmp_path) == {weights_digest(OLD)}


def test_they_are_refused_where_a_request_was_applied(tmp_path: Path) -> None:
    with ModelStore(tmp_path, "ann") as store:
        store.add(_record("m", OLD), OLD)
        _apply(store, "q", NEW)
        with pytest.raises(StoreError, match="Plan request 'other' on that"):
            store.prepare("other", "m", NEW, b"")


def test_the_present_version_is_the_last_one_before_a_request(tmp_path: Path) -> None:
    with ModelStore(tmp_path, "ann") as store:
        store.add(_record("m", OLD), OLD)
        assert store.present("m").id == "m"
        _apply(store, "q", NEW)
        assert store.present("m").id == "m~q"
        assert store.present("m", "later").id == "m~q"
        assert store.present("m", "q").id == "m"


def test_a_store_of_the_version_before_is_upgraded(tmp_path: Path) -> None:
    with ModelStore(tmp_path, "ann") as store:
        store.add(_record("m", OLD), OLD)
    with sqlite3.connect(tmp_path / "index.db") as db:
        db.execute("DROP TABLE prepared")
        db.execute("DROP TABLE curvatures")
        db.execute("PRAGMA user_version = 6")
    with ModelStore(tmp_path, "ann") as store:
        store.prepare("q", "m", NEW, b"")
    with sqlite3.connect(tmp_path / "index.db") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
