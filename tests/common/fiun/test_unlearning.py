"""Merging, dampening and the gauge against hand-computed numbers, naive loops and algebra."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from disinherit.common.errors import FisherError, InputError, ScopeError
from disinherit.common.fiun.bottom_rows import MARGIN
from disinherit.common.fiun.dampening import Dampened, dampen
from disinherit.common.fiun.gauge import LinearHead, fix_gauge
from disinherit.common.fiun.merging import merge_fishers
from disinherit.common.fiun.unlearning import StrengthGrid, unlearn_parameters
from disinherit.common.method import MergeRule

untimed = settings(deadline=None)  # a busy machine is not a wrong result

RULES: tuple[MergeRule, ...] = ("max", "mean", "sum")


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return list(left) == list(right) and all(torch.equal(left[n], right[n]) for n in left)


# Whole numbers add and multiply without rounding, so that algebra can be checked exactly.
whole = st.integers(0, 1000)
fishers_of_whole = st.lists(
    st.lists(whole, min_size=3, max_size=3).map(lambda v: {"w": f64(*v[:2]), "b": f64(*v[2:])}),
    min_size=1,
    max_size=5,
)


class TestMerge:
    def test_rules_by_hand(self) -> None:
        fishers = [{"w": f64(1, 4, 0)}, {"w": f64(3, 2, 0)}]
        assert merge_fishers(fishers)["w"].tolist() == [3, 4, 0]
        assert merge_fishers(fishers, "mean")["w"].tolist() == [2, 3, 0]
        assert merge_fishers(fishers, "sum")["w"].tolist() == [4, 6, 0]

    @untimed
    @given(fishers_of_whole, st.data())
    def test_commutative(self, fishers: list[dict[str, Tensor]], data: st.DataObject) -> None:
        order = data.draw(st.permutations(range(len(fishers))))
        for rule in RULES:
            straight = merge_fishers(fishers, rule)
            permuted = merge_fishers([fishers[i] for i in order], rule)
            for name in straight:
                torch.testing.assert_close(permuted[name], straight[name], rtol=1e-14, atol=0)

    @untimed
    @given(fishers_of_whole, fishers_of_whole, st.sampled_from(["max", "sum"]))
    def test_associative(
        self, left: list[dict[str, Tensor]], right: list[dict[str, Tensor]], rule: MergeRule
    ) -> None:
        nested = merge_fishers([merge_fishers(left, rule), merge_fishers(right, rule)], rule)
        assert equal(nested, merge_fishers([*left, *right], rule))

    @untimed
    @given(fishers_of_whole, st.integers(1, 5))
    def test_idempotent(self, fishers: list[dict[str, Tensor]], times: int) -> None:
        fisher = fishers[0]
        assert equal(merge_fishers([fisher] * times, "max"), fisher)
        mean = merge_fishers([fisher] * times, "mean")
        for name in fisher:
            torch.testing.assert_close(mean[name], fisher[name], rtol=1e-14, atol=0)

    @untimed
    @given(
        st.lists(st.floats(0, 1e6), min_size=4, max_size=4),
        st.lists(st.floats(0, 1e6), min_size=4, max_size=4),
        st.sampled_from(RULES),
    )
    def test_monotone(self, values: list[float], increases: list[float], rule: MergeRule) -> None:
        low, other = {"w": f64(*values[:2])}, {"w": f64(*values[2:])}
        high = {"w": low["w"] + f64(*increases[:2])}
        below = merge_fishers([low, other], rule)["w"]
        above = merge_fishers([high, other], rule)["w"]
        assert bool((above >= below).all())

    @untimed
    @given(fishers_of_whole)
    def test_the_mean_is_between_and_max_below_sum(self, fishers: list[dict[str, Tensor]]) -> None:
        largest = merge_fishers(fishers, "max")["w"]
        mean = merge_fishers(fishers, "mean")["w"]
        total = merge_fishers(fishers, "sum")["w"]
        assert bool((mean <= largest + 1e-9).all())
        assert bool((largest <= total).all())

    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize("count", [1, 2])
    def test_result_shares_no_memory(self, rule: MergeRule, count: int) -> None:
        fishers = [{"w": torch.ones(2)} for _ in range(count)]
        merge_fishers(fishers, rule)["w"].fill_(7)
        assert all(fisher["w"].tolist() == [1, 1] for fisher in fishers)

    @pytest.mark.parametrize(
        ("dtypes", "expected"),
        [
            ([torch.float16, torch.float16], torch.float32),
            ([torch.bfloat16, torch.float16], torch.float32),
            ([torch.float32, torch.float64], torch.float64),
        ],
    )
    @pytest.mark.parametrize("rule", RULES)
    def test_dtype_is_at_least_float32(
        self, dtypes: list[torch.dtype], expected: torch.dtype, rule: MergeRule
    ) -> None:
        fishers = [{"w": torch.ones(2, dtype=dtype)} for dtype in dtypes]
        assert merge_fishers(fishers, rule)["w"].dtype == expected

    def test_half_precision_does_not_overflow(self) -> None:
        fishers = [{"w": torch.full((1,), 60000.0, dtype=torch.float16)}] * 2
        assert merge_fishers(fishers, "sum")["w"].item() == 120000

    def test_no_gradient_is_recorded(self) -> None:
        assert not merge_fishers([{"w": torch.ones(2, requires_grad=True)}])["w"].requires_grad

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
    @pytest.mark.parametrize("position", [0, 1])
    def test_bad_value_names_parameter_and_fisher(self, bad: float, position: int) -> None:
        fishers = [{"b": f64(1), "w": f64(1, 2)}, {"b": f64(1), "w": f64(1, 2)}]
        fishers[position]["w"][1] = bad
        with pytest.raises(FisherError, match=rf"'w' in Fisher {position}.*{bad}"):
            merge_fishers(fishers)

    def test_integers_are_refused(self) -> None:
        with pytest.raises(FisherError, match=r"floating-point values for 'w'.*int64"):
            merge_fishers([{"w": torch.ones(2, dtype=torch.int64)}])

    def test_names_must_agree(self) -> None:
        both, one = {"w": f64(1), "b": f64(1)}, {"w": f64(1)}
        with pytest.raises(FisherError, match="no 'b' in Fisher 1"):
            merge_fishers([both, one])
        with pytest.raises(FisherError, match="'b' in Fisher 2"):
            merge_fishers([one, one, both])

    def test_shapes_must_agree(self) -> None:
        with pytest.raises(FisherError, match=r"\[2\] for 'w' .* \[1\] in Fisher 1"):
            merge_fishers([{"w": f64(1, 2)}, {"w": f64(1)}])

    def test_nothing_to_merge(self) -> None:
        with pytest.raises(FisherError, match="at least one"):
            merge_fishers([])

    def test_unknown_rule(self) -> None:
        rule: Any = "median"
        with pytest.raises(InputError, match="'median'"):
            merge_fishers([{"w": f64(1)}], rule)

    def test_overflow_is_an_error_and_not_infinity(self) -> None:
        fishers = [{"w": torch.tensor([3e38, 0.0])}] * 2
        with pytest.raises(FisherError, match="overflow"):
            merge_fishers(fishers, "sum")

    def test_mean_survives_huge_values(self) -> None:
        fishers = [{"w": torch.tensor([3e38])}] * 2
        merged = merge_fishers(fishers, "mean")["w"]
        torch.testing.assert_close(merged, fishers[0]["w"])


def published_rule(
    theta: float, forget: float, full: float, alpha: float, lam: float, exponent: float
) -> tuple[float, bool]:
    """SSD as published, one value at a time: a factor above 1 is set to 1."""
    if not forget > alpha * full:
        return theta, False
    factor = (lam * full / forget) ** exponent
    if factor > 1:
        factor = 1.0
    return theta * factor, True


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


def random_head(seed: int, classes: int = 5, features: int = 4) -> LinearHead:
    generator = torch.Generator().manual_seed(seed)
    return LinearHead(
        torch.randn(classes, features, generator=generator, dtype=torch.float64),
        torch.randn(classes, generator=generator, dtype=torch.float64),
    )


def logits_of(weight: Tensor, bias: Tensor | None, features: Tensor) -> Tensor:
    return features @ weight.T + (0 if bias is None else bias)


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


def model(head: LinearHead) -> dict[str, Tensor]:
    assert head.bias is not None
    return {"conv": f64(1, 2), "out.weight": head.weight, "out.bias": head.bias}


class TestUnlearnParameters:
    heads = (("out.weight", "out.bias"),)

    def unlearn(self, parameters: dict[str, Tensor], **changes: Any) -> Dampened:
        """Dampen everything that may be selected to zero; `changes` override the arguments."""
        settings: dict[str, Any] = {
            "alpha": 1.0,
            "lam": 1.0,
            "exponent": 1.0,
            "bound": 1.0,
            "gauge": 0.0,
            "heads": self.heads,
        }
        settings |= changes
        forget = {name: torch.ones_like(value) for name, value in parameters.items()}
        zeros = {name: torch.zeros_like(value) for name, value in parameters.items()}
        return unlearn_parameters(parameters, forget, zeros, **settings)

    def test_without_gauge_and_rows_it_is_the_published_rule(self) -> None:
        parameters = model(random_head(0))
        generator = torch.Generator().manual_seed(1)
        fishers = [
            {
                name: torch.rand(value.shape, generator=generator).double()
                for name, value in parameters.items()
            }
            for _ in range(2)
        ]
        composed = unlearn_parameters(
            parameters,
            *fishers,
            alpha=1.2,
            lam=0.8,
            exponent=1.0,
            bound=1.0,
            gauge=0.0,
            heads=self.heads,
        )
        for name, value in parameters.items():
            expected = [
                published_rule(*numbers, 1.2, 0.8, 1.0)[0]
                for numbers in zip(
                    value.flatten().tolist(),
                    fishers[0][name].flatten().tolist(),
                    fishers[1][name].flatten().tolist(),
                    strict=True,
                )
            ]
            torch.testing.assert_close(composed.parameters[name].flatten(), f64(*expected))

    @pytest.mark.parametrize("gauge", [0.0, 1.0])
    def test_forgotten_rows_are_taken_out_and_all_others_stay(self, gauge: float) -> None:
        head = random_head(1)
        assert head.bias is not None
        result = self.unlearn(model(head), gauge=gauge, forgotten_rows=[1, 3])
        weight, bias = result.parameters["out.weight"], result.parameters["out.bias"]
        keep = [0, 2, 4]
        assert torch.equal(weight[keep], head.weight[keep])
        assert torch.equal(bias[keep], head.bias[keep])
        torch.testing.assert_close(weight[[1, 3]], head.weight[keep].mean(0).expand(2, -1))
        torch.testing.assert_close(bias[[1, 3]], head.bias[keep].mean().expand(2) - MARGIN)
        assert result.selected["out.weight"].tolist() == [0, 4, 0, 4, 0]
        assert result.selected["out.bias"].tolist() == [0, 1, 0, 1, 0]
        assert result.selected["conv"].tolist() == [1, 1]  # not a head parameter: not restricted

    def test_rows_are_taken_out_regardless_of_fisher_information(self) -> None:
        parameters = model(random_head(1))
        zeros = {name: torch.zeros_like(value) for name, value in parameters.items()}
        ones = {name: torch.ones_like(value) for name, value in parameters.items()}
        made = unlearn_parameters(parameters, zeros, ones, heads=self.heads, forgotten_rows=[2])
        assert equal(
            made.parameters,
            self.unlearn(parameters, forgotten_rows=[2]).parameters | {"conv": parameters["conv"]},
        )

    def test_cleared_rows_go_below_the_remaining_ones(self) -> None:
        """Otherwise its row would hold a part of the row that is taken out now."""
        weight, bias = torch.tensor([[1.0], [40.0], [-20.0], [-20.0]]), torch.zeros(4)
        once = self.unlearn({"out.weight": weight, "out.bias": bias}, forgotten_rows=[0])
        twice = self.unlearn(dict(once.parameters), forgotten_rows=[1], cleared_rows=[0])
        wrong = self.unlearn(dict(once.parameters), forgotten_rows=[1])
        logits = [
            logits_of(made.parameters["out.weight"], made.parameters["out.bias"], torch.ones(1, 1))
            for made in (once, twice, wrong)
        ]
        assert [int(one.argmax()) for one in logits] == [1, 2, 0]
        assert twice.selected["out.weight"].tolist() == [0, 1, 0, 0]

    def test_forgotten_classes_are_never_predicted(self) -> None:
        # Logits of the forgotten class far above, all others negative: dampened to zero, without a
        # gauge, it would still win everywhere; with features of either sign in any gauge.
        weight, bias = torch.full((4, 3), -1.0), torch.full((4,), -1.0)
        weight[2], weight[1] = 5.0, -0.5
        features = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))

        new = self.unlearn({"out.weight": weight, "out.bias": bias}, forgotten_rows=[2]).parameters
        logits = logits_of(new["out.weight"], new["out.bias"], features)
        assert set(logits.argmax(dim=1).tolist()) == {0, 1}
        weight[2], bias[2] = 0.0, 0.0
        assert 2 in logits_of(weight, bias, features).argmax(dim=1)

    def test_head_out_of_scope(self) -> None:
        result = self.unlearn({"conv": f64(1, 2)}, gauge=1.0, forgotten_rows=[0])
        assert result.parameters["conv"].tolist() == [0, 0]

    @pytest.mark.parametrize("present", ["out.weight", "out.bias"])
    def test_half_a_head_in_scope(self, present: str) -> None:
        head = random_head(2)
        result = self.unlearn({present: model(head)[present]}, gauge=1.0, forgotten_rows=[0])
        expected = fix_gauge(head, 1.0).weight if present == "out.weight" else head.bias
        assert expected is not None
        assert list(result.parameters) == [present]
        assert torch.equal(result.parameters[present][1:], expected[1:])
        assert result.selected[present][1:].count_nonzero().item() == 0

    def test_head_without_bias(self) -> None:
        head = random_head(2)
        result = self.unlearn(
            {"out.weight": head.weight}, gauge=1.0, heads=[("out.weight", None)], forgotten_rows=[4]
        )
        assert torch.equal(result.parameters["out.weight"][:4], head.weight[:4])
        torch.testing.assert_close(result.parameters["out.weight"][4], head.weight[:4].mean(0))
        assert result.selected["out.weight"].tolist() == [0, 0, 0, 0, 4]

    def test_no_head(self) -> None:
        parameters = {"conv": f64(1, 2)}
        assert self.unlearn(parameters, gauge=1.0, heads=()).selected_count == 2
        with pytest.raises(ScopeError, match="no head"):
            self.unlearn(parameters, heads=(), forgotten_rows=[0])

    def test_a_bad_gauge_is_refused_even_if_unused(self) -> None:
        with pytest.raises(InputError, match="gauge strength"):
            self.unlearn({"conv": f64(1)}, gauge=-1.0, heads=())

    @pytest.mark.parametrize("gauge", [0.0, 1.0])
    def test_inputs_are_untouched(self, gauge: float) -> None:
        parameters = model(random_head(5))
        before = {name: value.clone() for name, value in parameters.items()}
        result = self.unlearn(parameters, gauge=gauge, forgotten_rows=[0])
        for value in result.parameters.values():
            value.fill_(9)
        assert equal(parameters, before)

    @pytest.mark.parametrize("rows", [[5], [-1]])
    def test_row_that_does_not_exist(self, rows: list[int]) -> None:
        with pytest.raises(ScopeError, match=r"\[0, 5\)"):
            self.unlearn(model(random_head(0)), forgotten_rows=rows)


class TestSweep:
    gauges = (0.0, 0.5, 1.0, 3.0)

    @pytest.mark.parametrize("wide", [torch.float64, torch.float32])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("rows", [None, [], [1, 3]])
    @pytest.mark.parametrize(
        "heads",
        [
            [("out.weight", "out.bias")],
            [("out.weight", None)],
            [("other", None)],
            [("other", None), ("out.weight", "out.bias")],
            [],
        ],
    )
    def test_a_strength_grid_equals_single_strengths(
        self,
        heads: list[tuple[str, str | None]],
        rows: list[int] | None,
        dtype: torch.dtype,
        wide: torch.dtype,
    ) -> None:
        parameters = {name: value.to(dtype) for name, value in model(random_head(0)).items()}
        generator = torch.Generator().manual_seed(1)
        forget, reference = (
            {n: torch.rand(v.shape, generator=generator, dtype=wide) for n, v in parameters.items()}
            for _ in range(2)
        )
        rule: dict[str, Any] = {
            "exponent": 0.5,
            "bound": 0.9,
            "heads": heads,
            "forgotten_rows": rows if heads else None,
        }
        sweep = StrengthGrid(parameters, forget, reference, **rule)
        for alpha, lam in ((0.7, 0.6), (1.5, 1.0)):
            swept = sweep(alpha, lam, self.gauges)
            for gauge, found in zip(self.gauges, swept, strict=True):
                shifted = dict(parameters)
                head = [name for pair in heads for name in pair if name in parameters]
                for name in head:
                    own = LinearHead(parameters["out.weight"], parameters[name].flatten()[:5])
                    fixed = fix_gauge(own, gauge)
                    if fixed.bias is not None:
                        shifted[name] = fixed.weight if name == "out.weight" else fixed.bias
                where = dict.fromkeys(head, rows) if rows is not None and heads else None
                expected = dampen(shifted, forget, reference, alpha, lam, 0.5, 0.9, where)
                assert equal(found, expected.parameters)
                assert found["conv"] is swept[0]["conv"]
                assert {value.dtype for value in found.values()} == {dtype}

    def test_bad_numbers_are_refused(self) -> None:
        one = {"conv": f64(1)}
        for alpha, gauge, rows in ((0.0, 1.0, None), (1.0, -1.0, None), (1.0, 1.0, [0])):
            with pytest.raises((InputError, ScopeError)):
                StrengthGrid(one, one, one, forgotten_rows=rows)(alpha, 1.0, [gauge])


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
