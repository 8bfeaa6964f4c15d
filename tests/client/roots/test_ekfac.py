"""The EK-FAC step at a root: registration, what it needs, how strong it is, and what it leaves."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from disinherit.client.dampening.summaries import register
from disinherit.client.owner.owner import Batches
from disinherit.client.roots import ekfac
from disinherit.client.roots.ekfac import EkfacStep
from disinherit.client.roots.problems import root_problem
from disinherit.client.roots.root_method import RootProblem, unlearn_root
from disinherit.client.roots.unseen import MOST_RISE, Seen
from disinherit.common.curvature.ekfac import gradients, measure, squares
from disinherit.common.curvature.step import newton_step
from disinherit.common.errors import CheckpointError, DataError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import Method
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.v1 import unlearning_pb2 as pb
from tests.client.privacy.test_remaining import forget_samples
from tests.client.roots.test_root_method import problem_of
from tests.support.owner import PointsOwner, fit, make_network

SAMPLES = [f"cat-{i}" for i in range(6)]


class CurvatureOwner(PointsOwner):
    """`PointsOwner` that registers curvature, and labels some of its cats as dogs.

    Attributes:
        wanted: whether curvature is registered.
        relabelled: how many cats are called dogs.
    """

    def __init__(self, root: Path, relabelled: int = 0, **options: bool) -> None:
        super().__init__(root, "anna", **options)
        self.wanted = True
        self.relabelled = relabelled

    def __enter__(self) -> Self:
        return self

    def keeps_curvature(self, record: ModelRecord) -> bool:
        return self.wanted

    def training_data(self, record: ModelRecord) -> Batches | None:
        batches = super().training_data(self._origin(record))
        return None if batches is None else [self._with_errors(*batches[0])]  # type: ignore[index]

    def sample_ids(self, record: ModelRecord) -> list[str]:
        return super().sample_ids(self._origin(record))

    def _origin(self, record: ModelRecord) -> ModelRecord:
        """A successor was trained as its origin was."""
        return record if record.provenance else self.store.record("m")

    def split_training_data(
        self, record: ModelRecord, samples: Sequence[str]
    ) -> tuple[Batches, Batches]:
        ((inputs, targets),) = self.training_data(record) or [(torch.empty(0), torch.empty(0))]
        assert isinstance(inputs, Tensor)
        chosen = torch.tensor([sample in samples for sample in self.sample_ids(record)])
        return [(inputs[chosen], targets[chosen])], [(inputs[~chosen], targets[~chosen])]

    def _with_errors(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        targets = targets.clone()
        targets[: self.relabelled] = 1
        return inputs, targets


def registered(owner: CurvatureOwner, scope: str = "all") -> RootProblem:
    problem_of(owner, SAMPLES, scope)
    register(owner, pb.RegisterTask(scope="all"))
    return problem_of(owner, SAMPLES, scope)


def loss_on(batches: Batches | None, weights: dict[str, Tensor]) -> float:
    assert batches is not None
    network = make_network()
    network.load_state_dict(weights)
    ((inputs, targets),) = batches
    assert isinstance(inputs, Tensor)
    return F.cross_entropy(network(inputs), targets).item()


def test_curvature_is_registered_only_if_the_owner_asks_for_it(tmp_path: Path) -> None:
    with CurvatureOwner(tmp_path) as owner:
        owner.wanted = False
        problem = registered(owner)
        assert owner.store.curvature("m") is None
        assert "keeps_curvature" in EkfacStep().refusal(problem)
        owner.wanted = True
        register(owner, pb.RegisterTask(scope="head"))
        found = owner.store.curvature("m")
        assert found is not None
        assert found.count == 48
        assert found.names == ("0.weight", "0.bias", "2.weight", "2.bias")
        assert EkfacStep().refusal(problem) == ""
        assert unlearn_root(problem)[0] == "ekfac"
        owner.keeps_data = False
        register(owner, pb.RegisterTask(scope="head"))
        assert owner.store.has_curvature("m")


def test_curvature_has_no_samples_that_were_forgotten_before(tmp_path: Path) -> None:
    with CurvatureOwner(tmp_path) as owner:
        problem_of(owner, SAMPLES)
        successor = forget_samples(owner, SAMPLES)
        register(owner, pb.RegisterTask(scope="all"))
        found = owner.store.curvature(successor.id)
        assert found is not None
        assert found.count == 42


def test_it_says_what_is_missing(tmp_path: Path) -> None:
    with CurvatureOwner(tmp_path) as owner:
        problem = registered(owner)
        every = root_problem(owner, problem.record, Method(scope="all"), "forget", None)
        assert "is retained" in EkfacStep().refusal(every)
        owner.keeps_data = False
        gone = root_problem(owner, problem.record, Method(scope="all"), "forget", SAMPLES)
        assert "are gone" in EkfacStep().refusal(gone)


def test_a_damaged_curvature_is_refused(tmp_path: Path) -> None:
    with CurvatureOwner(tmp_path) as owner:
        problem = registered(owner)
        (file,) = [
            path
            for path in (tmp_path / "objects").iterdir()
            if b"outputs:" in path.read_bytes()[:4000]
        ]
        file.write_bytes(file.read_bytes()[:-8] + b"\0" * 8)
        with pytest.raises(CheckpointError, match="Cannot load the curvature of model 'm'"):
            EkfacStep().unlearn(problem)


def test_without_a_tuning_split_it_is_a_quarter_of_the_newton_step(tmp_path: Path) -> None:
    with CurvatureOwner(tmp_path, tuning=False) as owner:
        problem = registered(owner)
        found = EkfacStep().unlearn(problem)
        network = make_network()
        network.load_state_dict(problem.weights)
        assert problem.forget is not None
        assert problem.retain is not None
        names = list(problem.names)
        everything = owner.training_data(problem.record)
        assert everything is not None
        curvature = measure(network, names, everything, owner.device)
        step = newton_step(
            curvature,
            gradients(network, curvature, problem.forget, owner.device),
            squares(network, curvature, problem.forget, owner.device),
            len(SAMPLES),
        )
        strength = min(0.25, (MOST_RISE / step.rise) ** 0.5)
        for name in names:
            wanted = problem.weights[name] + strength * step.change[name]
            assert torch.allclose(found.weights[name], wanted, rtol=1e-9, atol=1e-12)
        assert "not tuned" in found.note
        assert not found.exact


def test_a_step_that_is_predicted_to_cost_much_is_shortened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CurvatureOwner(tmp_path, tuning=False) as owner:
        problem = registered(owner)
        whole = EkfacStep().unlearn(problem).weights
        monkeypatch.setattr(ekfac, "MOST_RISE", 1e-12)
        short = EkfacStep().unlearn(problem).weights
        for name in problem.names:
            before = problem.weights[name]
            assert (short[name] - before).norm() < 0.1 * (whole[name] - before).norm()


def test_it_forgets_samples_and_keeps_others_without_retained_data(tmp_path: Path) -> None:
    with CurvatureOwner(tmp_path, relabelled=len(SAMPLES)) as owner:
        model = problem_of(owner, SAMPLES).record
        network = make_network()
        batches = owner.training_data(model)
        assert batches is not None
        fit(network, batches, steps=150)
        weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
        record = replace(model, id="n", digest=weights_digest(weights))
        owner.store.add(record, weights)
        register(owner, pb.RegisterTask(scope="all", model_ids=["n"]))
        problem = root_problem(owner, record, Method(scope="all"), "forget", SAMPLES)
        found = EkfacStep().unlearn(problem)
        tuning = owner.tuning_data(record)
        before = dict(problem.weights)
        assert loss_on(problem.forget, found.weights) > loss_on(problem.forget, before) + 0.5
        assert loss_on(tuning, found.weights) <= loss_on(tuning, before) + MOST_RISE
        assert "attack on losses" in found.note
        again = EkfacStep().unlearn(problem).weights
        assert all(torch.equal(value, again[name]) for name, value in found.weights.items())


def test_a_step_that_costs_too_much_at_any_strength_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CurvatureOwner(tmp_path) as owner:
        problem = registered(owner)
        monkeypatch.setattr(ekfac, "MOST_RISE", -10.0)
        with pytest.raises(DataError, match="raises the loss on the tuning split by at most -10"):
            EkfacStep().unlearn(problem)


def test_only_the_scope_changes(tmp_path: Path) -> None:
    with CurvatureOwner(tmp_path) as owner:
        problem = registered(owner, scope="head")
        before = {name: value.clone() for name, value in problem.weights.items()}
        found = EkfacStep().unlearn(problem).weights
        assert {n for n, v in before.items() if not torch.equal(v, found[n])} == {
            "2.weight",
            "2.bias",
        }
        assert all(torch.equal(problem.weights[name], value) for name, value in before.items())


def test_the_attack_compares_wrong_labels_with_wrong_labels() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4000, 4)
    logits[torch.arange(4000), torch.arange(4000) % 4] += 3
    right = torch.arange(4000) % 4
    wrong = (right + 1 + torch.randint(0, 3, (4000,))) % 4
    unseen = logits[:2000], right[:2000]
    odd = logits[2000:], wrong[2000:]
    relabelled = Seen(odd, unseen)
    assert relabelled.tells_odd
    assert not Seen((logits[2000:], right[2000:]), unseen).tells_odd
    assert relabelled.attack(relabelled.odd) == pytest.approx(0.5, abs=0.05)
    assert relabelled.attack(0.0) < 0.2
    fitted = logits[2000:].clone()
    fitted[torch.arange(2000), wrong[2000:]] += 2
    known = Seen((fitted, wrong[2000:]), unseen)
    assert known.attack(known.odd) > 0.55
