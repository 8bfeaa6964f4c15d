"""Merging of Fisher information, against hand-computed numbers and algebra."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from disinherit.common.errors import FisherError, InputError
from disinherit.common.fiun.merging import merge_fishers
from disinherit.common.method import MergeRule
from tests.support.fiun_cases import equal, f64, untimed

RULES: tuple[MergeRule, ...] = ("max", "mean", "sum")

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
