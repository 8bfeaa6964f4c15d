"""Accuracy on what is to be kept: measured where it is asked for, and told apart from no data."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from client_tasks import collect, make_method, make_task
from owner_fixture import LABELS, PointsOwner, make_points
from torch import Tensor

from disinherit.client.evaluating import evaluate
from disinherit.client.owner import Batches
from disinherit.client.unlearning import unlearn
from disinherit.common.records import ModelRecord
from disinherit.v1 import unlearning_pb2 as pb

METHOD = make_method(scope="all", row_scoped=False, alpha=0.01, lam=0.01)


class Choosy(PointsOwner):
    """An owner that has an evaluation split, or a tuning split, or neither."""

    evaluates = True

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        return super().evaluation_data(record) if self.evaluates else None


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Choosy]:
    owner = Choosy(tmp_path / "anna", "anna")
    with owner:
        owner.train("m", LABELS, created_us=1)
        yield owner


def measured(owner: Choosy) -> pb.ModelResult:
    task = make_task(owner, ["m"], collect(owner, "m", ["cat"], METHOD), METHOD)
    task.measure_retain = True
    (result,) = unlearn(owner, task).models
    assert result.outcome == pb.OUTCOME_APPLIED, result.error
    (again,) = unlearn(owner, task).models
    assert again.outcome == pb.OUTCOME_ALREADY_APPLIED
    assert again.HasField("retain_after") == result.HasField("retain_after")
    assert again.retain_after == result.retain_after
    return result


def kept(owner: Choosy, weights: dict[str, Tensor]) -> float:
    """Accuracy on all but cats, counted here."""
    network = owner.network(owner.store.record("m"))
    network.load_state_dict(weights)
    split = "evaluation" if owner.evaluates else "tuning"
    inputs, targets = make_points("anna", split, LABELS, LABELS[1:])  # type: ignore[arg-type]
    with torch.no_grad():
        right = network(inputs).argmax(1) == targets
    return float(right.double().mean())


@pytest.mark.parametrize("evaluates", [True, False])
def test_it_is_the_accuracy_on_the_other_classes(owner: Choosy, evaluates: bool) -> None:
    owner.evaluates = evaluates
    result = measured(owner)
    before, after = (owner.store.weights(model) for model in ("m", "m~forget"))
    assert result.retain_before == pytest.approx(kept(owner, before), abs=1e-12)
    assert result.retain_after == pytest.approx(kept(owner, after), abs=1e-12)
    assert result.retain_after < result.retain_before


def test_without_data_nothing_is_said(owner: Choosy) -> None:
    owner.evaluates = owner.tuning = False
    result = measured(owner)
    assert not result.HasField("retain_before")
    assert not result.HasField("retain_after")


def test_it_is_measured_only_where_it_is_asked_for(owner: Choosy) -> None:
    task = make_task(owner, ["m"], collect(owner, "m", ["cat"], METHOD), METHOD)
    (result,) = unlearn(owner, task).models
    assert not result.HasField("retain_before")
    assert evaluate(owner, pb.EvaluateTask(model_ids=["m~forget"])).models[0].digest
