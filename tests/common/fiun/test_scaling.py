"""The scale between two Fishers, against sums in plain Python."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from disinherit.common.fiun.comparing import relative_scale, scaled

POSITIVE = arrays("float64", 6, elements=st.floats(1e-6, 1e6))


@given(POSITIVE, POSITIVE, st.floats(1e-6, 1e6))
def test_a_rescaled_fisher_has_the_others_total(one, other, times) -> None:  # type: ignore[no-untyped-def]
    inherited = {"w": torch.tensor(one[:4]).reshape(2, 2), "b": torch.tensor(one[4:])}
    own = {"w": torch.tensor(other[:4]).reshape(2, 2), "b": torch.tensor(other[4:])}

    factor = relative_scale(inherited, own)

    assert factor == pytest.approx(sum(one.tolist()) / sum(other.tolist()))
    total = sum(float(value.sum()) for value in scaled(own, factor).values())
    assert total == pytest.approx(sum(one.tolist()))
    larger = {name: value * times for name, value in inherited.items()}
    assert relative_scale(larger, own) == pytest.approx(factor * times)


@pytest.mark.parametrize("values", [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (1e-320, 1e300)])
def test_incomparable_fishers_keep_their_scale(values: tuple[float, float]) -> None:
    inherited, own = ({"w": torch.tensor([v], dtype=torch.float64)} for v in values)

    assert relative_scale(inherited, own) == 1.0


def test_sums_do_not_lose_small_values_in_float32() -> None:
    many = {"w": torch.full((1 << 20,), 1e-4)}
    assert relative_scale(many, {"w": torch.tensor([1.0])}) == pytest.approx(104.8576, rel=1e-6)


def test_scale_one_returns_the_same_tensors() -> None:
    fisher = {"w": torch.ones(2)}
    assert scaled(fisher, 1.0)["w"] is fisher["w"]
    assert torch.equal(scaled(fisher, 0.5)["w"], torch.full((2,), 0.5))
