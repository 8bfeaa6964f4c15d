"""Root methods that train: what they change, what they leave, and that they repeat."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from disinherit.client.owner.owner import Batches
from disinherit.client.roots import training
from disinherit.client.roots.distillation import RootDistillation
from disinherit.client.roots.fine_tuning import RootFineTuning
from disinherit.client.roots.neg_grad import NegGrad, cycle
from disinherit.client.roots.problems import root_problem
from disinherit.client.roots.replay import Replay
from disinherit.client.roots.root_method import RootMethod, RootProblem
from disinherit.common.graph.records import ModelRecord, Provenance
from disinherit.common.method import Method
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import weights_digest
from tests.client.privacy.test_remaining import forget, forget_samples
from tests.client.roots.test_root_method import problem_of
from tests.support.owner import FEATURES, LABELS, make_network
from tests.support.retraining_owner import RetrainingOwner

METHODS: list[Callable[[], RootMethod]] = [RootFineTuning, NegGrad, RootDistillation]
SAMPLES = [f"cat-{i}" for i in range(6)]


@pytest.fixture(params=METHODS, ids=lambda made: made().name)
def method(request: pytest.FixtureRequest) -> RootMethod:
    made: Callable[[], RootMethod] = request.param
    return made()


def loss_on(batches: Batches | None, weights: Mapping[str, Tensor]) -> float:
    assert batches is not None
    network = make_network()
    network.load_state_dict(weights)
    ((inputs, targets),) = batches
    assert isinstance(inputs, Tensor)
    return F.cross_entropy(network(inputs), targets).item()


def test_the_same_request_gives_the_same_weights(tmp_path: Path, method: RootMethod) -> None:
    with RetrainingOwner(tmp_path) as owner:
        problem = problem_of(owner, SAMPLES)
        before = {name: value.clone() for name, value in problem.weights.items()}
        torch.manual_seed(1)
        state = torch.random.get_rng_state()
        one = method.unlearn(problem)
        assert torch.equal(torch.random.get_rng_state(), state)
        torch.manual_seed(2)
        two = method.unlearn(problem)
        assert not one.exact
        assert one.steps > 0
        assert "strength" in one.note
        for name, value in before.items():
            assert torch.equal(problem.weights[name], value)
            assert torch.equal(one.weights[name], two.weights[name])
            assert not torch.equal(one.weights[name], value)
        other = root_problem(owner, problem.record, problem.method, "again", SAMPLES)
        assert not torch.equal(method.unlearn(other).weights["0.weight"], one.weights["0.weight"])


def test_only_the_scope_changes(tmp_path: Path, method: RootMethod) -> None:
    with RetrainingOwner(tmp_path) as owner:
        problem = problem_of(owner, SAMPLES, scope="head")
        found = method.unlearn(problem).weights
        changed = {n for n, v in problem.weights.items() if not torch.equal(v, found[n])}
        assert changed == {"2.weight", "2.bias"}


@pytest.mark.parametrize("made", [NegGrad, RootDistillation])
@pytest.mark.parametrize("kept", [False, True])
def test_the_samples_are_forgotten_and_the_others_are_not(
    tmp_path: Path, made: Callable[[], RootMethod], kept: bool
) -> None:
    with RetrainingOwner(tmp_path) as owner:
        owner.kept = kept  # whether the start is known
        owner.tuning = False
        problem = problem_of(owner, [f"cat-{i}" for i in range(24)])
        found = made().unlearn(problem).weights
        assert loss_on(problem.forget, problem.weights) < 0.01
        assert loss_on(problem.forget, found) > 0.3
        assert loss_on(problem.retain, found) < 0.5


def test_no_loss_is_raised_beyond_a_guess(tmp_path: Path) -> None:
    with RetrainingOwner(tmp_path) as owner:
        owner.kept = owner.tuning = False
        problem = problem_of(owner, [f"cat-{i}" for i in range(24)])
        found = NegGrad().unlearn(problem).weights
        assert loss_on(problem.forget, found) < 3 * math.log(len(LABELS))


def test_strengths_beyond_the_bound_on_the_tuning_split_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RetrainingOwner(tmp_path) as owner:
        problem = problem_of(owner, [f"cat-{i}" for i in range(20)])
        monkeypatch.setattr(training, "MOST_RISE", 1e6)
        assert "strength 1," in NegGrad().unlearn(problem).note
        monkeypatch.setattr(training, "MOST_RISE", -1e6)
        note = NegGrad().unlearn(problem).note
        assert "strength 0.1," in note
        assert "more than the -1e+06 that it should rise" in note
        owner.tuning = False
        assert "strength 0.3," in NegGrad().unlearn(problem).note


def test_training_ends_when_its_loss_no_longer_falls() -> None:
    plateau = training._Plateau()
    taken = 0
    for step in range(1000):
        if plateau():
            break
        plateau.losses.append(1 / (1 + step))
        taken += 1
    assert training.WINDOW < taken < 1000
    assert taken % training.WINDOW == 0


@given(st.integers(1, 200), st.integers(0, 5))
def test_every_sample_to_forget_gets_its_turn(count: int, seed: int) -> None:
    turns = cycle(count, seed)
    rounds = [next(turns) for _ in range(-(-count // training.BATCH))]
    assert torch.cat(rounds).sort().values.tolist() == list(range(count))


class Lasting(RetrainingOwner):
    """An owner that gives the data of `m` for its successors too."""

    def sample_ids(self, record: ModelRecord) -> list[str]:
        return super().sample_ids(self.store.record("m"))

    def split_training_data(
        self, record: ModelRecord, samples: Sequence[str]
    ) -> tuple[Batches, Batches]:
        return super().split_training_data(self.store.record("m"), samples)

    def training_data(self, record: ModelRecord) -> Batches | None:
        return super().training_data(self.store.record("m"))


def test_what_earlier_requests_cleared_is_left_out(tmp_path: Path) -> None:
    with Lasting(tmp_path) as owner:
        owner.train("m", LABELS, created_us=1)
        successor = forget_samples(owner, ["cat-0", "cat-1"])
        problem = root_problem(owner, successor, Method(scope="all"), "again", ["dog-0"])
        assert problem.retain is not None
        assert sum(len(targets) for _, targets in problem.retain) == 96 - 3
        Replay().unlearn(problem)
        assert owner.asked == [["cat-0", "cat-1", "dog-0"], ["cat-0", "cat-1"]]


def test_a_replay_brings_nothing_back(tmp_path: Path) -> None:
    with Lasting(tmp_path) as owner:
        owner.train("m", LABELS, created_us=1)
        successor = forget(owner, "m", ["cat"], "one")
        problem = root_problem(owner, successor, Method(scope="all"), "again", ["dog-0"])
        found = Replay().unlearn(problem)
        assert not found.exact
        with_sample, without = owner.retrain(successor, []), owner.retrain(successor, ["dog-0"])
        for name, value in problem.weights.items():
            change = without[name] - with_sample[name]
            assert bool(change.any())
            torch.testing.assert_close(found.weights[name], value + change, rtol=0, atol=1e-12)


def test_the_successor_of_a_replay_is_replayed_exactly(tmp_path: Path) -> None:
    with Lasting(tmp_path) as owner:
        owner.train("m", LABELS, created_us=1)
        successor = forget_samples(owner, ["cat-0"])
        problem = root_problem(owner, successor, Method(scope="all"), "again", ["dog-0"])
        replayed = dict(owner.retrain(successor, ["cat-0"]))
        found = Replay().unlearn(replace(problem, weights=replayed))
        assert found.exact
        expected = owner.retrain(successor, ["cat-0", "dog-0"])
        assert all(torch.equal(found.weights[name], value) for name, value in expected.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_trained(tmp_path: Path, method: RootMethod, dtype: torch.dtype) -> None:
    with RetrainingOwner(tmp_path) as owner:
        problem = halved(owner, dtype)
        found = method.unlearn(problem).weights
        assert {value.dtype for value in found.values()} == {dtype}
        assert all(bool(value.isfinite().all()) for value in found.values())
        assert any(not torch.equal(v, found[n]) for n, v in problem.weights.items())


def halved(owner: RetrainingOwner, dtype: torch.dtype) -> RootProblem:
    """The problem of a model in half precision, with data that fits it."""
    full = problem_of(owner, SAMPLES)
    owner.dtype, owner.kept, owner.tuning = dtype, False, False
    weights = {name: value.to(dtype) for name, value in full.weights.items()}

    def cast(batches: Batches | None) -> Batches:
        assert batches is not None
        return [(x.to(dtype), y) for x, y in batches if isinstance(x, Tensor)]

    return RootProblem(
        owner,
        full.record,
        weights,
        full.names,
        cast(full.forget),
        cast(full.retain),
        SAMPLES,
        full.method,
        "forget",
    )


def test_other_types_are_refused_by_name(tmp_path: Path, method: RootMethod) -> None:
    with RetrainingOwner(tmp_path) as owner:
        problem = problem_of(owner, SAMPLES)
        weights = {**problem.weights, "2.bias": torch.zeros(4, dtype=torch.int8)}
        odd = RootProblem(
            owner,
            problem.record,
            weights,
            problem.names,
            problem.forget,
            problem.retain,
            SAMPLES,
            problem.method,
            "forget",
        )
        assert "'2.bias' of model 'm' is torch.int8" in method.refusal(odd)


def normed(classes: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(FEATURES, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(8, classes),
        ).double()


def test_dropout_is_seeded_and_statistics_stay(tmp_path: Path, method: RootMethod) -> None:
    with RetrainingOwner(tmp_path) as owner:
        owner.make, owner.kept = normed, False
        weights = {n: v.detach().clone() for n, v in normed(4).state_dict().items()}
        record = owner.store.add(
            ModelRecord(
                id="m",
                owner="anna",
                architecture=architecture_fingerprint(weights),
                labels=LABELS,
                digest=weights_digest(weights),
                created_us=1,
                provenance=Provenance("points", dict.fromkeys(LABELS, 24)),
            ),
            weights,
        )
        problem = root_problem(owner, record, Method(scope="all"), "forget", ["cat-0"])
        one, two = method.unlearn(problem).weights, method.unlearn(problem).weights
        for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
            assert torch.equal(one[name], weights[name])
        assert not torch.equal(one["1.weight"], weights["1.weight"])
        assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_accelerator_gives_weights_on_the_cpu(tmp_path: Path, method: RootMethod) -> None:
    with RetrainingOwner(tmp_path) as owner:
        owner.device = torch.device("cuda")
        found = method.unlearn(problem_of(owner, SAMPLES)).weights
        assert {value.device.type for value in found.values()} == {"cpu"}


def test_frozen_parameters_stay_unless_nothing_else_is_in_scope(
    tmp_path: Path, method: RootMethod
) -> None:
    class Frozen(RetrainingOwner):
        def network(self, record: ModelRecord) -> nn.Module:
            network = super().network(record)
            for parameter in list(network.parameters())[:2]:
                parameter.requires_grad_(False)
            return network

    with Frozen(tmp_path) as owner:
        problem = problem_of(owner, SAMPLES)
        made = method.unlearn(problem)
        same = [n for n, value in problem.weights.items() if torch.equal(value, made.weights[n])]
        assert sorted(same) == ["0.bias", "0.weight"]
        made = method.unlearn(replace(problem, names=["0.weight"]))
        assert not torch.equal(made.weights["0.weight"], problem.weights["0.weight"])
        assert torch.equal(made.weights["0.bias"], problem.weights["0.bias"])
