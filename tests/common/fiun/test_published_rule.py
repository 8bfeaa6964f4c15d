"""Dampening against the published rule, one value at a time."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from disinherit.common.errors import FisherError, InputError, ScopeError
from disinherit.common.fiun.dampening import dampen
from disinherit.common.fiun.merging import merge_fishers
from tests.support.fiun_cases import equal, f64, published_rule, untimed


class TestDampen:
    def test_published_rule_by_hand(self) -> None:
        # alpha = 2, lam = 3. Per column: not above the threshold; exactly on it (not selected);
        # selected with factor 3*1/6 = 0.5; selected with factor 3*1/2.5 = 1.2, bounded: unchanged
        # yet counted; selected with 3*0.1/3 = 0.1.
        theta = {"w": f64(10, 10, 10, 10, -10)}
        forget = {"w": f64(1, 2, 6, 2.5, 3)}
        full = {"w": f64(1, 1, 1, 1, 0.1)}
        result = dampen(theta, forget, full, alpha=2.0, lam=3.0)
        torch.testing.assert_close(result.parameters["w"], f64(10, 10, 5, 10, -1))
        assert result.parameters["w"][[0, 1, 3]].tolist() == [10, 10, 10]
        assert result.selected["w"].tolist() == [0, 0, 1, 1, 1]

    @untimed
    @given(
        st.lists(
            st.tuples(st.floats(-10, 10), st.floats(1e-6, 10), st.floats(1e-6, 10)),
            min_size=1,
            max_size=8,
        ),
        st.floats(0.1, 20),
        st.floats(0.01, 20),
        st.sampled_from([0.5, 1.0, 2.0]),
    )
    def test_equals_the_published_rule(
        self,
        values: list[tuple[float, float, float]],
        alpha: float,
        lam: float,
        exponent: float,
    ) -> None:
        theta, forget, full = (f64(*column) for column in zip(*values, strict=True))
        result = dampen({"w": theta}, {"w": forget}, {"w": full}, alpha, lam, exponent)
        expected = [published_rule(*value, alpha, lam, exponent) for value in values]
        torch.testing.assert_close(
            result.parameters["w"], f64(*(value for value, _ in expected)), rtol=1e-13, atol=0
        )
        assert result.selected["w"].tolist() == [int(chosen) for _, chosen in expected]

    def test_exponent_and_bound(self) -> None:
        theta, forget, full = {"w": f64(8, 8)}, {"w": f64(4, 1)}, {"w": f64(1, 0.9)}
        squared = dampen(theta, forget, full, 1.0, 1.0, exponent=2.0)
        torch.testing.assert_close(squared.parameters["w"], f64(0.5, 8 * 0.81))
        bounded = dampen(theta, forget, full, 1.0, 1.0, bound=0.5)
        torch.testing.assert_close(bounded.parameters["w"], f64(2, 4))

    def test_zero_fishers(self) -> None:
        # 0 against 0, 0 against something, something against 0.
        result = dampen({"w": f64(3, 3, 3)}, {"w": f64(0, 0, 1e-30)}, {"w": f64(0, 1, 0)}, 1.0, 1.0)
        assert result.parameters["w"].tolist() == [3, 3, 0]
        assert result.selected["w"].tolist() == [0, 0, 1]

    @untimed
    @given(st.floats(0.1, 5), st.floats(1.0, 5))
    def test_higher_alpha_selects_a_subset(self, alpha: float, ratio: float) -> None:
        generator = torch.Generator().manual_seed(0)
        theta, forget, full = (
            {"w": torch.rand(40, generator=generator, dtype=torch.float64)} for _ in range(3)
        )
        low = dampen(theta, forget, full, alpha, 1.0).selected["w"]
        high = dampen(theta, forget, full, alpha * ratio, 1.0).selected["w"]
        assert bool((high <= low).all())

    @untimed
    @given(st.floats(0.1, 5), st.floats(0.1, 5), st.floats(0.1, 1))
    def test_never_grows_or_changes_sign(self, alpha: float, lam: float, bound: float) -> None:
        generator = torch.Generator().manual_seed(1)
        theta = torch.randn(40, generator=generator, dtype=torch.float64)
        forget, full = (torch.rand(40, generator=generator, dtype=torch.float64) for _ in range(2))
        result = dampen({"w": theta}, {"w": forget}, {"w": full}, alpha, lam, bound=bound)
        dampened = result.parameters["w"]
        assert bool((dampened.abs() <= theta.abs()).all())
        assert bool((dampened * theta >= 0).all())
        chosen = result.selected["w"].bool()
        assert bool((dampened[chosen].abs() <= bound * theta[chosen].abs() + 1e-12).all())

    @untimed
    @given(st.integers(-20, 20))
    def test_common_scale_of_both_fishers_cancels(self, power: int) -> None:
        generator = torch.Generator().manual_seed(2)
        theta, forget, full = (
            torch.rand(30, generator=generator, dtype=torch.float64) for _ in range(3)
        )
        scale = 2.0**power
        plain = dampen({"w": theta}, {"w": forget}, {"w": full}, 1.5, 0.7)
        scaled = dampen({"w": theta}, {"w": forget * scale}, {"w": full * scale}, 1.5, 0.7)
        assert equal(plain.parameters, scaled.parameters)
        assert equal(plain.selected, scaled.selected)

    @pytest.mark.parametrize("shape", [(), (3,), (3, 2), (3, 2, 2, 2), (0,), (0, 4), (3, 0)])
    def test_counts_per_row(self, shape: tuple[int, ...]) -> None:
        theta = {"w": torch.ones(shape)}
        result = dampen(theta, {"w": torch.ones(shape)}, {"w": torch.zeros(shape)}, 1.0, 1.0)
        rows = shape[0] if shape else 1
        counts = result.selected["w"]
        assert counts.dtype == torch.int64
        assert counts.tolist() == [math.prod(shape[1:])] * rows
        assert result.parameters["w"].shape == shape
        assert result.selected_count == math.prod(shape)
        assert result.selected_fraction == (1.0 if math.prod(shape) else 0.0)

    def test_fraction_is_over_all_parameters(self) -> None:
        theta = {"w": torch.ones(2, 3), "b": torch.ones(2)}
        forget = {"w": torch.tensor([[2.0, 0, 0], [2.0, 2.0, 0]]), "b": torch.zeros(2)}
        result = dampen(theta, forget, {n: torch.ones_like(t) for n, t in theta.items()}, 1.0, 1.0)
        assert result.selected["w"].tolist() == [1, 2]
        assert result.selected_count == 3
        assert result.selected_fraction == 3 / 8

    def test_nothing_in_scope(self) -> None:
        result = dampen({}, {}, {}, 1.0, 1.0)
        assert result.parameters == {}
        assert result.selected_fraction == 0.0

    def test_rows_restrict_only_the_named(self) -> None:
        theta = {"w": torch.ones(3, 2), "b": torch.ones(3), "conv": torch.ones(2)}
        forget = {name: torch.ones_like(value) for name, value in theta.items()}
        zeros = {name: torch.zeros_like(value) for name, value in theta.items()}
        result = dampen(theta, forget, zeros, 1.0, 1.0, rows={"w": [2, 0, 2], "b": []})
        assert result.parameters["w"].tolist() == [[0, 0], [1, 1], [0, 0]]
        assert result.selected["w"].tolist() == [2, 0, 2]
        assert result.selected["b"].tolist() == [0, 0, 0]
        assert result.selected["conv"].tolist() == [1, 1]

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ({"w": [2]}, r"\[0, 2\) for parameter 'w', but got 2"),
            ({"w": [-1]}, "but got -1"),
            ({"x": [0]}, "'x'"),
            ({"s": [0]}, "scalar 's'"),
        ],
    )
    def test_bad_rows(self, rows: dict[str, list[int]], message: str) -> None:
        theta = {"w": torch.ones(2), "s": torch.ones(())}
        with pytest.raises(ScopeError, match=message):
            dampen(theta, theta, theta, 1.0, 1.0, rows=rows)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_dtype_is_kept_and_inputs_untouched(self, dtype: torch.dtype) -> None:
        theta = torch.tensor([1.0, 0.7], dtype=dtype, requires_grad=True)
        before = theta.detach().clone()
        forget, full = torch.tensor([8.0, 0.5]), torch.tensor([1.0, 1.0])
        result = dampen({"w": theta}, {"w": forget}, {"w": full}, 1.0, 1.0).parameters["w"]
        assert result.dtype == dtype
        assert not result.requires_grad
        assert result[0].item() == 0.125
        assert torch.equal(result[1], before[1])
        result.fill_(9)
        assert torch.equal(theta.detach(), before)
        assert forget.tolist() == [8.0, 0.5]
        assert full.tolist() == [1.0, 1.0]

    def test_half_precision_fishers_are_widened(self) -> None:
        # In float16 the factor 2 / 60000 is subnormal, with only a few digits left.
        half = torch.float16
        forget, full = torch.tensor([60000.0], dtype=half), torch.tensor([2.0], dtype=half)
        result = dampen({"w": torch.ones(1)}, {"w": forget}, {"w": full}, 1.0, 1.0)
        expected = torch.tensor([2.0 / 60000])
        torch.testing.assert_close(result.parameters["w"], expected, rtol=1e-6, atol=0)

    @pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, 1e300])
    @pytest.mark.parametrize("name", ["alpha", "lam", "exponent"])
    def test_numbers_must_be_positive_and_finite(self, name: str, value: float) -> None:
        numbers: dict[str, Any] = {"alpha": 1.0, "lam": 1.0, name: value}
        with pytest.raises(InputError, match=f"positive finite {name}"):
            dampen({"w": f64(1)}, {"w": f64(1)}, {"w": f64(1)}, **numbers)

    @pytest.mark.parametrize("bound", [0.0, -0.5, 1.01, math.nan])
    def test_bound_must_not_amplify(self, bound: float) -> None:
        with pytest.raises(InputError, match=r"bound in \(0, 1\]"):
            dampen({"w": f64(1)}, {"w": f64(1)}, {"w": f64(1)}, 1.0, 1.0, bound=bound)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
    @pytest.mark.parametrize("side", ["forget", "reference"])
    def test_bad_fisher_values(self, bad: float, side: str) -> None:
        fishers: dict[str, Any] = {"forget": {"w": f64(1, 1)}, "reference": {"w": f64(1, 1)}}
        fishers[side]["w"][0] = bad
        with pytest.raises(FisherError, match=f"'w' in the {side} Fisher"):
            dampen({"w": f64(1, 1)}, alpha=1.0, lam=1.0, **fishers)

    @pytest.mark.parametrize(
        ("side", "message"),
        [
            ("parameters", r"got \['b'\] missing in the parameters\."),
            ("forget", r"got \['b'\] missing in the forget Fisher\."),
            ("reference", r"got \['b'\] missing in the reference Fisher\."),
        ],
    )
    def test_names_must_agree(self, side: str, message: str) -> None:
        sides: dict[str, Any] = {
            key: {"w": f64(1), "b": f64(1)} for key in ("parameters", "forget", "reference")
        }
        del sides[side]["b"]
        with pytest.raises(FisherError, match=message):
            dampen(alpha=1.0, lam=1.0, **sides)

    @pytest.mark.parametrize("side", ["forget", "reference"])
    def test_shapes_must_agree(self, side: str) -> None:
        sides: dict[str, Any] = {
            key: {"w": f64(1, 1)} for key in ("parameters", "forget", "reference")
        }
        sides[side] = {"w": f64(1)}
        with pytest.raises(FisherError, match=rf"\[2\] for 'w' .* \[1\] in the {side} Fisher"):
            dampen(alpha=1.0, lam=1.0, **sides)

    def test_integer_parameter_is_refused(self) -> None:
        with pytest.raises(ScopeError, match=r"int64 for 'n'"):
            dampen({"n": torch.tensor([1])}, {"n": f64(1)}, {"n": f64(1)}, 1.0, 1.0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("place", [torch.Tensor.cuda, torch.Tensor.cpu])
def test_device_is_that_of_the_parameters(place: Callable[[Tensor], Tensor]) -> None:
    theta, fisher = {"w": torch.ones(3, 2).cuda()}, {"w": place(torch.ones(3, 2))}
    zeros = {"w": place(torch.zeros(3, 2))}
    result = dampen(theta, fisher, zeros, 1.0, 1.0, rows={"w": [1]})
    assert result.parameters["w"].device == theta["w"].device
    assert result.selected["w"].tolist() == [0, 2, 0]
    assert merge_fishers([theta, fisher])["w"].device == theta["w"].device
