"""Rows that never win: for features of either sign, in every precision."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from disinherit.common.errors import ScopeError
from disinherit.common.fiun.bottom_rows import MARGIN, put_at_bottom

HALF = (torch.float16, torch.bfloat16)


def features_of(kind: str, count: int, width: int, seed: int) -> Tensor:
    """Inputs of a head: features of common last layers."""
    made = 2 * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": torch.relu,
        "tanh": torch.tanh,
        "gelu": torch.nn.functional.gelu,
        "norm": lambda x: torch.nn.functional.layer_norm(x, (width,)),
        "negative": lambda x: -x.abs(),
        "none": lambda x: x,
    }
    return kinds[kind](made)


@settings(deadline=None, max_examples=150)
@given(
    kind=st.sampled_from(["relu", "tanh", "gelu", "norm", "negative", "none"]),
    dtype=st.sampled_from([torch.float64, torch.float32, *HALF]),
    classes=st.integers(2, 12),
    forgotten=st.sets(st.integers(0, 10), min_size=1, max_size=4),
    scale=st.floats(0.01, 20.0),
    shift=st.floats(-5.0, 5.0),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_bottom_rows_are_never_predicted_and_other_rows_stay(
    kind: str,
    dtype: torch.dtype,
    classes: int,
    forgotten: set[int],
    scale: float,
    shift: float,
    bias: bool,
    seed: int,
) -> None:
    rows = sorted(row for row in forgotten if row < classes)
    kept = [row for row in range(classes) if row not in rows]
    if not rows or len(kept) < (1 if bias else 2):
        return
    generator = torch.Generator().manual_seed(seed)
    weight = (scale * torch.randn(classes, 6, generator=generator) + shift).to(dtype)
    biases = (scale * torch.randn(classes, generator=generator)).to(dtype) if bias else None
    weight[rows] += 3  # as after training: often above all others
    before = weight.clone(), None if biases is None else biases.clone()
    put_at_bottom(weight, biases, rows)
    assert torch.equal(weight[kept], before[0][kept])
    features = features_of(kind, 200, 6, seed).to(dtype)
    logits = features.double() @ weight.double().T
    if biases is not None and before[1] is not None:
        assert torch.equal(biases[kept], before[1][kept])
        logits += biases.double()
        if dtype not in HALF:
            share = logits.softmax(dim=1)[:, rows]
            assert bool((share <= 1.01 * math.exp(-MARGIN) / len(kept)).all())
    best = logits[:, kept].amax(dim=1, keepdim=True)
    # Without a bias no margin covers the rounding of the row; in half precision that may be more.
    size = (features.abs() @ weight.abs().T).double().amax(dim=1, keepdim=True)
    rounding = {torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}.get(dtype, 1e-6)
    allowed = 0.0 if biases is not None and dtype not in HALF else rounding
    assert bool((logits[:, rows] <= best + allowed * size).all())


def test_by_hand() -> None:
    weight = torch.tensor([[9.0, -9.0], [2.0, 0.0], [0.0, 4.0]])
    bias = torch.tensor([1.0, 3.0, -1.0])
    put_at_bottom(weight, bias, [0])
    assert weight.tolist() == [[1.0, 2.0], [2.0, 0.0], [0.0, 4.0]]
    assert bias.tolist() == [1.0 - MARGIN, 3.0, -1.0]


def test_putting_rows_at_the_bottom_is_idempotent() -> None:
    weight, bias = torch.randn(5, 3), torch.randn(5)
    put_at_bottom(weight, bias, [1, 4])
    again = weight.clone(), bias.clone()
    put_at_bottom(*again, [4, 1, 1])
    assert torch.equal(again[0], weight)
    assert torch.equal(again[1], bias)


def test_convolutions_have_rows_too() -> None:
    weight = torch.randn(4, 3, 1, 1)
    expected = weight[1:].mean(dim=0)
    put_at_bottom(weight, None, [0])
    torch.testing.assert_close(weight[0], expected)


def test_a_single_kept_class_without_a_bias_wins_on_non_negative_features() -> None:
    weight = torch.tensor([[3.0, 3.0], [1.0, -2.0]])
    put_at_bottom(weight, None, [0])
    features = torch.rand(50, 2) + 0.01
    assert bool(((features @ weight.T).argmax(dim=1) == 1).all())


def test_without_kept_classes_all_logits_are_equal() -> None:
    weight, bias = torch.randn(3, 2), torch.randn(3)
    put_at_bottom(weight, bias, [0, 1, 2])
    assert not weight.any()
    assert not bias.any()


@pytest.mark.parametrize("row", [-1, 3])
def test_a_row_that_does_not_exist_is_refused(row: int) -> None:
    weight = torch.ones(3, 2)
    with pytest.raises(ScopeError, match=rf"rows in \[0, 3\) of the head, but got {row}"):
        put_at_bottom(weight, None, [row])
    assert bool((weight == 1).all())
