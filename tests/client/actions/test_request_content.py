"""Content of requests: an owner refuses a known id with another content."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from disinherit.client.actions.fisher import forget_fishers
from disinherit.client.actions.undo import destroy, roll_back
from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening.summaries import register
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import collect, files_of, make_method, make_task
from tests.support.owner import LABELS, PointsOwner

METHOD = make_method(gauge=3.0)
CATS, DOGS = "c" * 64, "d" * 64
REFUSED = "this owner did something else for 'forget'"


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[PointsOwner]:
    """Cats were forgotten in "m"; "n" is unchanged."""
    with PointsOwner(tmp_path / "anna", "anna") as owner:
        owner.train("m", LABELS, 1)
        owner.train("n", LABELS, 2, start=[owner.store.weights("m")], steps=3)
        register(owner, pb.RegisterTask(scope="head"))
        (done,) = unlearn(owner, task(owner, ["m"], "cat", CATS)).models
        assert done.outcome == pb.OUTCOME_APPLIED, done.error
        assert done.request_digest == CATS
        yield owner


def task(owner: PointsOwner, models: list[str], name: str, digest: str) -> pb.UnlearnTask:
    made = make_task(owner, models, collect(owner, "n", [name], METHOD), METHOD)
    made.request_digest = digest
    return made


def back(owner: PointsOwner, digest: str) -> pb.RollBackTask:
    model = pb.ModelRollBack(model_id="m", digest=owner.store.record("m").digest)
    return pb.RollBackTask(request_id="forget", request_digest=digest, models=[model])


@pytest.mark.parametrize("model", ["m", "n"])
def test_another_content_changes_nothing_in_any_model(owner: PointsOwner, model: str) -> None:
    before = files_of(owner.store.root)
    (result,) = unlearn(owner, task(owner, [model], "dog", DOGS)).models
    assert result.outcome == pb.OUTCOME_FAILED
    assert REFUSED in result.error
    assert "Submit it under another id" in result.error
    assert files_of(owner.store.root) == before


def test_the_same_content_is_already_applied(owner: PointsOwner) -> None:
    (result,) = unlearn(owner, task(owner, ["m"], "cat", CATS)).models
    assert result.outcome == pb.OUTCOME_ALREADY_APPLIED
    assert result.request_digest == CATS


def test_task_without_a_digest_gets_the_recorded_result(
    owner: PointsOwner,
) -> None:
    (result,) = unlearn(owner, task(owner, ["m"], "cat", "")).models
    assert (result.outcome, result.request_digest) == (pb.OUTCOME_ALREADY_APPLIED, CATS)


def test_no_fisher_information_is_released_for_another_content(owner: PointsOwner) -> None:
    root = pb.Root(model_id="n", classes=["dog"])
    asked = pb.FisherTask(
        request_id="forget", roots=[root], method=METHOD.to_proto(), request_digest=DOGS
    )
    (answer,) = forget_fishers(owner, asked).roots
    assert REFUSED in answer.error
    assert not answer.packets
    asked.request_digest = CATS
    assert not forget_fishers(owner, asked).roots[0].error


def test_another_content_rolls_nothing_back_and_destroys_nothing(owner: PointsOwner) -> None:
    before = files_of(owner.store.root)
    (refused,) = roll_back(owner, back(owner, DOGS)).models
    assert refused.outcome == pb.OUTCOME_FAILED
    assert REFUSED in refused.error
    digest = owner.store.record("m").digest
    model = pb.ModelDestruction(model_id="m", digest=digest)
    destruction = pb.DestroyTask(request_id="forget", request_digest=DOGS, models=[model])
    (kept,) = destroy(owner, destruction).models
    assert kept.outcome == pb.OUTCOME_FAILED
    assert REFUSED in kept.error
    assert files_of(owner.store.root) == before
    destruction.request_digest = CATS
    assert destroy(owner, destruction).models[0].outcome == pb.OUTCOME_APPLIED


def test_roll_backs_are_recorded_with_their_content(owner: PointsOwner) -> None:
    assert roll_back(owner, back(owner, CATS)).models[0].outcome == pb.OUTCOME_APPLIED
    (result,) = unlearn(owner, task(owner, ["n"], "dog", DOGS)).models
    assert REFUSED in result.error
