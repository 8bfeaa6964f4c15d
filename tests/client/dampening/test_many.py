"""Stacked unlearning: the same records as one by one."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from disinherit.client.actions.evaluate import evaluate
from disinherit.client.actions.undo import roll_back
from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening import many
from disinherit.client.dampening.many import Stacking
from disinherit.client.dampening.problem import DampeningProblem
from disinherit.client.dampening.summaries import register
from disinherit.client.dampening.task_inputs import TaskInputs
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import CheckpointError, FisherError
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import collect, files_of, make_method, make_task
from tests.support.fisher_cases import all_sums
from tests.support.owner import LABELS, PointsOwner

METHOD = make_method()
MODELS = ["m", "n", "o", "p"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four models with registered summaries; "n" and "p" have other label spaces."""
    root = tmp_path_factory.mktemp("trained") / "anna"
    with PointsOwner(root, "anna") as owner:
        owner.train("m", LABELS, 1)
        start = [owner.store.weights("m")]
        owner.train("n", LABELS[:3], 2, labels=("owl", "cat", "dog"))
        owner.train("o", ("cat", "yak"), 3, start=start)
        owner.train("p", ("dog", "yak"), 4, labels=("dog", "yak"))  # nothing to forget
        register(owner, pb.RegisterTask(scope="all"))
    return root


@pytest.fixture
def owner(trained: Path, tmp_path: Path) -> Iterator[PointsOwner]:
    shutil.copytree(trained, tmp_path / "anna")
    with PointsOwner(tmp_path / "anna", "anna") as owner:
        yield owner


@pytest.fixture
def other(trained: Path, tmp_path: Path) -> Iterator[PointsOwner]:
    shutil.copytree(trained, tmp_path / "other")
    with PointsOwner(tmp_path / "other", "anna") as owner:
        yield owner


def one_by_one(owner: PointsOwner, task: pb.UnlearnTask) -> pb.UnlearnReply:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stacking, "unlearn", lambda self, models: {})
        return unlearn(owner, task)


def without_times(reply: pb.UnlearnReply) -> list[pb.ModelResult]:
    for result in reply.models:
        for name in ("fisher_seconds", "tune_seconds", "apply_seconds"):
            result.ClearField(name)
    return list(reply.models)


def held(store: ModelStore) -> dict[str, object]:
    """Every version as read, verified by its digest."""
    seen: dict[str, object] = {}
    for record in store.records():
        fishers = store.fishers(record.id)
        assert fishers is not None
        assert weights_digest(store.weights(record.id)) == record.digest
        sums = {name: value.tolist() for name, value in all_sums(fishers[0]).items()}
        seen[record.id] = record, sums, fishers[0].counts.tolist(), fishers[1]
    return seen


def own_files(owner: PointsOwner) -> int:
    return len(files_of(owner.store.root / "objects"))


@pytest.mark.parametrize(
    "changes", [{}, {"scope": "all", "row_scoped": False}, {"gauge": None, "reference": "all"}]
)
@pytest.mark.parametrize("batch", [256, 3])
def test_stacked_and_single_unlearning_agree_over_several_requests(
    owner: PointsOwner,
    other: PointsOwner,
    changes: dict[str, object],
    batch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(many, "BATCH_MODELS", batch)
    owner.lose_data()
    other.lose_data()
    method = make_method(**changes)
    models, before = MODELS, own_files(owner)
    for request, name in enumerate(["cat", "owl"]):
        packet = collect(owner, "m", [name], method)
        tasks = [make_task(o, models, packet, method, f"forget-{name}") for o in (owner, other)]
        together, alone = unlearn(owner, tasks[0]), one_by_one(other, tasks[1])
        reached = 3  # "p" knows neither cats nor owls
        applied = [r.model_id for r in together.models if r.outcome == pb.OUTCOME_APPLIED]
        assert applied == models[:reached]
        assert without_times(together) == without_times(alone)
        assert held(owner.store) == held(other.store)
        again = unlearn(owner, tasks[0])
        assert {r.outcome for r in again.models[:reached]} == {pb.OUTCOME_ALREADY_APPLIED}
        assert {r.outcome for r in again.models[reached:]} <= {pb.OUTCOME_NOT_REACHED}
        models = [f"{model}~forget-{name}" for model in applied] + models[reached:]
        # One file for each shape of changed tensors, not one or two for each model.
        assert own_files(owner) <= before + (request + 1) * 4
    with ModelStore(owner.store.root, "anna") as reopened:
        assert held(reopened) == held(other.store)
    verified = evaluate(owner, pb.EvaluateTask(model_ids=models, digests_only=True))
    assert [model.error for model in verified.models] == [""] * 4


def test_one_of_stacked_models_is_rolled_back_alone(owner: PointsOwner) -> None:
    owner.lose_data()
    task = make_task(owner, MODELS, collect(owner, "m", ["cat"], METHOD), METHOD)
    unlearn(owner, task)
    back = pb.RollBackTask(
        request_id="forget",
        models=[pb.ModelRollBack(model_id="m", digest=owner.store.record("m").digest)],
    )
    assert not roll_back(owner, back).models[0].error
    statuses = {record.id: record.status.value for record in owner.store.records()}
    assert (statuses["m"], statuses["m~forget"]) == ("active", "retired")
    assert (statuses["n"], statuses["n~forget"]) == ("superseded", "active")
    (late,) = unlearn(owner, make_task(owner, ["m"], task.fishers[0], METHOD)).models
    assert "was not rolled back" in late.error


def test_models_with_tuning_data_are_not_stacked(owner: PointsOwner) -> None:
    method = make_method(scope="all", alpha=None)
    packet = collect(owner, "m", ["cat"], method)
    reply = unlearn(owner, make_task(owner, ["m", "p"], packet, method))
    assert [result.tuned for result in reply.models] == [True, False]


@pytest.mark.parametrize("kept", ["evaluates", "tuning", "keeps_data"])
def test_models_with_data_to_measure_are_not_stacked(owner: PointsOwner, kept: str) -> None:
    packet = collect(owner, "m", ["cat"], METHOD)
    owner.lose_data()
    setattr(owner, kept, True)
    task = make_task(owner, ["m"], packet, METHOD)
    assert not Stacking(TaskInputs(owner, task)).unlearn(task.models)
    (result,) = unlearn(owner, task).models
    assert result.HasField("forget")


@pytest.mark.parametrize(
    ("error", "level"),
    [(FisherError("too large"), "INFO"), (ZeroDivisionError("a bug"), "WARNING")],
)
def test_reason_against_stacking_is_logged_once(
    owner: PointsOwner,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    level: str,
) -> None:
    """An unexpected reason is a warning, since it would only be slow otherwise."""

    def fail(*_: object) -> None:
        raise error

    owner.lose_data()
    monkeypatch.setattr(DampeningProblem, "scale", fail)
    task = make_task(owner, ["m", "o"], collect(owner, "m", ["cat"], METHOD), METHOD)
    with caplog.at_level("DEBUG", "disinherit.client.dampening.many"):
        assert not Stacking(TaskInputs(owner, task)).unlearn(task.models)
    logged = [r for r in caplog.records if r.name == "disinherit.client.dampening.many"]
    assert [r.levelname for r in logged] == [level, *["DEBUG"] * (level == "WARNING")]
    assert str(error) in logged[0].getMessage()
    assert all(r.exc_info and r.exc_info[1] is error for r in logged[1:])


def test_rewritten_version_needs_no_other_files(owner: PointsOwner) -> None:
    owner.lose_data()
    unlearn(owner, make_task(owner, ["m", "o"], collect(owner, "m", ["cat"], METHOD), METHOD))
    made = owner.store.record("m~forget")
    before = own_files(owner)
    owner.store.add(made, owner.store.weights(made.id), *owner.store.fishers(made.id) or ())
    assert own_files(owner) == before + 2
    with ModelStore(owner.store.root, "anna") as reopened:
        held(reopened)


@pytest.mark.parametrize("what", ["base", "pack"])
def test_damage_is_found_and_named(owner: PointsOwner, what: str) -> None:
    owner.lose_data()
    objects = owner.store.root / "objects"
    before = set(objects.iterdir())
    task = make_task(owner, ["m", "o"], collect(owner, "m", ["cat"], METHOD), METHOD)
    unlearn(owner, task)
    (pack,) = set(objects.iterdir()) - before
    path = pack if what == "pack" else objects / f"{owner.store.record('m').digest}.safetensors"
    data = bytearray(path.read_bytes())
    data[-500 if what == "base" else -900] ^= 1  # of the base, below the head, which is packed
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="Cannot load the weights of model 'm~forget'"):
        owner.store.weights("m~forget")
    packet = collect(owner, "o", ["yak"], METHOD)
    (bad,) = unlearn(owner, make_task(owner, ["m~forget"], packet, METHOD, "more")).models
    assert bad.outcome == pb.OUTCOME_FAILED
    assert "Cannot load the weights of model 'm~forget'" in bad.error
