"""Destruction of superseded versions at an owner: removed from disk, with intact successors."""

import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from torch import Tensor

from disinherit.client.actions.evaluate import evaluate
from disinherit.client.actions.fisher import forget_fishers
from disinherit.client.actions.undo import destroy, roll_back
from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening.summaries import register
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import StoreError
from disinherit.common.tensors.checkpoints import load_checkpoint
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import collect, make_method, make_task
from tests.support.owner import LABELS, PointsOwner
from tests.support.tracing import interrupted, operations, skip_without_tracing

METHOD = make_method()
APPLIED, AGAIN, FAILED = pb.OUTCOME_APPLIED, pb.OUTCOME_ALREADY_APPLIED, pb.OUTCOME_FAILED
MODELS = ("m", "n", "o")


def prepare(root: Path, *, together: bool = True) -> PointsOwner:
    """An owner that forgot cats in three models; with `together` their files are shared."""
    owner = PointsOwner(root, "anna")
    start: list[dict[str, Tensor]] = []
    for age, model in enumerate(MODELS, start=1):
        owner.train(model, LABELS, age, start)
        start = [owner.store.weights(model)]
    if together:
        register(owner, pb.RegisterTask(scope="head"))
    forget(owner, MODELS, "cat", "forget")
    return owner


def forget(owner: PointsOwner, models: tuple[str, ...], name: str, request_id: str) -> None:
    packet = collect(owner, models[0], [name], METHOD)
    reply = unlearn(owner, make_task(owner, models, packet, METHOD, request_id))
    assert [result.outcome for result in reply.models] == [APPLIED] * len(models)


@pytest.fixture(params=[True, False], ids=["shared files", "own files"])
def owner(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[PointsOwner]:
    with prepare(tmp_path / "anna", together=request.param) as owner:
        yield owner


def task_for(owner: PointsOwner, *models: str, request_id: str = "forget") -> pb.DestroyTask:
    return pb.DestroyTask(
        request_id=request_id,
        models=[
            pb.ModelDestruction(model_id=model, digest=owner.store.record(model).digest)
            for model in models
        ],
    )


def outcomes(reply: pb.DestroyReply) -> list[pb.Outcome.ValueType]:
    return [result.outcome for result in reply.models]


def on_disk(root: Path) -> list[dict[str, Tensor]]:
    """All tensors in all files."""
    return [load_checkpoint(path) for path in sorted((root / "objects").iterdir())]


def is_anywhere(wanted: Tensor, files: list[dict[str, Tensor]]) -> bool:
    """Whether a tensor is in a file, by itself or stacked with others."""
    for tensor in (tensor for file in files for tensor in file.values()):
        stacked = tensor if tensor.ndim == wanted.ndim + 1 else tensor[None]
        if any(one.shape == wanted.shape and one.equal(wanted) for one in stacked):
            return True
    return False


def test_old_weights_and_summaries_are_gone_and_new_ones_are_whole(owner: PointsOwner) -> None:
    store, root = owner.store, owner.store.root
    old = {model: store.weights(model)["2.weight"] for model in MODELS}
    sums = store.fishers("m")
    new = {f"{model}~forget": store.weights(f"{model}~forget") for model in MODELS}
    records = {record.id: record for record in store.records()}
    reply = destroy(owner, task_for(owner, *MODELS))
    assert outcomes(reply) == [APPLIED] * 3
    assert [result.digest for result in reply.models] == [records[m].digest for m in MODELS]

    files = on_disk(root)
    assert not any(is_anywhere(weights, files) for weights in old.values())
    if sums is not None:
        assert not any("sum.2.weight" in f and f["sum.2.weight"][0].any() for f in files)
    for model, weights in new.items():
        assert all(store.weights(model)[name].equal(weights[name]) for name in weights)
        assert store.fishers(model) is not None
    assert {record.id: record for record in store.records()} == records
    with pytest.raises(StoreError, match="'m', but they were destroyed when the retention window"):
        store.weights("m")
    with pytest.raises(StoreError, match="destroyed"):
        store.fishers("m")
    with ModelStore(root, "anna") as again:
        assert again.weights("m~forget").keys() == new["m~forget"].keys()


def test_a_repeated_message_finds_its_tombstone(owner: PointsOwner) -> None:
    task = task_for(owner, "m")
    first = destroy(owner, task)
    files = sorted(path.name for path in (owner.store.root / "objects").iterdir())
    second = destroy(owner, task)
    assert (outcomes(first), outcomes(second)) == ([APPLIED], [AGAIN])
    assert second.models[0].digest == first.models[0].digest
    assert sorted(path.name for path in (owner.store.root / "objects").iterdir()) == files


def test_versions_not_destroyed_can_be_rolled_back(owner: PointsOwner) -> None:
    destroy(owner, task_for(owner, "m"))
    back = pb.RollBackTask(
        request_id="forget",
        models=[
            pb.ModelRollBack(model_id=model, digest=owner.store.record(model).digest)
            for model in ("m", "n")
        ],
    )
    refused, done = roll_back(owner, back).models
    assert refused.outcome == FAILED
    assert "they were destroyed when the retention window of request 'forget'" in refused.error
    assert done.outcome == APPLIED
    assert owner.store.weights("n").keys()
    (late,) = destroy(owner, task_for(owner, "n")).models
    assert "'n' is superseded by no request" in late.error


def test_versions_in_the_middle_of_a_chain_leave_the_disk_too(owner: PointsOwner) -> None:
    forget(owner, ("m~forget", "n~forget", "o~forget"), "owl", "more")
    middle = owner.store.weights("m~forget")["2.weight"]
    last = owner.store.weights("m~forget~more")
    second = task_for(owner, "m~forget", request_id="more")
    assert outcomes(destroy(owner, second)) == [APPLIED]
    assert not is_anywhere(middle, on_disk(owner.store.root))
    for model in ("m", "n", "n~forget", "o~forget", "n~forget~more"):
        assert owner.store.weights(model).keys()
    assert outcomes(destroy(owner, task_for(owner, *MODELS))) == [APPLIED] * 3
    assert all(owner.store.weights("m~forget~more")[n].equal(last[n]) for n in last)


def test_successor_answers_for_a_destroyed_root(tmp_path: Path) -> None:
    ask = pb.FisherTask(
        request_id="q", roots=[pb.Root(model_id="m", classes=["owl"])], method=METHOD.to_proto()
    )
    with prepare(tmp_path / "anna") as owner:
        (before,) = forget_fishers(owner, ask).roots
        destroy(owner, task_for(owner, "m"))
        (after,) = forget_fishers(owner, ask).roots
        ask.roots[0].classes[:] = ["cat"]
        (forgotten,) = forget_fishers(owner, ask).roots
    assert [packet.digest for packet in after.packets] == [p.digest for p in before.packets]
    assert list(after.packets[0].sources) == ["m"]
    assert "no samples of cat" in forgotten.error


def test_registering_again_skips_destroyed_versions(owner: PointsOwner) -> None:
    destroy(owner, task_for(owner, "m"))
    reply = register(owner, pb.RegisterTask(scope="head"))
    assert {record.id for record in reply.models} == {r.id for r in owner.store.records()}
    (evaluation,) = evaluate(owner, pb.EvaluateTask(model_ids=["m"])).models
    assert "destroyed" in evaluation.error


def test_invalid_destructions_are_refused_one_by_one(owner: PointsOwner) -> None:
    task = task_for(owner, "m", "n", "o~forget")
    task.models[1].digest = "0" * 64
    task.models.add(model_id="nobody", digest="0" * 64)
    done, *refused = destroy(owner, task).models
    assert done.outcome == APPLIED
    assert [result.outcome for result in refused] == [FAILED] * 3
    assert "0000" in refused[0].error
    assert "'o~forget' is superseded by no request" in refused[1].error
    assert "'nobody'" in refused[2].error
    (other,) = destroy(owner, task_for(owner, "n", request_id="other")).models
    assert "'n' is superseded by request 'forget'" in other.error
    assert owner.store.weights("n").keys()


def test_nothing_is_destroyed_whose_successor_is_damaged(tmp_path: Path) -> None:
    with prepare(tmp_path / "anna", together=False) as owner:
        digest = owner.store.record("m~forget").digest
        (tmp_path / "anna" / "objects" / f"{digest}.safetensors").write_bytes(b"damaged")
        (refused,) = destroy(owner, task_for(owner, "m")).models
        assert refused.outcome == FAILED
        assert "m~forget" in refused.error
        assert owner.store.weights("m").keys()


def test_shared_weights_are_kept_by_the_other_version(tmp_path: Path) -> None:
    with prepare(tmp_path / "anna") as owner:
        owner.train("twin", LABELS, 9)  # the same start, data and steps: the same weights
        assert owner.store.record("twin").digest == owner.store.record("m").digest
        found = destroy(owner, task_for(owner, *MODELS)).models
        assert [result.held_by for result in found] == ["twin", "", ""]
        assert owner.store.weights("twin").keys()


@pytest.mark.slow
@pytest.mark.parametrize("together", [True, False], ids=["shared files", "own files"])
def test_killed_at_any_file_operation_all_are_there_or_all_are_gone(
    tmp_path: Path, together: bool
) -> None:
    """The next opening, or a repeated message, completes the destruction."""
    skip_without_tracing()
    base = tmp_path / "base"
    with prepare(base, together=together) as owner:
        task = task_for(owner, "m", "n")

    def destroy_in(root: Path) -> None:
        with PointsOwner(root, "anna") as owner:
            assert outcomes(destroy(owner, task)) == [APPLIED] * 2

    def copied(name: str) -> Path:
        return Path(shutil.copytree(base, tmp_path / name))

    done, traced = copied("done"), copied("traced")
    destroy_in(done)
    expected = {path.name for path in (done / "objects").iterdir()}
    seen = []
    for operation in operations(partial(destroy_in, traced), traced):
        root = copied("disturbed")
        assert (
            interrupted(partial(destroy_in, root), operation, "signal=SIGKILL") == -signal.SIGKILL
        )
        with PointsOwner(root, "anna") as owner:
            gone = [owner.store.destroyed(model) is not None for model in ("m", "n")]
            assert gone in ([True] * 2, [False] * 2), operation
            for record in owner.store.records():
                if owner.store.destroyed(record.id) is None:
                    assert owner.store.weights(record.id).keys(), operation
            assert ({path.name for path in (root / "objects").iterdir()} == expected) == gone[0]
            again = outcomes(destroy(owner, task))
            assert again == ([AGAIN] * 2 if gone[0] else [APPLIED] * 2)
            assert {path.name for path in (root / "objects").iterdir()} == expected, operation
        seen.append(gone[0])
        shutil.rmtree(root)
    assert seen == sorted(seen)
    assert set(seen) == {True, False}
