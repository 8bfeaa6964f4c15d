"""The model store: round trips, refusals, exactly once, damage, crashes and several processes."""

import fcntl
import os
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from disinherit.client.store.ledger import Commit, Forgotten, LedgerEntry
from disinherit.client.store.store import ModelStore
from disinherit.common import files
from disinherit.common.errors import CheckpointError, FisherError, InputError, StoreError
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.graph.records import ModelRecord, ModelStatus, Provenance
from disinherit.common.tensors.checkpoints import save_checkpoint, weights_digest
from tests.acceptance.chaos.forking import exit_code, fork

LABELS = ("cat", "dog", "owl")


def make_weights(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "head.weight": torch.randn(3, 4, generator=generator),
        "head.bias": torch.randn(3, generator=generator),
    }


def make_record(model_id: str = "m", seed: int = 0, **changes: Any) -> ModelRecord:
    record = ModelRecord(
        id=model_id,
        owner="anna",
        architecture="net",
        labels=LABELS,
        digest=weights_digest(make_weights(seed)),
        created_us=1,
        provenance=Provenance("pets", {"cat": 2, "dog": 3}, "ab" * 32),
    )
    return replace(record, **changes)


def make_fishers(value: float = 1.0) -> ClassFishers:
    return ClassFishers(
        {"head.weight": torch.full((3, 3, 4), value), "head.bias": torch.full((3, 3), value)},
        torch.tensor([2, 3, 0]),
    )


def make_application(**changes: Any) -> Commit:
    application = Commit(
        request_id="forget-cats",
        model_id="m",
        expected_digest=weights_digest(make_weights(0)),
        successor=make_record("m~1", seed=1, created_us=2, provenance=None),
        weights=make_weights(1),
        result=b"\x00reply",
        fishers=make_fishers(2.0),
        fisher_scope="head",
    )
    return replace(application, **changes)


def assert_same_tensors(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def assert_same_fishers(left: tuple[ClassFishers, str] | None, right: ClassFishers) -> None:
    assert left is not None
    assert_same_tensors(left[0].sums, right.sums)
    assert torch.equal(left[0].counts, right.counts)


def object_names(root: Path) -> set[str]:
    return {path.name for path in (root / "objects").iterdir()}


def state_of(store: ModelStore) -> object:
    """The whole readable content."""
    return [
        (record, weights_digest(store.weights(record.id)), store.fishers(record.id) is None)
        for record in store.records()
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "anna"


@pytest.fixture
def store(root: Path) -> Any:
    with ModelStore(root, "anna") as store:
        yield store


# --- models and Fisher summaries


def test_a_model_comes_back_after_reopening(store: ModelStore, root: Path) -> None:
    assert store.add(make_record(), make_weights()) == make_record()
    store.close()
    with ModelStore(root, "anna") as reopened:
        assert reopened.record("m") == make_record()
        assert_same_tensors(reopened.weights("m"), make_weights())
        assert reopened.fishers("m") is None


def test_a_fisher_summary_comes_back_with_its_scope(store: ModelStore, root: Path) -> None:
    added = store.add(make_record(), make_weights(), make_fishers(), "head")
    assert len(added.fisher_digest) == 64
    assert store.record("m") == added == replace(make_record(), fisher_digest=added.fisher_digest)
    store.close()
    with ModelStore(root, "anna") as reopened:
        found = reopened.fishers("m")
        assert_same_fishers(found, make_fishers())
        assert found is not None
        assert found[1] == "head"


def test_a_replaced_fisher_summary_is_removed_at_the_next_opening(
    store: ModelStore, root: Path
) -> None:
    store.add(make_record(), make_weights(), make_fishers(1.0), "head")
    record = store.set_fishers("m", make_fishers(2.0), "all")
    assert store.record("m") == record
    assert len(object_names(root)) == 3
    with ModelStore(root, "anna") as reopened:
        assert object_names(root) == {
            f"{digest}.safetensors" for digest in (record.digest, record.fisher_digest)
        }
        found = reopened.fishers("m")
        assert_same_fishers(found, make_fishers(2.0))
        assert found is not None
        assert found[1] == "all"


def test_records_come_oldest_first(store: ModelStore) -> None:
    assert store.records() == ()
    for model_id, created in (("b", 5), ("c", 5), ("a", 9), ("d", 1)):
        store.add(make_record(model_id, created_us=created), make_weights())
    assert [record.id for record in store.records()] == ["d", "b", "c", "a"]


def test_versions_with_the_same_weights_share_a_file(store: ModelStore, root: Path) -> None:
    store.add(make_record("a"), make_weights())
    store.add(make_record("b"), make_weights())
    assert len(object_names(root)) == 1


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=st.lists(st.text(), unique=True),
    architecture=st.text(),
    created=st.integers(0, 2**63 - 1),
    provenance=st.none()
    | st.builds(
        Provenance,
        st.text(),
        st.dictionaries(st.text(), st.integers(0, 2**40)),
        st.text("0123456789abcdef"),
    ),
    status=st.sampled_from(ModelStatus),
)
def test_records_are_unchanged_after_reopening(
    tmp_path_factory: pytest.TempPathFactory,
    labels: list[str],
    architecture: str,
    created: int,
    provenance: Provenance | None,
    status: ModelStatus,
) -> None:
    record = make_record(
        labels=tuple(labels),
        architecture=architecture,
        created_us=created,
        provenance=provenance,
        status=status,
    )
    with ModelStore(tmp_path_factory.mktemp("store"), "anna") as store:
        store.add(record, make_weights())
        assert store.record("m") == record


def test_adding_again_changes_nothing_but_repairs(store: ModelStore, root: Path) -> None:
    added = store.add(make_record(), make_weights(), make_fishers(), "head")
    (root / "objects" / f"{added.digest}.safetensors").write_bytes(b"damage")
    changed = replace(added, created_us=99, status=ModelStatus.RETIRED)
    assert store.add(changed, make_weights()) == added
    assert store.record("m") == added
    assert_same_tensors(store.weights("m"), make_weights())
    again = store.add(make_record(), make_weights(), make_fishers(3.0), "all")
    assert again.fisher_digest != added.fisher_digest
    assert_same_fishers(store.fishers("m"), make_fishers(3.0))


def test_refused_models_leave_nothing(store: ModelStore, root: Path) -> None:
    store.add(make_record(), make_weights())
    before, files = state_of(store), object_names(root)
    other, digest = make_record(seed=1), make_record().digest
    with pytest.raises(StoreError, match=f"{other.digest}, and the store has it with {digest}"):
        store.add(other, make_weights(1))
    with pytest.raises(StoreError, match=f"digest {digest} for model 'n', but got {other.digest}"):
        store.add(make_record("n"), make_weights(1))
    with pytest.raises(StoreError, match="model of 'anna', but got 'n' of 'bert'"):
        store.add(make_record("n", owner="bert"), make_weights())
    with pytest.raises(StoreError, match="only its digest ff"):
        store.add(make_record("n", fisher_digest="ff"), make_weights())
    two = ClassFishers({"head.bias": torch.zeros(2, 3)}, torch.tensor([1, 1]))
    with pytest.raises(FisherError, match="3 classes for model 'n', but got 2"):
        store.add(make_record("n", seed=1), make_weights(1), two)
    with pytest.raises(StoreError, match="surrogates"):
        store.add(make_record("n", architecture="\ud800"), make_weights())
    sparse = {"x": torch.eye(2).to_sparse()}
    with pytest.raises(CheckpointError, match="dense tensor"):
        store.add(make_record("n"), sparse)
    assert state_of(store) == before
    store.close()
    with ModelStore(root, "anna") as reopened:
        assert state_of(reopened) == before
        assert object_names(root) == files


@pytest.mark.parametrize("method", ["record", "weights", "fishers"])
def test_an_unknown_model_is_refused_by_name(store: ModelStore, method: str) -> None:
    with pytest.raises(StoreError, match="'nobody', which is not there"):
        getattr(store, method)("nobody")
    with pytest.raises(StoreError, match="'nobody'"):
        store.set_fishers("nobody", make_fishers(), "head")


# --- ledger


def test_apply_makes_successor_and_entry(store: ModelStore, root: Path) -> None:
    store.add(make_record(), make_weights(), make_fishers(), "head")
    application = make_application()
    digest = application.expected_digest
    assert store.applied("forget-cats", digest) is None
    entry = store.apply(application)
    assert entry == LedgerEntry(
        "forget-cats",
        "m",
        digest,
        "m~1",
        application.successor.digest,
        b"\x00reply",
        forgotten=Forgotten(),
    )
    store.close()
    with ModelStore(root, "anna") as reopened:
        assert reopened.applied("forget-cats", digest) == entry
        assert reopened.applied("forget-cats", digest, "m") == entry
        assert reopened.applied("forget-dogs", digest) is None
        assert reopened.applied("forget-cats", entry.digest_after) is None
        assert reopened.record("m").status is ModelStatus.SUPERSEDED
        successor = reopened.record("m~1")
        fisher_digest = successor.fisher_digest
        assert successor == replace(application.successor, fisher_digest=fisher_digest)
        assert_same_tensors(reopened.weights("m"), make_weights(0))
        assert_same_tensors(reopened.weights("m~1"), make_weights(1))
        assert_same_fishers(reopened.fishers("m"), make_fishers(1.0))
        assert_same_fishers(reopened.fishers("m~1"), make_fishers(2.0))


def test_a_successor_becomes_active_and_needs_no_fishers(store: ModelStore) -> None:
    store.add(make_record(status=ModelStatus.RETIRED), make_weights())
    retired = replace(make_application().successor, status=ModelStatus.RETIRED)
    store.apply(make_application(successor=retired, fishers=None))
    assert store.record("m~1").status is ModelStatus.ACTIVE
    assert store.fishers("m~1") is None


def test_repeated_message_returns_the_recorded_entry(store: ModelStore, root: Path) -> None:
    store.add(make_record(), make_weights())
    entry = store.apply(make_application())
    before, files = state_of(store), object_names(root)
    repeated = make_application(
        successor=make_record("m~2", seed=2), weights=make_weights(2), result=b"other"
    )
    assert store.apply(repeated) == entry
    assert (state_of(store), object_names(root)) == (before, files)


def test_later_requests_apply_to_successors(store: ModelStore) -> None:
    store.add(make_record(), make_weights())
    first = store.apply(make_application())
    second = store.apply(
        Commit(
            "forget-dogs", "m~1", first.digest_after, make_record("m~2", 2), make_weights(2), b"2"
        )
    )
    assert [record.status.value for record in store.records()] == [
        "superseded",
        "active",
        "superseded",
    ]
    assert store.applied("forget-dogs", first.digest_after) == second
    assert store.apply(make_application()) == first


def test_versions_with_the_same_weights_are_unlearned_in_each(store: ModelStore) -> None:
    store.add(make_record("a"), make_weights())
    store.add(make_record("b"), make_weights())
    digest = make_record().digest
    entries = [
        store.apply(make_application(model_id=i, successor=make_record(f"{i}~1", seed=1)))
        for i in ("a", "b")
    ]
    assert [entry.successor_id for entry in entries] == ["a~1", "b~1"]
    assert [store.applied("forget-cats", digest, i) for i in ("a", "b")] == entries
    with pytest.raises(StoreError, match=r"2 models have it: \['a', 'b'\]"):
        store.applied("forget-cats", digest)


def test_unlearning_that_changes_no_weight_is_recorded_too(store: ModelStore) -> None:
    store.add(make_record(), make_weights())
    digest = make_record().digest
    for request, model in (("one", "m"), ("two", "m~1")):
        entry = store.apply(
            Commit(
                request, model, digest, make_record(f"{model}~1"), make_weights(), request.encode()
            )
        )
        assert entry.digest_before == entry.digest_after == digest
        # The successor is the same model: its weights are not those of another version.
        assert store.applied(request, digest) == entry
    assert store.record("m~1~1").status is ModelStatus.ACTIVE


def refused_applications() -> list[Any]:
    old, new, other = (weights_digest(make_weights(seed)) for seed in (0, 1, 2))
    successor = make_application().successor
    return [
        pytest.param({"model_id": "nobody"}, "'nobody', which is not there", id="unknown"),
        pytest.param({"expected_digest": other}, f"digest {other} .* got {old}", id="stale"),
        pytest.param(
            {"weights": make_weights(2)}, f"digest {new} .*'m~1', but got {other}", id="weights"
        ),
        pytest.param({"successor": replace(successor, owner="bert")}, "of 'bert'", id="owner"),
        pytest.param({"successor": replace(successor, id="m")}, "Expected a new id", id="itself"),
        pytest.param(
            {"successor": replace(successor, fisher_digest="ff")}, "without a Fisher", id="fisher"
        ),
        pytest.param(
            {"successor": replace(successor, id="other")},
            f"'other' with digest {new}, and the store has it with {other}",
            id="taken",
        ),
        pytest.param(
            {"successor": replace(successor, id="gone")}, "'gone', which is retired", id="retired"
        ),
        pytest.param(
            {"successor": replace(successor, labels=("cat",))}, "1 classes for model", id="classes"
        ),
    ]


@pytest.mark.parametrize(("changes", "words"), refused_applications())
def test_refused_applications_change_nothing(
    store: ModelStore, root: Path, changes: dict[str, Any], words: str
) -> None:
    store.add(make_record(), make_weights())
    store.add(make_record("other", 2), make_weights(2))
    store.add(make_record("gone", 1, status=ModelStatus.RETIRED), make_weights(1))
    before = state_of(store)
    with pytest.raises((StoreError, FisherError), match=words):
        store.apply(make_application(**changes))
    assert state_of(store) == before
    assert store.applied("forget-cats", make_record().digest) is None
    store.close()
    with ModelStore(root, "anna") as reopened:
        assert state_of(reopened) == before


def test_a_second_request_on_the_old_version_is_refused(store: ModelStore) -> None:
    store.add(make_record(), make_weights())
    entry = store.apply(make_application())
    before = state_of(store)
    application = make_application(
        request_id="forget-dogs", successor=make_record("m~2", 2), weights=make_weights(2)
    )
    words = f"digest {entry.digest_before} .*'m~1' with digest {entry.digest_after}.*forget-dogs"
    with pytest.raises(StoreError, match=words):
        store.apply(application)
    assert state_of(store) == before


def test_a_successor_registered_before_is_taken_over(store: ModelStore) -> None:
    store.add(make_record(), make_weights())
    successor = store.add(make_application().successor, make_weights(1))
    store.apply(make_application(fishers=None))
    assert store.record("m~1") == successor


# --- damage and unusable folders


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


# --- threads and processes


def test_opening_waits_for_a_write_of_another_store(
    store: ModelStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.1)
    written, go_on = threading.Event(), threading.Event()
    replace_file = os.replace

    def pause_after(source: Any, target: Any) -> None:
        replace_file(source, target)
        written.set()
        assert go_on.wait(30)

    monkeypatch.setattr(os, "replace", pause_after)
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(store.add, make_record(), make_weights())
        try:
            assert written.wait(30)
            # The object exists and is not in the index yet: it must not be removed.
            with pytest.raises(StoreError, match="another process has been holding it"):
                ModelStore(root, "anna")
        finally:
            go_on.set()
        adding.result()
    with ModelStore(root, "anna") as second:
        assert_same_tensors(second.weights("m"), make_weights())


def test_readers_share_and_a_writer_waits(
    store: ModelStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.1)
    store.add(make_record(), make_weights())
    with (root / "lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert_same_tensors(store.weights("m"), make_weights())
        with pytest.raises(StoreError, match="holding it"):
            store.apply(make_application())
    assert store.record("m").status is ModelStatus.ACTIVE
    assert store.apply(make_application()).model_id == "m"


def test_threads_may_share_a_store(store: ModelStore) -> None:
    store.add(make_record(), make_weights())

    def work(number: int) -> LedgerEntry:
        store.add(make_record(f"n{number}", number), make_weights(number))
        return store.apply(make_application(result=str(number).encode()))

    with ThreadPoolExecutor(4) as pool:
        entries = list(pool.map(work, range(12)))
    assert len(set(entries)) == 1
    assert len(store.records()) == 14
    assert all(store.weights(f"n{number}") for number in range(12))


def test_processes_take_turns(root: Path) -> None:
    ModelStore(root, "anna").close()

    def work(number: int) -> None:
        for turn in range(6):
            with ModelStore(root, "anna") as store:
                seed = 100 * number + turn
                store.add(make_record("m"), make_weights())
                store.add(make_record(f"n{seed}", seed), make_weights(seed))
                store.apply(make_application(result=str(number).encode()))

    children = [fork(partial(work, number)) for number in (1, 2, 3)]
    assert [exit_code(child) for child in children] == [0, 0, 0]
    with ModelStore(root, "anna") as store:
        assert len(store.records()) == 2 + 18
        assert all(store.weights(record.id) for record in store.records())
        entry = store.applied("forget-cats", make_record().digest)
        assert entry is not None
        assert entry.result in (b"1", b"2", b"3")


# --- crashes


class Fuse:
    """Kills this process at its n-th step: around file operations, at SQL statements."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: Any, **kwargs: Any) -> Any:
            self.step()
            result = operation(*args, **kwargs)
            self.step()
            return result

        return stepped

    def light(self, patch: pytest.MonkeyPatch) -> None:
        for name in ("open", "close", "fsync", "replace", "unlink", "mkdir"):
            patch.setattr(os, name, self.around(getattr(os, name)))
        patch.setattr(fcntl, "flock", self.around(fcntl.flock))
        connect, fdopen = sqlite3.connect, os.fdopen

        def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **kwargs)
            connection.set_trace_callback(self.step)
            return connection

        def torn(*args: Any, **kwargs: Any) -> IO[bytes]:
            file: IO[bytes] = fdopen(*args, **kwargs)
            write = file.write

            class Torn:
                def __enter__(self) -> Any:
                    file.__enter__()
                    return self

                def __exit__(self, *error: Any) -> None:
                    file.__exit__(*error)

                def write(_, data: bytes) -> None:  # noqa: N805
                    write(data[: len(data) // 2])
                    file.flush()
                    self.step()
                    write(data[len(data) // 2 :])

                def __getattr__(self, name: str) -> Any:
                    return getattr(file, name)

            return Torn()  # type: ignore[return-value]

        patch.setattr(sqlite3, "connect", traced)
        patch.setattr(os, "fdopen", torn)


def crash_everywhere(
    tmp_path: Path, base: Path | None, work: Callable[[Path], None], check: Callable[[Path], str]
) -> list[str]:
    """Run `work` on copies of `base`, killed one step later each time, until it completes."""
    seen = []
    for steps in range(1, 500):
        root = tmp_path / f"crash-{steps}"
        if base is not None:
            shutil.copytree(base, root)

        def child(steps: int = steps, root: Path = root) -> None:
            with pytest.MonkeyPatch.context() as patch:
                fuse = Fuse(steps)
                fuse.light(patch)
                work(root)
                fuse.step()

        code = exit_code(fork(child))
        assert code in (0, -signal.SIGKILL)
        seen.append(check(root))
        assert {path.name for path in root.iterdir()} == {"index.db", "lock", "objects"}
        shutil.rmtree(root)
        if code == 0:
            return seen
    raise AssertionError("Expected the work to get through in 500 steps.")


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


def test_the_folder_may_be_given_as_text(tmp_path: Path) -> None:
    with ModelStore(str(tmp_path / "store"), "anna") as store:
        assert store.root == tmp_path / "store"
