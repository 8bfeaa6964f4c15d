"""Dampening in place and in pieces, against one pass over whole tensors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from disinherit.common.errors import FisherError
from disinherit.common.fiun import dampening
from disinherit.common.fiun.dampening import dampen, dampen_

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def whole(
    theta: Tensor,
    forget: Tensor,
    reference: Tensor,
    alpha: float,
    lam: float,
    exponent: float,
    bound: float,
    rows: list[int] | None,
) -> tuple[Tensor, Tensor]:
    """Return the new tensor and the mask of selected values, by the formula."""
    dtype = torch.promote_types(torch.promote_types(forget.dtype, reference.dtype), torch.float32)
    f, r = forget.to(dtype), reference.to(dtype)
    selected = f > alpha * r
    if rows is not None:
        mask = torch.zeros_like(selected)
        mask[rows] = True
        selected &= mask
    factor = (lam * r / f).pow(exponent).clamp(max=bound)
    return torch.where(selected, (theta * factor).to(theta.dtype), theta), selected


@settings(max_examples=150, deadline=None)
@given(
    shape=st.sampled_from([(), (7,), (5, 3), (4, 3, 2), (1, 40), (0, 4), (3, 0)]),
    piece=st.integers(1, 50),
    dtype=st.sampled_from(DTYPES),
    fisher_dtype=st.sampled_from(DTYPES),
    transposed=st.booleans(),
    restrict=st.booleans(),
    alpha=st.floats(0.1, 3),
    exponent=st.sampled_from([1.0, 0.5, 2.0]),
    bound=st.sampled_from([1.0, 0.3]),
    seed=st.integers(0, 999),
)
def test_dampening_in_pieces_equals_the_whole(
    shape: tuple[int, ...],
    piece: int,
    dtype: torch.dtype,
    fisher_dtype: torch.dtype,
    transposed: bool,
    restrict: bool,
    alpha: float,
    exponent: float,
    bound: float,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def drawn() -> Tensor:
        value = torch.rand(shape, generator=generator, dtype=torch.float64)
        value[value < 0.2] = 0  # so that 0 / 0, x / 0 and 0 / x occur
        return value.to(fisher_dtype)

    theta = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    forget, reference = drawn(), drawn()
    if transposed and len(shape) == 2:
        theta = theta.T.contiguous().T
        forget = forget.T.contiguous().T
    rows = [0, len(theta) - 1] if restrict and shape and shape[0] else None
    expected, selected = whole(theta, forget, reference, alpha, 0.5, exponent, bound, rows)
    before = theta.clone()
    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(dampening, "_PIECE", piece)
        limits = {} if rows is None else {"w": rows}
        named = {"w": theta}, {"w": forget}, {"w": reference}
        result = dampen(*named, alpha, 0.5, exponent, bound, limits)
        assert torch.equal(theta, before)
        counts = dampen_(*named, alpha, 0.5, exponent, bound, limits)
    # Vectorised and scalar code of `pow` may differ in the last bit.
    close = 0.0 if exponent == 1 else None
    torch.testing.assert_close(theta, expected, rtol=close, atol=close)
    torch.testing.assert_close(result.parameters["w"], expected, rtol=close, atol=close)
    assert torch.equal(theta[~selected], before[~selected])
    table = selected.reshape(len(theta) if shape else 1, math.prod(shape[1:]))
    assert counts["w"].tolist() == table.sum(dim=1).tolist()
    assert result.selected["w"].tolist() == counts["w"].tolist()


def test_a_refused_call_changes_nothing() -> None:
    theta = {"a": torch.ones(3), "b": torch.ones(3)}
    forget = {"a": torch.ones(3), "b": torch.tensor([1.0, math.nan, 1.0])}
    reference = {"a": torch.full((3,), 0.1), "b": torch.ones(3)}
    with pytest.raises(FisherError, match="'b'"):
        dampen_(theta, forget, reference, 1.0, 1.0)
    assert torch.equal(theta["a"], torch.ones(3))


def test_unselected_values_stay_bit_for_bit() -> None:
    theta = torch.tensor([-0.0, math.inf, math.nan, 1e-45])
    before = theta.clone().view(torch.int32)
    dampen_({"w": theta}, {"w": torch.zeros(4)}, {"w": torch.zeros(4)}, 1.0, 1.0)
    assert torch.equal(theta.view(torch.int32), before)
