"""The gauge of a linear head: softmax and Fisher information do not depend on it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from disinherit.common.errors import InputError, ScopeError
from disinherit.common.fiun.gauge import LinearHead, fix_gauge
from tests.support.fiun_cases import logits_of, random_head, untimed


def naive_fisher(weight: Tensor, bias: Tensor, features: Tensor, labels: Tensor) -> list[Tensor]:
    """Mean over samples of squared gradients, by autograd, one sample at a time."""
    leaves = [weight.clone().requires_grad_(), bias.clone().requires_grad_()]
    sums = [torch.zeros_like(leaf) for leaf in leaves]
    for sample, label in zip(features, labels, strict=True):
        logits = logits_of(leaves[0], leaves[1], sample[None])
        loss = torch.nn.functional.cross_entropy(logits, label[None])
        for total, gradient in zip(sums, torch.autograd.grad(loss, leaves), strict=True):
            total += gradient**2
    return [total / len(labels) for total in sums]


def closed_form_fisher(head: LinearHead, features: Tensor, labels: Tensor) -> list[Tensor]:
    residual = logits_of(head.weight, head.bias, features).softmax(dim=1)
    residual = residual - torch.nn.functional.one_hot(labels, residual.shape[1])
    return [(residual**2).T @ features**2 / len(labels), (residual**2).mean(dim=0)]


class TestGauge:
    @untimed
    @given(st.integers(0, 100), st.floats(0, 10))
    def test_softmax_and_fisher_do_not_depend_on_the_gauge(
        self, seed: int, strength: float
    ) -> None:
        head = random_head(seed)
        fixed = fix_gauge(head, strength)
        generator = torch.Generator().manual_seed(seed + 1)
        features = torch.randn(6, 4, generator=generator, dtype=torch.float64)
        labels = torch.randint(0, 5, (6,), generator=generator)
        before = logits_of(head.weight, head.bias, features).softmax(dim=1)
        after = logits_of(fixed.weight, fixed.bias, features).softmax(dim=1)
        torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-12)
        for old, new in zip(
            closed_form_fisher(head, features, labels),
            closed_form_fisher(fixed, features, labels),
            strict=True,
        ):
            torch.testing.assert_close(new, old, rtol=1e-9, atol=1e-12)

    def test_fisher_by_autograd_agrees(self) -> None:
        head = random_head(3)
        fixed = fix_gauge(head, 1.5)
        assert fixed.bias is not None
        features = torch.rand(5, 4, generator=torch.Generator().manual_seed(4)).double()
        labels = torch.tensor([0, 1, 2, 3, 4])
        for old, new in zip(
            closed_form_fisher(head, features, labels),
            naive_fisher(fixed.weight, fixed.bias, features, labels),
            strict=True,
        ):
            torch.testing.assert_close(new, old, rtol=1e-9, atol=1e-12)

    def test_by_hand(self) -> None:
        head = LinearHead(torch.tensor([[1.0, -2.0], [3.0, 5.0]]), torch.tensor([4.0, 6.0]))
        fixed = fix_gauge(head, 0.5)
        assert fixed.weight.tolist() == [[0.5, -1.0], [2.5, 6.0]]
        assert fixed.bias is not None
        assert fixed.bias.tolist() == [2.0, 4.0]

    @untimed
    @given(st.integers(0, 50))
    def test_strength_one_puts_the_minimum_at_zero(self, seed: int) -> None:
        fixed = fix_gauge(random_head(seed), 1.0)
        assert fixed.bias is not None
        assert bool((fixed.weight.amin(dim=0) == 0).all())
        assert fixed.bias.min().item() == 0

    @untimed
    @given(st.integers(0, 50), st.integers(0, 4))
    def test_a_fully_dampened_row_ends_at_the_bottom(self, seed: int, row: int) -> None:
        fixed = fix_gauge(random_head(seed), 1.0)
        assert fixed.bias is not None
        fixed.weight[row], fixed.bias[row] = 0.0, 0.0
        features = torch.rand(8, 4, generator=torch.Generator().manual_seed(seed)).double()
        logits = logits_of(fixed.weight, fixed.bias, features)
        assert bool((logits >= logits[:, [row]]).all())

    def test_strength_zero_and_memory(self) -> None:
        head = random_head(0)
        fixed = fix_gauge(head, 0.0)
        assert torch.equal(fixed.weight, head.weight)
        before = head.weight.clone()
        fixed.weight.fill_(0)
        assert torch.equal(head.weight, before)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_dtype_is_kept_without_bias(self, dtype: torch.dtype) -> None:
        fixed = fix_gauge(LinearHead(torch.randn(3, 2).to(dtype)), 1.0)
        assert fixed.weight.dtype == dtype
        assert fixed.bias is None

    @pytest.mark.parametrize("strength", [-0.1, math.nan, math.inf])
    def test_bad_strength(self, strength: float) -> None:
        with pytest.raises(InputError, match="gauge strength >= 0"):
            fix_gauge(random_head(0), strength)

    @pytest.mark.parametrize(
        ("weight", "bias"),
        [((3,), None), ((0, 2), None), ((3, 2), (2,)), ((3, 2), (3, 1))],
    )
    def test_bad_shapes(self, weight: tuple[int, ...], bias: tuple[int, ...] | None) -> None:
        with pytest.raises(ScopeError, match="head"):
            LinearHead(torch.zeros(weight), None if bias is None else torch.zeros(bias))
