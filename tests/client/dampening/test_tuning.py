"""The choice of a strength: the best one, and among equals the closest to the defaults."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from disinherit.client.dampening.tuning import (
    ALPHAS,
    GAUGES,
    LAMBDAS,
    PLAIN,
    DampeningStrength,
    FixedStrength,
    tune,
)
from disinherit.common.errors import InputError

TARGETS = torch.tensor([0, 0, 1, 1, 2, 2])


def encode(alpha: float, lam: float, gauges: Sequence[float]) -> list[dict[str, Tensor]]:
    """A "model" that holds only its strength of dampening."""
    return [{"s": torch.tensor([alpha, lam, gauge])} for gauge in gauges]


def decode(parameters: Mapping[str, Tensor]) -> DampeningStrength:
    alpha, lam, gauge = (round(value, 5) for value in parameters["s"].tolist())
    return DampeningStrength(alpha, lam, gauge)


class Answers:
    """Predictions per strength; `otherwise` for all that are not listed."""

    targets = TARGETS

    def __init__(self, special: dict[DampeningStrength, list[int]], otherwise: list[int]) -> None:
        self.special = special
        self.otherwise = otherwise
        self.asked: list[DampeningStrength] = []

    def __call__(self, candidates: Sequence[Mapping[str, Tensor]]) -> Iterator[Tensor]:
        strengths = [decode(parameters) for parameters in candidates]
        self.asked += strengths
        predicted = torch.tensor([self.special.get(s, self.otherwise) for s in strengths]).T
        yield from torch.nn.functional.one_hot(predicted, 3).double().split(4)


def choose(answers: Answers, pinned: FixedStrength | None = None) -> DampeningStrength | None:
    return tune(encode, answers, [0], pinned or FixedStrength())


def test_the_best_of_the_grid_is_found() -> None:
    best = DampeningStrength(10.0, 0.1, 3.0)  # the farthest from the defaults
    answers = Answers({best: [1, 1, 1, 1, 2, 2]}, otherwise=[0, 1, 1, 1, 2, 2])
    assert choose(answers) == best
    assert len(answers.asked) == len(set(answers.asked)) == 6 * 3 * 6


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ([1, 1, 1, 1, 2, 2], [0, 1, 1, 1, 2, 2]),  # forgets more, retains the same
        ([0, 1, 1, 1, 2, 2], [0, 1, 1, 1, 2, 0]),  # forgets the same, retains more
        ([0, 1, 1, 1, 2, 2], [1, 1, 0, 0, 0, 0]),  # forgets with only wrong answers
        ([1, 1, 1, 1, 2, 0], [0, 1, 1, 1, 2, 2]),  # 1 * 0.75 > 0.5 * 1
    ],
)
def test_forgetting_and_retaining_are_weighed(better: list[int], worse: list[int]) -> None:
    special = DampeningStrength(0.3, 0.1, 0.0)
    assert choose(Answers({special: better}, worse)) == special
    assert choose(Answers({special: worse}, better)) == PLAIN


def test_retain_accuracy_bounds_the_strength_if_rows_are_taken_out() -> None:
    """The class is forgotten at every strength; its features are not worth half the accuracy."""
    strong, mild = DampeningStrength(0.3, 0.1, 1.0), DampeningStrength(100.0, 1.0, 1.0)
    answers = {strong: [1, 1, 1, 0, 2, 0], mild: [0, 1, 1, 0, 2, 2]}
    otherwise = [0, 0, 1, 1, 2, 1]
    assert tune(encode, Answers(answers, otherwise), [0], FixedStrength()) == strong
    # Without row 0, a wrong answer 0 is the first of the others: right for class 1.
    found = tune(encode, Answers(answers, otherwise), [0], FixedStrength(), rows_out=True)
    assert found == mild


def test_among_equals_the_defaults_are_preferred() -> None:
    assert choose(Answers({}, [1, 1, 1, 1, 2, 2])) == PLAIN
    near, far = DampeningStrength(1.0, 1.0, 1.5), DampeningStrength(10.0, 1.0, 0.0)
    right = [1, 1, 1, 1, 2, 2]
    assert choose(Answers({far: right, near: right}, [0, 0, 1, 1, 2, 2])) == near


def test_pinned_values_are_respected() -> None:
    answers = Answers({}, [1, 1, 1, 1, 2, 2])
    pinned = FixedStrength(alpha=7.0, gauge=0.25)
    assert choose(answers, pinned) == DampeningStrength(7.0, 1.0, 0.25)
    assert {(s.alpha, s.gauge) for s in answers.asked} == {(7.0, 0.25)}
    assert sorted(s.lam for s in answers.asked) == sorted(LAMBDAS)


@pytest.mark.parametrize("forgotten", [[], [0, 1, 2], [3]])
def test_no_strength_is_chosen_without_forgotten_or_retained_samples(forgotten: list[int]) -> None:
    answers = Answers({}, [1, 1, 1, 1, 2, 2])
    assert tune(encode, answers, forgotten, FixedStrength()) is None
    assert not answers.asked


values = st.one_of(st.none(), st.floats(0.01, 100.0))


@given(alpha=values, lam=values, gauge=st.one_of(st.none(), st.floats(0.0, 10.0)))
def test_candidates_are_the_grid_defaults_first(
    alpha: float | None, lam: float | None, gauge: float | None
) -> None:
    pinned = FixedStrength(alpha, lam, gauge)
    candidates = pinned.candidates()
    assert candidates[0] == pinned.default()
    assert len(set(candidates)) == len(candidates)
    assert {s.alpha for s in candidates} == (set(ALPHAS) if alpha is None else {alpha})
    assert {s.lam for s in candidates} == (set(LAMBDAS) if lam is None else {lam})
    assert {s.gauge for s in candidates} == (set(GAUGES) if gauge is None else {gauge})
    assert pinned.complete is (None not in (alpha, lam, gauge))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alpha": 0.0}, "positive finite alpha, but got 0.0"),
        ({"alpha": float("nan")}, "positive finite alpha, but got nan"),
        ({"lam": -1.0}, "positive finite lambda, but got -1.0"),
        ({"lam": float("inf")}, "positive finite lambda, but got inf"),
        ({"gauge": -0.5}, "gauge strength >= 0, but got -0.5"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FixedStrength(**values)
