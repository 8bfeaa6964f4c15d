"""Roll-backs at an owner: the old version current again, once, and never below later requests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from disinherit.client.actions.undo import roll_back
from disinherit.client.actions.unlearn import unlearn
from disinherit.client.client_app import build_client_app
from disinherit.client.dampening.summaries import register
from disinherit.client.store.ledger import Commit, RollBack
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import CheckpointError, StoreError
from disinherit.common.graph.records import ModelStatus
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.wire.flower import pack, unpack
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import collect, make_method, make_task
from tests.support.crashing import crash_everywhere
from tests.support.flower_messages import RecordDict, call
from tests.support.owner import LABELS, PointsOwner
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

METHOD = make_method()
OLD, NEW = make_record().digest, make_record(seed=1).digest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "anna"


@pytest.fixture
def store(root: Path) -> Iterator[ModelStore]:
    """A store in which the request "forget-cats" made "m~1" of "m"."""
    with ModelStore(root, "anna") as store:
        store.add(make_record(), make_weights(), make_fishers(), "head")
        store.apply(make_application())
        yield store


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[PointsOwner]:
    """Two models with registered summaries."""
    with PointsOwner(tmp_path / "anna", "anna") as owner:
        owner.train("m", LABELS, 1)
        owner.train("n", LABELS[:3], 2, start=[owner.store.weights("m")])
        register(owner, pb.RegisterTask(scope="head"))
        yield owner


def statuses(store: ModelStore) -> dict[str, str]:
    return {record.id: record.status.value for record in store.records()}


def asked(owner: PointsOwner, *models: str, request_id: str = "forget") -> pb.RollBackTask:
    return pb.RollBackTask(
        request_id=request_id,
        models=[pb.ModelRollBack(model_id=m, digest=owner.store.record(m).digest) for m in models],
    )


def forget(owner: PointsOwner, *models: str, request_id: str = "forget") -> pb.UnlearnReply:
    packet = collect(owner, "m", ["cat"], METHOD)
    task = make_task(owner, list(models), packet, METHOD)
    task.request_id = request_id
    return unlearn(owner, task)


# The store


def test_the_old_version_is_current_again_and_the_new_one_retired(
    store: ModelStore, root: Path
) -> None:
    files = object_names(root)
    made = store.roll_back("forget-cats", "m", OLD)
    assert made == RollBack("forget-cats", "m", OLD, "m~1")
    store.close()
    with ModelStore(root, "anna") as reopened:
        assert statuses(reopened) == {"m": "active", "m~1": "retired"}
        assert reopened.applied("forget-cats", OLD) is None
        assert reopened.rolled_back("forget-cats", "m") == made
        assert reopened.rolled_back("forget-dogs", "m") is None
        assert_same_tensors(reopened.weights("m"), make_weights(0))
        assert_same_fishers(reopened.fishers("m"), make_fishers(1.0))
        assert object_names(root) == files


def test_a_repeated_message_changes_nothing(store: ModelStore) -> None:
    made = store.roll_back("forget-cats", "m", OLD)
    before = state_of(store)
    assert store.roll_back("forget-cats", "m", OLD) == made
    # Not even after another request.
    second = Commit("again", "m", OLD, make_record("m~2", 2), make_weights(2), b"2")
    store.apply(second)
    assert store.roll_back("forget-cats", "m", OLD) == made
    assert statuses(store) == {"m": "superseded", "m~1": "retired", "m~2": "active"}
    assert state_of(store) != before


def test_a_request_that_was_rolled_back_is_not_applied_any_more(store: ModelStore) -> None:
    store.roll_back("forget-cats", "m", OLD)
    before = state_of(store)
    with pytest.raises(StoreError, match="'forget-cats' was in model 'm'.*another id"):
        store.apply(make_application(successor=make_record("m~2", seed=2), weights=make_weights(2)))
    assert state_of(store) == before


def test_a_request_that_comes_after_its_roll_back_is_not_applied(root: Path) -> None:
    with ModelStore(root, "anna") as store:
        store.add(make_record(), make_weights())
        assert store.roll_back("forget-cats", "m", OLD) == RollBack("forget-cats", "m", OLD, "")
        assert statuses(store) == {"m": "active"}
        with pytest.raises(StoreError, match="not rolled back"):
            store.apply(make_application())
        store.apply(make_application(request_id="another"))
        assert statuses(store) == {"m": "superseded", "m~1": "active"}


def test_changes_of_another_request_stay(store: ModelStore) -> None:
    assert store.roll_back("forget-dogs", "m", OLD).retired_id == ""
    assert statuses(store) == {"m": "superseded", "m~1": "active"}
    assert store.applied("forget-cats", OLD) is not None


def test_roll_back_is_refused_until_later_requests_are_rolled_back(store: ModelStore) -> None:
    store.apply(Commit("later", "m~1", NEW, make_record("m~2", 2), make_weights(2), b"2"))
    before = state_of(store)
    with pytest.raises(StoreError, match="request 'later' made 'm~2' of it. Roll that"):
        store.roll_back("forget-cats", "m", OLD)
    assert state_of(store) == before
    store.roll_back("later", "m~1", NEW)
    assert statuses(store) == {"m": "superseded", "m~1": "active", "m~2": "retired"}
    store.roll_back("forget-cats", "m", OLD)
    assert statuses(store) == {"m": "active", "m~1": "retired", "m~2": "retired"}


@pytest.mark.parametrize(
    ("model", "digest", "words"),
    [("nobody", OLD, "'nobody'"), ("m", NEW, "Expected digest"), ("m", "", "Expected digest")],
)
def test_another_version_is_refused(store: ModelStore, model: str, digest: str, words: str) -> None:
    before = state_of(store)
    with pytest.raises(StoreError, match=words):
        store.roll_back("forget-cats", model, digest)
    assert state_of(store) == before


def test_weights_that_are_gone_or_damaged_are_not_put_back(store: ModelStore, root: Path) -> None:
    path = root / "objects" / f"{OLD}.safetensors"
    data = path.read_bytes()
    for damage in (None, data[:-1]):
        path.unlink()
        if damage is not None:
            path.write_bytes(damage)
        with pytest.raises(CheckpointError, match="model 'm'"):
            store.roll_back("forget-cats", "m", OLD)
        path.write_bytes(data)
        assert statuses(store) == {"m": "superseded", "m~1": "active"}
        assert store.rolled_back("forget-cats", "m") is None


def test_unchanged_weights_of_a_successor_have_one_holder(root: Path) -> None:
    with ModelStore(root, "anna") as store:
        store.add(make_record(), make_weights())
        store.apply(make_application(successor=make_record("m~1"), weights=make_weights()))
        store.roll_back("forget-cats", "m", OLD)
        assert store.applied("forget-cats", OLD) is None


def test_a_crash_while_rolling_back_leaves_old_or_new(store: ModelStore, tmp_path: Path) -> None:
    store.close()
    base = store.root

    def work(root: Path) -> None:
        with ModelStore(root, "anna") as store:
            store.roll_back("forget-cats", "m", OLD)

    def check(root: Path) -> str:
        with ModelStore(root, "anna") as store:
            made = store.rolled_back("forget-cats", "m")
            entry = store.applied("forget-cats", OLD)
            if made is None:
                assert statuses(store) == {"m": "superseded", "m~1": "active"}
                assert entry is not None
            else:
                assert statuses(store) == {"m": "active", "m~1": "retired"}
                assert entry is None
            # The message is repeated, and applied once.
            assert store.roll_back("forget-cats", "m", OLD).retired_id == "m~1"
            assert statuses(store) == {"m": "active", "m~1": "retired"}
            assert_same_tensors(store.weights("m"), make_weights(0))
            assert_same_tensors(store.weights("m~1"), make_weights(1))
        return "before" if made is None else "rolled back"

    seen = crash_everywhere(tmp_path, base, work, check)
    assert seen == sorted(seen)
    assert seen.count("before") > 20
    assert seen.count("rolled back") >= 2


# The handler


def test_every_listed_model_is_put_back_and_no_other(owner: PointsOwner) -> None:
    digests = {m: owner.store.record(m).digest for m in ("m", "n")}
    forget(owner, "m", "n")
    (result,) = roll_back(owner, asked(owner, "m")).models
    assert result == pb.RollBackResult(
        model_id="m", outcome=pb.OUTCOME_APPLIED, digest=digests["m"], retired_id="m~forget"
    )
    assert weights_digest(owner.store.weights("m")) == digests["m"]
    assert statuses(owner.store) == {
        "m": "active",
        "n": "superseded",
        "m~forget": "retired",
        "n~forget": "active",
    }
    (again,) = roll_back(owner, asked(owner, "m")).models
    result.outcome = pb.OUTCOME_ALREADY_APPLIED
    assert again == result


def test_delayed_task_of_a_rolled_back_request_is_refused(owner: PointsOwner) -> None:
    forget(owner, "m")
    roll_back(owner, asked(owner, "m", "n"))
    before = state_of(owner.store)
    reply = forget(owner, "m", "n")
    assert [result.outcome for result in reply.models] == [pb.OUTCOME_FAILED] * 2
    assert all("rolled back" in result.error for result in reply.models)
    assert state_of(owner.store) == before


def test_same_content_is_accepted_under_another_id(owner: PointsOwner) -> None:
    (first,) = forget(owner, "m").models
    roll_back(owner, asked(owner, "m"))
    (second,) = forget(owner, "m", request_id="anew").models
    assert second.outcome == pb.OUTCOME_APPLIED
    assert second.successor.id == "m~anew"
    assert second.successor.digest == first.successor.digest
    assert statuses(owner.store)["m"] == ModelStatus.SUPERSEDED


def test_failure_of_one_model_does_not_affect_others(owner: PointsOwner) -> None:
    forget(owner, "m", "n")
    task = asked(owner, "m", "n")
    task.models[0].digest = "00"
    task.models.add(model_id="nobody")
    failed, done, unknown = roll_back(owner, task).models
    assert (failed.outcome, done.outcome, unknown.outcome) == (
        pb.OUTCOME_FAILED,
        pb.OUTCOME_APPLIED,
        pb.OUTCOME_FAILED,
    )
    assert "Expected digest 00" in failed.error
    assert "'nobody'" in unknown.error
    (malformed,) = roll_back(
        owner, pb.RollBackTask(request_id="../x", models=task.models[:1])
    ).models
    assert "request id" in malformed.error


def test_roll_back_over_flower(owner: PointsOwner) -> None:
    forget(owner, "m")
    owner.store.close()

    def open_owner(_: Any) -> PointsOwner:
        return PointsOwner(owner.store.root, "anna")

    with open_owner(None) as opened:
        task = asked(opened, "m")
    content: RecordDict = pack(task)
    reply = unpack(
        call(build_client_app(open_owner), "train.rollback", content).content, pb.RollBackReply
    )
    assert reply.models[0].retired_id == "m~forget"
    with open_owner(None) as opened:
        assert opened.store.record("m").status is ModelStatus.ACTIVE
