"""Large models, unlearned in tensor by tensor and file by file: bit for bit as in memory."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening import many, new_weights
from disinherit.client.dampening.summaries import register
from disinherit.client.owner.owner import Batches
from disinherit.client.privacy.policy import OPEN, ReleasePolicy
from disinherit.common.encodings import Encoding, SummaryForm
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import Method
from disinherit.common.tensors import lazy, shards
from disinherit.v1 import unlearning_pb2 as pb
from tests.acceptance.chaos.forking import exit_code, fork
from tests.support.client_tasks import collect, make_method, make_task
from tests.support.delta_tasks import AnyNetworkOwner
from tests.support.owner import LABELS, PointsOwner
from tests.support.root_changes import apply, change_of, mlp

BODY = "0.weight"


class Gone(PointsOwner):
    """An owner whose data is gone, once its models are registered."""

    def __enter__(self) -> Self:
        return self

    gone = False
    release_policy = ReleasePolicy()

    def training_data(self, record: ModelRecord) -> Batches | None:
        return None if self.gone else super().training_data(record)

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        return None

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        return None


@pytest.fixture(autouse=True)
def in_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "BLOCK", 8)


@pytest.fixture
def as_large(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let small models be treated as large ones, in several files."""

    def patch() -> None:
        monkeypatch.setattr(new_weights, "IN_MEMORY", 0)
        monkeypatch.setattr(many, "BATCH_BYTES", 0)
        monkeypatch.setattr(shards, "SHARD_BYTES", 200)

    return patch


def opened(folder: Path, form: SummaryForm = SummaryForm.EXACT) -> Gone:
    """Open an owner, with a root "m" and its child "n" where there are none yet."""
    owner = Gone(folder, "anna")
    owner.release_policy = ReleasePolicy(summaries=form)
    if not owner.store.records():
        owner.train("m", LABELS, 1)
        owner.train("n", LABELS[:3], 2, start=[owner.store.weights("m")])
        register(owner, pb.RegisterTask(model_ids=["m", "n"], scope="all"))
    return owner


def task_of(owner: Gone, method: Method, policy: ReleasePolicy = OPEN) -> pb.UnlearnTask:
    packet = collect(owner, "m", ["cat"], method, policy)
    owner.gone = True
    return make_task(owner, ["n"], packet, method)


def files_of(owner: Gone, model_id: str) -> tuple[str, ...]:
    return shards.shards_of(owner.store.root / "objects", owner.store.record(model_id).digest)


@pytest.mark.parametrize("form", [SummaryForm.EXACT, SummaryForm.FACTORED])
@pytest.mark.parametrize("encoding", [Encoding.FULL, Encoding.FACTORED])
@pytest.mark.parametrize(
    "changes",
    [
        {"scope": "all", "alpha": 0.5, "rescale": True},
        {"scope": "all", "row_scoped": False},
        {"scope": "head"},
        {"scope": BODY, "alpha": 0.1},
    ],
)
def test_a_large_model_is_dampened_as_in_memory(
    tmp_path: Path,
    as_large: Callable[[], None],
    form: SummaryForm,
    encoding: Encoding,
    changes: dict[str, Any],
) -> None:
    method, policy = make_method(**changes), ReleasePolicy(encoding=encoding)
    results, weights = [], []
    for place in ("small", "large"):
        if place == "large":
            as_large()
        with opened(tmp_path / place, form) as owner:
            known = owner.store.fishers("m")
            assert known is not None
            assert (BODY in known[0].columns) is (form is SummaryForm.FACTORED)
            (result,) = unlearn(owner, task_of(owner, method, policy)).models
            assert result.outcome == pb.OUTCOME_APPLIED, result.error
            results.append([(s.parameter, list(s.rows), s.total) for s in result.selections])
            weights.append(owner.store.weights("n~forget"))
            before, after = files_of(owner, "n"), files_of(owner, "n~forget")
    assert results[0] == results[1]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert len(after) == len(before) > 2
    if changes["scope"] == "head":
        assert set(before) & set(after), "files of the layer before the head are shared"


@pytest.mark.parametrize("at", [1, 3])
def test_a_large_model_that_was_killed_halfway_is_dampened_the_next_time(
    tmp_path: Path, as_large: Callable[[], None], at: int
) -> None:
    method = make_method(scope="all", alpha=0.5)
    with opened(tmp_path / "small") as owner:
        unlearn(owner, task_of(owner, method))
        expected = owner.store.record("n~forget").digest
    as_large()
    folder = tmp_path / "large"
    with opened(folder) as owner:
        task = task_of(owner, method)
    write, written = shards.ShardWriter.write, 0

    def killed(self: shards.ShardWriter, name: str, value: Tensor) -> None:
        nonlocal written
        write(self, name, value)
        written += 1
        if written == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        with opened(folder) as owner, pytest.MonkeyPatch.context() as patched:
            owner.gone = True
            patched.setattr(shards.ShardWriter, "write", killed)
            unlearn(owner, task)

    assert exit_code(fork(work)) == -signal.SIGKILL
    unfinished = {*folder.glob("objects/.*")}
    assert unfinished
    with opened(folder) as owner:
        assert not unfinished & {*folder.glob("objects/*")}, "removed when it is opened"
        owner.gone = True
        assert owner.store.applied("forget", owner.store.record("n").digest, "n") is None
        (result,) = unlearn(owner, task).models
        assert result.outcome == pb.OUTCOME_APPLIED, result.error
        assert owner.store.record("n~forget").digest == expected


def test_files_go_with_the_last_version_that_has_them(
    tmp_path: Path, as_large: Callable[[], None]
) -> None:
    as_large()
    with opened(tmp_path) as owner:
        unlearn(owner, task_of(owner, make_method(scope="head")))
        before, after = files_of(owner, "n"), files_of(owner, "n~forget")
        weights = owner.store.weights("n~forget")
        done = owner.store.destroy("forget", {"n": owner.store.record("n").digest})
        assert done.done.keys() == {"n"}
        kept = {path.stem for path in (tmp_path / "objects").glob("*.safetensors")}
        assert set(after) <= kept
        assert not (set(before) - set(after)) & kept
        again = owner.store.weights("n~forget")
        assert all(torch.equal(again[name], value) for name, value in weights.items())


def wide() -> nn.Module:
    return mlp(dtype=torch.float64)


@pytest.mark.parametrize("encoding", [pb.DELTA_ENCODING_UNSPECIFIED, pb.DELTA_ENCODING_INT8])
@pytest.mark.parametrize("rank", [0, 2])
def test_a_change_is_added_to_a_large_model_as_in_memory(
    tmp_path: Path,
    as_large: Callable[[], None],
    encoding: pb.DeltaEncoding.ValueType,
    rank: int,
) -> None:
    digests = []
    for place in ("small", "large"):
        with AnyNetworkOwner(tmp_path / place, "anna") as owner:
            packet = change_of(owner.add("n", wide), encoding=encoding, rank=rank)
            assert apply(owner, [packet], "n", 0.5).outcome == pb.OUTCOME_APPLIED
            digests.append(owner.store.record("n~q").digest)
        as_large()
    assert digests[0] == digests[1]
