"""The inheritance score against a naive oracle, and properties for all Fishers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from disinherit.common.errors import FisherError
from disinherit.common.fiun.comparing import inheritance_score


def naive(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Cosine of all values, one after the other, in Python floats."""
    f = [x for name in one for x in one[name].flatten().tolist()]
    g = [x for name in one for x in other[name].flatten().tolist()]
    dot: float = sum(a * b for a, b in zip(f, g, strict=True))
    return dot / float(math.sqrt(sum(a * a for a in f) * sum(b * b for b in g)))


def fisher(seed: int, rows: int, columns: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"weight": (rows, columns), "bias": (rows,)}
    return {
        name: torch.rand(shape, generator=generator, dtype=torch.float64) ** 4 + 1e-9
        for name, shape in shapes.items()
    }


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 7), st.floats(1e-6, 1e6))
def test_the_score_is_the_cosine_at_any_scale(
    seed: int, rows: int, columns: int, factor: float
) -> None:
    one, other = fisher(seed, rows, columns), fisher(seed + 1, rows, columns)
    scaled = {name: factor * value for name, value in other.items()}

    score = inheritance_score(one, other)

    assert score is not None
    assert score == pytest.approx(naive(one, other), rel=1e-12)
    assert 0 <= score <= 1
    assert inheritance_score(one, scaled) == pytest.approx(score, rel=1e-9)
    assert inheritance_score(other, one) == pytest.approx(score, rel=1e-12)
    assert inheritance_score(one, one) == pytest.approx(1.0)


def test_only_the_given_rows_count() -> None:
    one, other = fisher(1, 3, 4), fisher(2, 3, 4)
    rows = {"weight": [1], "bias": [1]}

    score = inheritance_score(one, other, rows)

    part = {name: value[[1]] for name, value in one.items()}
    assert score == pytest.approx(naive(part, {n: v[[1]] for n, v in other.items()}), rel=1e-12)
    for value in other.values():
        value[0] = 0
    assert inheritance_score(one, other, rows) == score


def test_half_precision_is_summed_in_double() -> None:
    one = {"w": torch.full((100_000,), 6e-5, dtype=torch.float16)}

    assert inheritance_score(one, one) == pytest.approx(1.0)


def test_a_fisher_of_zeros_has_no_score() -> None:
    assert inheritance_score({"w": torch.zeros(2)}, {"w": torch.ones(2)}) is None


def test_other_shapes_are_refused() -> None:
    with pytest.raises(FisherError, match=r"\[2\].*\[3\]"):
        inheritance_score({"w": torch.ones(2)}, {"w": torch.ones(3)})
