"""Replay at the root: what the owner's retraining gives, checked, and never more than that."""

from collections.abc import Collection, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from disinherit.client.roots.replay import Replay
from disinherit.common.errors import CheckpointError, DataError
from disinherit.common.graph.records import ModelRecord
from tests.client.roots.test_root_method import problem_of
from tests.support.owner import PointsOwner, fit, make_network
from tests.support.retraining_owner import RetrainingOwner


def test_without_samples_it_is_the_training_without_them(tmp_path: Path) -> None:
    with RetrainingOwner(tmp_path) as owner:
        problem = problem_of(owner, ["cat-0", "dog-3"])
        assert Replay().refusal(problem) == ""
        found = Replay().unlearn(problem)
        expected = make_network(4)
        assert problem.retain is not None
        fit(expected, problem.retain)
        assert found.exact
        assert owner.asked == [["cat-0", "dog-3"], []]  # and whether it gives the model itself
        assert list(found.weights) == list(problem.weights)
        for name, value in expected.state_dict().items():
            assert torch.equal(found.weights[name], value)
            assert not torch.equal(found.weights[name], problem.weights[name])


def test_with_no_sample_left_out_it_is_the_model_bit_for_bit(tmp_path: Path) -> None:
    with RetrainingOwner(tmp_path) as owner:
        problem = problem_of(owner, [])
        for name, value in Replay().unlearn(problem).weights.items():
            assert torch.equal(value, problem.weights[name])


class _ForgetfulOwner(RetrainingOwner):
    """Its training leaves nothing out, and never gives the same weights."""

    def retrain(self, record: ModelRecord, without: Collection[str] | None) -> Mapping[str, Tensor]:
        weights = super().retrain(record, None if without is None else ())
        return {name: value + 1e-6 * len(self.asked) for name, value in weights.items()}


def test_training_that_does_not_give_the_model_itself_is_not_exact(tmp_path: Path) -> None:
    with _ForgetfulOwner(tmp_path) as owner:
        found = Replay().unlearn(problem_of(owner, ["cat-0", "dog-3"]))
        assert not found.exact
        assert "does not give the model itself" in found.note


@pytest.mark.parametrize("all_samples", [False, True])
def test_without_any_direct_training_it_is_the_start(tmp_path: Path, all_samples: bool) -> None:
    with RetrainingOwner(tmp_path) as owner:
        problem = problem_of(owner, None)
        if all_samples:
            problem = problem_of(owner, owner.sample_ids(problem.record))
        found = Replay().unlearn(problem)
        assert owner.asked == [None, []] if all_samples else [None]
        assert found.exact
        for name, value in make_network(4).state_dict().items():
            assert torch.equal(found.weights[name], value)


def test_it_refuses_owners_that_cannot(tmp_path: Path) -> None:
    replay = Replay()
    with RetrainingOwner(tmp_path) as owner:
        assert "0.bias is not in scope 'head'" in replay.refusal(
            problem_of(owner, ["cat-0"], scope="head")
        )
        owner.keeps_data = False
        assert "data of model 'm' is gone" in replay.refusal(problem_of(owner, ["cat-0"]))
        owner.kept = False
        assert "is not kept" in replay.refusal(problem_of(owner, None))
    with PointsOwner(tmp_path, "anna") as other:
        problem = problem_of(other, None)
        assert "give its owner `can_retrain` and `retrain`" in replay.refusal(problem)


@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        ("2.bias", torch.zeros(5, dtype=torch.float64), CheckpointError, r"shape \[4\].*\[5\]"),
        ("2.bias", torch.zeros(4), CheckpointError, "torch.float64 .*torch.float32"),
        ("2.bias", torch.full((4,), torch.nan, dtype=torch.float64), DataError, "finite"),
        ("3.bias", torch.zeros(4), CheckpointError, "has '3.bias'"),
    ],
)
def test_what_comes_back_is_checked(
    tmp_path: Path, name: str, value: torch.Tensor, error: type[Exception], said: str
) -> None:
    with RetrainingOwner(tmp_path) as owner:
        owner.given = {name: value}
        with pytest.raises(error, match=said):
            Replay().unlearn(problem_of(owner, ["cat-0"]))


def test_weights_stay_where_the_owner_trains_the_same_network_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RetrainingOwner(tmp_path) as owner:
        network, honest = make_network(4), owner.retrain

        def retrain(record: ModelRecord, without: Collection[str] | None) -> Mapping[str, Tensor]:
            network.load_state_dict(honest(record, without))
            return network.state_dict()

        expected = Replay().unlearn(problem_of(owner, ["cat-0"]))
        monkeypatch.setattr(owner, "retrain", retrain)
        found = Replay().unlearn(problem_of(owner, ["cat-0"]))
        assert found.exact
        for name, value in expected.weights.items():
            assert torch.equal(found.weights[name], value), name
