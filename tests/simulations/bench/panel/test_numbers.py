"""The numeric routines of the panel against naive computations in float64."""

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from disinherit.common.errors import InputError
from disinherit.common.models.descent import minimise, steps_of
from disinherit.common.models.membership import area_under_curve, confidence, true_positive_rate
from disinherit.simulations.bench.cases.subjects import Samples
from disinherit.simulations.bench.panel.attacks import loss_attack
from disinherit.simulations.bench.panel.distances import js_divergence, logit_distance
from disinherit.simulations.bench.panel.exam import ModelUnderTest, some
from disinherit.simulations.bench.panel.probing import layers, ridge_classifier
from disinherit.simulations.bench.panel.quantisation import quantise, quantise_rows
from disinherit.simulations.bench.panel.sanity import guess_error
from disinherit.simulations.bench.panel.shadows import (
    Shadows,
    halves,
    statistics,
    train_shadows,
)

scores = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def softmax(logits: list[float]) -> list[float]:
    largest = max(logits)
    powers = [math.exp(z - largest) for z in logits]
    return [power / sum(powers) for power in powers]


@given(st.lists(st.floats(-30, 30), min_size=6, max_size=6))
def test_js_divergence_is_the_textbooks(values: list[float]) -> None:
    def kl(p: list[float], q: list[float]) -> float:
        return sum(a * math.log2(a / b) for a, b in zip(p, q, strict=True) if a > 0)

    one, other = values[:3], values[3:]
    p, q = softmax(one), softmax(other)
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    expected = (kl(p, middle) + kl(q, middle)) / 2
    wide = torch.tensor([one, other], dtype=torch.float64)
    assert js_divergence(wide[:1], wide[1:]).item() == pytest.approx(expected, abs=1e-9)
    assert js_divergence(wide[1:], wide[:1]).item() == pytest.approx(expected, abs=1e-9)


def test_js_divergence_of_what_cannot_be_told_apart_is_not_negative() -> None:
    logits = torch.randn(50, 7, generator=generator()) * 20
    assert js_divergence(logits, logits + 5).abs().max() < 1e-6
    assert js_divergence(logits, logits).min() >= 0


@given(st.lists(st.floats(-9, 9), min_size=6, max_size=6), st.floats(-99, 99))
def test_logit_distance_does_not_see_the_gauge(values: list[float], shift: float) -> None:
    one, other = values[:3], values[3:]
    difference = [a - b for a, b in zip(one, other, strict=True)]
    mean = sum(difference) / 3
    expected = math.sqrt(sum((d - mean) ** 2 for d in difference))
    wide = torch.tensor([one, other], dtype=torch.float64)
    assert logit_distance(wide[:1] + shift, wide[1:]).item() == pytest.approx(expected, abs=1e-9)


@given(scores, scores)
def test_area_under_curve_counts_pairs(members: list[int], others: list[int]) -> None:
    pairs = list(itertools.product(members, others))
    expected = sum(1.0 if m > o else 0.5 if m == o else 0.0 for m, o in pairs) / len(pairs)
    found = area_under_curve(torch.tensor(members), torch.tensor(others))
    assert found == pytest.approx(expected)
    labels = [1] * len(members) + [0] * len(others)
    assert found == pytest.approx(roc_auc_score(labels, members + others), abs=1e-12)


@given(scores, scores, st.sampled_from([0.0, 0.01, 0.1, 0.34, 0.5]))
def test_true_positive_rate_is_the_best_threshold_that_is_allowed(
    members: list[int], others: list[int], rate: float
) -> None:
    best = 0.0
    for threshold in range(-5, 5):  # calling a member what scores above it
        if sum(o > threshold for o in others) <= rate * len(others):
            best = max(best, sum(m > threshold for m in members) / len(members))
    found = true_positive_rate(torch.tensor(members), torch.tensor(others), rate)
    assert found == pytest.approx(best)


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=5), st.integers(0, 4))
def test_confidence_is_the_log_odds_of_the_true_class(logits: list[float], target: int) -> None:
    target %= len(logits)
    p = softmax(logits)[target]
    rest = sum(q for i, q in enumerate(softmax(logits)) if i != target)
    found = confidence(torch.tensor([logits], dtype=torch.float64), torch.tensor([target]))
    assert found.item() == pytest.approx(math.log(p) - math.log(rest), abs=1e-6)


def test_confidence_of_a_sure_model_is_finite() -> None:
    sure = torch.tensor([[900.0, 0.0, -900.0]] * 2)
    assert confidence(sure, torch.tensor([0, 2])).tolist() == [900.0, -1800.0]


def test_the_loss_attack_tells_apart_what_rounds_to_a_loss_of_zero() -> None:
    members, others = (
        Samples(torch.tensor([[m, 0.0] for m in margins]), torch.zeros(3, dtype=torch.int64))
        for margins in ((40.0, 50.0, 60.0), (20.0, 30.0, 45.0))
    )
    splits = {"forget": members, "unseen": others}
    exam: Any = SimpleNamespace(need=splits.__getitem__)
    network = nn.Linear(2, 2, bias=False)
    nn.init.eye_(network.weight)
    found = loss_attack(exam, ModelUnderTest(network, splits))
    assert found["loss_attack_auc"] == pytest.approx(8 / 9)


def test_shadow_statistics_against_loops() -> None:
    found = torch.randn(6, 5, generator=generator(), dtype=torch.float64)
    seen = halves(6, 5, generator(1))
    inside, outside, variance = statistics(found, seen)
    squares = 0.0
    for target in range(5):
        for mean, wanted in ((inside[target], True), (outside[target], False)):
            values = [found[k, target].item() for k in range(6) if bool(seen[k, target]) is wanted]
            assert len(values) == 3
            expected = sum(values) / 3
            assert mean.item() == pytest.approx(expected)
            squares += sum((value - expected) ** 2 for value in values)
    assert variance == pytest.approx(squares / (30 - 10))


def test_the_likelihood_ratio_is_that_of_two_normal_distributions() -> None:
    targets = Samples(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))
    inside, outside = torch.tensor([3.0, 1.0]), torch.tensor([1.0, 2.0])
    found = Shadows(targets, 1, inside, outside, 0.5).likelihood_ratio(torch.tensor([2.5, 0.0]))
    for index, observed in enumerate((2.5, 0.0)):
        one = torch.distributions.Normal(inside[index].double(), math.sqrt(0.5))
        two = torch.distributions.Normal(outside[index].double(), math.sqrt(0.5))
        value = torch.tensor(observed, dtype=torch.float64)
        assert found[index].item() == pytest.approx(
            (one.log_prob(value) - two.log_prob(value)).item()
        )


@pytest.mark.parametrize("count", [0, 2, 5])
def test_an_impossible_number_of_shadow_models_is_refused(count: int) -> None:
    from tests.support.case import digits_case

    with pytest.raises(
        InputError, match=f"even number of shadow models, 4 or more, but got {count}"
    ):
        train_shadows(digits_case(), "r1", count)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=20))
def test_quantised_weights_are_the_nearest_of_255_levels(values: list[float]) -> None:
    weight = torch.tensor(values, dtype=torch.float64)
    scale = max(abs(value) for value in values) / 127
    levels = [level * scale for level in range(-127, 128)]
    for before, after in zip(values, quantise(weight).tolist(), strict=True):
        nearest = min(abs(before - level) for level in levels)
        assert abs(before - after) == pytest.approx(nearest, abs=1e-9)


@given(st.lists(st.lists(st.floats(-9, 9), min_size=4, max_size=4), min_size=1, max_size=5))
def test_four_bits_are_the_nearest_of_15_levels_of_a_row(rows: list[list[float]]) -> None:
    weight = torch.tensor(rows, dtype=torch.float64)
    found = quantise_rows(weight.reshape(-1, 2, 2)).reshape(-1, 4).tolist()
    for before, after in zip(rows, found, strict=True):
        scale = max(abs(value) for value in before) / 7
        levels = [level * scale for level in range(-7, 8)]
        for one, other in zip(before, after, strict=True):
            nearest = min(abs(one - level) for level in levels)
            assert abs(one - other) == pytest.approx(nearest, abs=1e-9)


def test_the_probe_is_weighted_ridge_regression() -> None:
    x = torch.randn(40, 3, generator=generator(), dtype=torch.float64)
    y = torch.arange(40) % 5 % 3  # classes of different sizes
    tested = torch.randn(25, 3, generator=generator(1), dtype=torch.float64)
    weights = [1 / (y == c).sum().item() / 3 for c in y]
    mean = sum(w * row for w, row in zip(weights, x, strict=True))
    assert isinstance(mean, Tensor)
    variance = sum(w * (row - mean) ** 2 for w, row in zip(weights, x, strict=True))
    assert isinstance(variance, Tensor)
    z = (x - mean) / variance.sqrt()
    # Ridge regression as ordinary least squares with rows added for the penalty.
    roots = torch.tensor(weights, dtype=torch.float64).sqrt().unsqueeze(1)
    onehot = nn.functional.one_hot(y, 3).double() - 1 / 3
    rows = torch.cat([roots * z, math.sqrt(1e-2) * torch.eye(3, dtype=torch.float64)])
    goals = torch.cat([roots * onehot, torch.zeros(3, 3, dtype=torch.float64)])
    solution = torch.linalg.lstsq(rows, goals).solution
    expected = (((tested - mean) / variance.sqrt()) @ solution).argmax(dim=1)
    assert torch.equal(ridge_classifier(x, y, 3, tested), expected)


def test_layers_are_those_with_parameters_and_wide_ones_are_projected_alike() -> None:
    network = nn.Sequential(nn.Linear(2, 300), nn.ReLU(), nn.Linear(300, 4))
    samples = Samples(torch.randn(600, 2, generator=generator()), torch.zeros(600).long())
    found = layers(network, samples)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "0": (600, 256),
        "2": (600, 4),
    }
    assert torch.equal(found["2"], network(samples.inputs).detach())
    assert torch.equal(found["0"], layers(network, samples)["0"])


@pytest.mark.parametrize(("members", "others"), [(5, 7), (30, 20)])
def test_the_error_of_a_guess_is_that_of_random_ranks(members: int, others: int) -> None:
    areas = []
    for seed in range(1500):
        order = torch.rand(members + others, generator=generator(seed))
        areas.append(area_under_curve(order[:members], order[members:]))
    spread = torch.tensor(areas).std().item()
    assert guess_error(members, others) == pytest.approx(spread, rel=0.1)


def test_some_samples_are_distinct_and_the_same_each_time() -> None:
    samples = Samples(torch.arange(50).float().unsqueeze(1), torch.zeros(50).long())
    chosen = some(samples, 20, seed=3)
    assert len(set(chosen.inputs.flatten().tolist())) == 20
    assert torch.equal(chosen.inputs, some(samples, 20, seed=3).inputs)
    assert some(samples, 50, seed=3) is samples


def test_descent_ends_when_it_is_enough_and_never_trains_on_one_sample() -> None:
    sizes: list[int] = []
    network = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2))

    def loss(chosen: Tensor) -> Tensor:
        sizes.append(len(chosen))
        assert network.training
        outputs: Tensor = network(torch.ones(len(chosen), 1))
        return outputs.square().sum()

    def enough() -> bool:
        assert not network.training
        return len(sizes) == 7

    taken = minimise(
        network, loss, 9, steps=20, learning_rate=0.1, seed=0, batch_size=4, enough=enough
    )
    assert taken == len(sizes) == 7
    assert sizes == [4] * 7
    assert minimise(network, loss, 9, steps=3, learning_rate=0.1, seed=0, batch_size=4) == 3


def test_steps_cover_the_epochs() -> None:
    assert steps_of(128, 3, 64) == 6
    assert steps_of(129, 3, 64) == 9
