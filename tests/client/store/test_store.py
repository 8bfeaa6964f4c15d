"""The model store: round trips, refusals, and requests that are applied exactly once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from disinherit.client.store.ledger import Commit, Forgotten, LedgerEntry
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import CheckpointError, FisherError, StoreError
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.graph.records import ModelStatus, Provenance
from disinherit.common.tensors.checkpoints import weights_digest
from tests.support.stored_models import (
    assert_same_fishers,
    assert_same_tensors,
    make_application,
    make_fishers,
    make_record,
    make_weights,
    object_names,
    state_of,
)

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


def test_the_folder_may_be_given_as_text(tmp_path: Path) -> None:
    with ModelStore(str(tmp_path / "store"), "anna") as store:
        assert store.root == tmp_path / "store"
