"""The baselines for samples: each against its paper's equation, computed naively in float64."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disinherit.client.dampening.tuning import LAMBDAS
from disinherit.simulations.bench.cases.subjects import MethodCase, MethodSubject, Samples, Weights
from disinherit.simulations.bench.methods.handing_down import difference, with_differences
from disinherit.simulations.bench.methods.method import make_method, unlearn
from disinherit.simulations.bench.methods.negative_gradient import Descent, descended
from disinherit.simulations.bench.methods.salun import (
    Relabelling,
    other_labels,
    relabelled,
    saliency,
)
from disinherit.simulations.bench.methods.ssd import (
    ALPHAS,
    Dampening,
    SelectiveDampening,
    batched_importance,
    dampened,
)
from disinherit.simulations.bench.methods.state_arithmetic import (
    SCHEDULES,
    STRENGTHS,
    checkpoint_before,
    forget_vector,
)
from disinherit.simulations.bench.methods.training import (
    Schedule,
    SparseSchedule,
    sparsely_tuned,
)
from tests.support.case import digits_case

ONE_STEP = Schedule(learning_rate=1e-3, epochs=1e-3)
LAYER = "features.1.weight"


@pytest.fixture
def case() -> MethodCase:
    return digits_case(granularity="memorised").view()


def first_step(
    subject: MethodSubject, schedule: Schedule, objective: Callable[[nn.Module], Tensor]
) -> Weights:
    """The first step of Adam, by its definition: the rate times g / (|g| + 1e-8)."""
    network = subject.network(subject.original).double()
    objective(network).backward()
    expected = {}
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        step = parameter.grad / (parameter.grad.abs() + 1e-8)
        expected[name] = (parameter - schedule.learning_rate * step).detach()
    return expected


def mean_loss(network: nn.Module, samples: Samples) -> Tensor:
    losses = [
        -network(samples.inputs[i : i + 1].double()).log_softmax(dim=1)[0, samples.targets[i]]
        for i in range(len(samples))
    ]
    return torch.stack(losses).sum() / len(losses)


def order(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def agree(found: Weights, expected: Weights) -> None:
    # Where a gradient is as small as the noise of float32, so is what is known of its sign.
    for name, value in expected.items():
        close = (found[name] - value).abs() < 2e-5
        assert close.double().mean() > 0.98, name


def test_negative_gradient_descends_on_what_is_kept_and_climbs_on_what_is_not(
    case: MethodCase,
) -> None:
    subject = case.subjects["r1"]
    kept = subject.retain[order(len(subject.retain), case.seed)[:64]]

    found = descended(case, subject, Descent(ONE_STEP, kept=0.8))

    def objective(network: nn.Module) -> Tensor:
        return 0.8 * mean_loss(network, kept) - 0.2 * mean_loss(network, subject.forget)

    agree(found, first_step(subject, ONE_STEP, objective))


def test_sparse_fine_tuning_adds_the_size_of_all_weights(case: MethodCase) -> None:
    subject = case.subjects["r1"]
    kept = subject.retain[order(len(subject.retain), case.seed)[:64]]

    found = sparsely_tuned(case, subject, SparseSchedule(ONE_STEP, penalty=0.01))

    def objective(network: nn.Module) -> Tensor:
        size = sum((p.abs().sum() for p in network.parameters()), torch.zeros(()))
        return mean_loss(network, kept) + 0.01 * size

    agree(found, first_step(subject, ONE_STEP, objective))


def test_the_penalty_falls_to_nothing_and_shrinks_weights(case: MethodCase) -> None:
    subject = case.subjects["r1"]
    schedule = Schedule(1e-3, 3.0)

    def size(penalty: float) -> float:
        new = sparsely_tuned(case, subject, SparseSchedule(schedule, penalty))
        return sum(value.abs().sum().item() for value in new.values())

    assert size(1e-2) < 0.95 * size(0.0)


def test_salient_weights_have_the_largest_gradients() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    samples = Samples(torch.randn(7, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1, 0, 0]))

    found = saliency(network, samples, share=0.5)

    mean_loss(network, samples).backward()
    sizes = {name: p.grad.abs() for name, p in network.named_parameters() if p.grad is not None}
    median = torch.cat([value.flatten() for value in sizes.values()]).median()
    assert sum(int(mask.sum()) for mask in found.values()) == 13
    for name, mask in found.items():
        assert torch.equal(mask, sizes[name] > median), name


def test_only_salient_weights_learn_the_random_labels(case: MethodCase) -> None:
    subject = case.subjects["r1"]
    masks = saliency(subject.network(subject.original), subject.forget, share=0.2)

    found = relabelled(case, subject, Relabelling(Schedule(3e-3, 3.0), share=0.2))

    for name, mask in masks.items():
        assert torch.equal(found[name][~mask], subject.original[name][~mask])
    assert not torch.equal(found[LAYER], subject.original[LAYER])
    wrong = other_labels(subject.forget.targets, len(subject.labels), case.seed)
    losses = [
        F.cross_entropy(subject.network(weights)(subject.forget.inputs), wrong).item()
        for weights in (subject.original, found)
    ]
    assert losses[1] < losses[0]


def test_random_labels_are_any_but_the_own_one() -> None:
    targets = torch.arange(4).repeat(500)
    drawn = other_labels(targets, 4, seed=1)
    assert not (drawn == targets).any()
    shares = torch.bincount((drawn - targets) % 4, minlength=4)[1:] / len(targets)
    assert torch.allclose(shares, torch.full((3,), 1 / 3), atol=0.05)
    assert torch.equal(drawn, other_labels(targets, 4, seed=1))


def test_the_checkpoint_is_the_average_of_the_parents(case: MethodCase) -> None:
    base = case.unaffected["base"]
    both = checkpoint_before(case, "r3")
    for name, value in checkpoint_before(case, "r1").items():
        assert torch.equal(value, base[name])
        middle = (base[name].double() + case.subjects["r2"].original[name].double()) / 2
        assert torch.allclose(both[name].double(), middle, atol=1e-6)
    orphan = dataclasses.replace(case.subjects["r1"], parents=())
    alone = dataclasses.replace(case, subjects={"r1": orphan}, unaffected={})
    fresh = orphan.build().state_dict()
    assert all(torch.equal(v, fresh[n]) for n, v in checkpoint_before(alone, "r1").items())


def test_state_arithmetic_takes_the_forget_vector_away(case: MethodCase) -> None:
    made = unlearn(make_method("msa", {}), case)
    subject = case.subjects["r1"]
    moved = forget_vector(case, "r1", Schedule(1e-3, 3.0))
    start = checkpoint_before(case, "r1")
    learnt = {name: value + moved[name] for name, value in start.items()}
    losses = [
        F.cross_entropy(subject.network(w)(subject.forget.inputs), subject.forget.targets).item()
        for w in (start, learnt)
    ]
    assert losses[1] < losses[0]
    taken = difference(subject, dict(made.weights["r1"]))
    vectors = [forget_vector(case, "r1", schedule) for schedule in SCHEDULES]
    assert any(
        torch.allclose(taken[LAYER], -strength * vector[LAYER], atol=1e-6)
        for strength in STRENGTHS
        for vector in vectors
    )


@pytest.mark.parametrize("name", ["neggrad+", "salun", "msa"])
def test_models_without_the_samples_get_what_changed_at_their_root(
    case: MethodCase, name: str
) -> None:
    made = unlearn(make_method(name, {}), case)
    changes = {
        model: difference(subject, dict(made.weights[model]))
        for model, subject in case.subjects.items()
    }
    assert changes["r1"][LAYER].abs().max() > 1e-5
    for model in ("r2", "r3"):
        for key, change in changes["r1"].items():
            assert torch.allclose(changes[model][key], change, atol=1e-6)
    assert made.chosen.keys() == {"r1"}
    assert all(made.sent[subject.owner] > 0 for subject in case.subjects.values())


@pytest.mark.parametrize("name", ["neggrad+", "salun", "msa"])
def test_a_client_that_keeps_nothing_is_unlearned_as_well(case: MethodCase, name: str) -> None:
    subject = case.subjects["r1"]
    gone = dataclasses.replace(subject, retain=subject.retain[:0])
    client = dataclasses.replace(case, granularity="client", subjects={**case.subjects, "r1": gone})
    made = unlearn(make_method(name, {}), client)
    for model, weights in made.weights.items():
        assert not torch.equal(weights[LAYER], case.subjects[model].original[LAYER])
        assert all(bool(value.isfinite().all()) for value in weights.values())


def test_differences_of_several_roots_add_up(case: MethodCase) -> None:
    pair = dataclasses.replace(
        case,
        roots={"r1": (), "r2": ()},
        forget_at_root=dict.fromkeys(("r1", "r2"), case.subjects["r1"].forget),
    )
    ones = {name: torch.ones_like(value) for name, value in case.subjects["r1"].original.items()}
    differences = {"r1": ones, "r2": {name: 3 * value for name, value in ones.items()}}
    for model, expected in (("r1", 1.0), ("r2", 3.5), ("r3", 2.0)):
        new = with_differences(pair, model, differences, scale=0.5)
        change = new[LAYER] - case.subjects[model].original[LAYER]
        assert torch.allclose(change, torch.full_like(change, expected), atol=1e-5)


def test_dampening_by_batches_squares_mean_gradients(case: MethodCase) -> None:
    subject = case.subjects["r1"]
    everything = Samples.joined([subject.forget, subject.retain])
    forget, reference = (
        batched_importance(subject, samples, "all", 32) for samples in (subject.forget, everything)
    )

    made = unlearn(SelectiveDampening(batch=32), case)

    assert any(
        torch.equal(
            dampened(subject, forget, reference, Dampening(alpha, lam))[LAYER],
            made.weights["r1"][LAYER],
        )
        for alpha in ALPHAS
        for lam in LAMBDAS
    )
