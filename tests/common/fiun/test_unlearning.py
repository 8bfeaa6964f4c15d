"""Unlearning in the parameters of a model, and by many strengths at once."""

from typing import Any

import pytest
import torch
from torch import Tensor

from disinherit.common.errors import InputError, ScopeError
from disinherit.common.fiun.bottom_rows import MARGIN
from disinherit.common.fiun.dampening import Dampened, dampen
from disinherit.common.fiun.gauge import LinearHead, fix_gauge
from disinherit.common.fiun.unlearning import StrengthGrid, unlearn_parameters
from tests.support.fiun_cases import equal, f64, logits_of, model, published_rule, random_head


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
