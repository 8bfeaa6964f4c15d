"""Retain accuracy: measured if there is data, and absent otherwise."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from disinherit.client.actions.evaluate import evaluate
from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening.summaries import register
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import collect, make_method, make_task
from tests.support.owner import LABELS, SAMPLES, PointsOwner, make_points

METHOD = make_method(scope="all", row_scoped=False, alpha=0.01, lam=0.01)


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[PointsOwner]:
    owner = PointsOwner(tmp_path / "anna", "anna")
    with owner:
        owner.train("m", LABELS, created_us=1)
        yield owner


def measured(owner: PointsOwner) -> pb.ModelResult:
    task = make_task(owner, ["m"], collect(owner, "m", ["cat"], METHOD), METHOD)
    task.max_retain_drop = 100  # the strengths of this module are strong
    (result,) = unlearn(owner, task).models
    assert result.outcome == pb.OUTCOME_APPLIED, result.error
    (again,) = unlearn(owner, task).models
    assert again.outcome == pb.OUTCOME_ALREADY_APPLIED
    assert again.HasField("retain_after") == result.HasField("retain_after")
    assert again.retain_after == result.retain_after
    return result


def kept(owner: PointsOwner, weights: dict[str, Tensor]) -> float:
    """Accuracy on all classes except cats, computed here."""
    network = owner.network(owner.store.record("m"))
    network.load_state_dict(weights)
    split = "evaluation" if owner.evaluates else "tuning"
    inputs, targets = make_points("anna", split, LABELS, LABELS[1:])  # type: ignore[arg-type]
    with torch.no_grad():
        right = network(inputs).argmax(1) == targets
    return float(right.double().mean())


@pytest.mark.parametrize("evaluates", [True, False])
def test_retain_accuracy_is_of_the_other_classes(owner: PointsOwner, evaluates: bool) -> None:
    owner.evaluates = evaluates
    result = measured(owner)
    before, after = (owner.store.weights(model) for model in ("m", "m~forget"))
    assert result.retain_before == pytest.approx(kept(owner, before), abs=1e-12)
    assert result.retain_after == pytest.approx(kept(owner, after), abs=1e-12)
    assert result.retain_after < result.retain_before


def test_retain_accuracy_is_absent_without_data(owner: PointsOwner) -> None:
    register(owner, pb.RegisterTask(scope="all"))
    owner.lose_data()
    result = measured(owner)
    assert not result.HasField("retain_before")
    assert not result.HasField("retain_after")


def test_retain_accuracy_is_always_measured(owner: PointsOwner) -> None:
    task = make_task(owner, ["m"], collect(owner, "m", ["cat"], METHOD), METHOD)
    (result,) = unlearn(owner, task).models
    assert result.HasField("retain_before")
    assert result.retain_samples == SAMPLES["evaluation"] * (len(LABELS) - 1)


def test_retain_accuracy_falls_back_to_training_data(owner: PointsOwner) -> None:
    owner.evaluates = owner.tuning = False
    result = measured(owner)
    assert result.forget.source == "training"
    assert result.retain_samples == SAMPLES["train"] * (len(LABELS) - 1)
    assert evaluate(owner, pb.EvaluateTask(model_ids=["m~forget"])).models[0].digest
