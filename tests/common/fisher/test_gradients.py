"""Confident models: gradients that a difference from 1 would round to zero."""

import copy
from decimal import Decimal, getcontext
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from disinherit.common.errors import FisherError
from disinherit.common.fisher.diagonal import MethodName, fisher_diagonal
from disinherit.common.fisher.gradients import residuals
from disinherit.common.fisher.sums import Grouping, Sums, make_batch
from tests.support.fisher_cases import CASES, CLASSES, all_sums, make, oracle, rows

getcontext().prec = 80
MARGINS = (0, 4, 16, 18, 32, 40, 44, 50, 60)
SMALLEST = 2.0**-149
"""Of the positive numbers of float32."""


def margin_model() -> nn.Module:
    """A network whose logits are exact in every precision: the margins at (m, 1) are m - 0.5."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 3))
    with torch.no_grad():
        model.get_parameter("0.weight").copy_(torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
        model.get_parameter("2.weight").copy_(torch.tensor([[0.5, 0.0], [-0.5, 1.0], [-0.5, -1.0]]))
        model.get_parameter("2.bias").zero_()
    return model


class Unvectorised(nn.Module):
    """The same model, in a form that no closed form and no vmap can handle."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = margin_model()

    def forward(self, x: Tensor) -> Any:
        if float(x.sum()) < -1e9:
            return x
        first, head = self.inner.get_submodule("0"), self.inner.get_submodule("2")
        hidden = torch.relu(x @ first.weight.T)  # type: ignore[operator]
        return nn.functional.linear(hidden, head.weight, head.bias)  # type: ignore[arg-type]


def exact_residual(logits: list[float], target: int) -> Tensor:
    """p - onehot in 80 decimal digits."""
    powers = [Decimal(z).exp() for z in logits]
    values = [power / sum(powers) - (k == target) for k, power in enumerate(powers)]
    return torch.tensor([float(value) for value in values], dtype=torch.float64)


def exact_squares(model: nn.Module, inputs: Tensor, target: int) -> dict[str, Tensor]:
    """The squared gradient of one sample, from the Jacobian of its logits in float64."""
    model, inputs = copy.deepcopy(model).double(), inputs.double()
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def logits(parameters: dict[str, Tensor]) -> Tensor:
        found: Tensor = functional_call(model, parameters, (inputs[None],))
        return found[0]

    residual = exact_residual(logits(parameters).tolist(), target)
    jacobian = jacrev(logits)(parameters)
    return {n: torch.tensordot(residual, j, dims=1).square() for n, j in jacobian.items()}


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("method", "scope"),
    [("head", "head"), ("layers", "all"), ("vmap", "all"), ("auto", "all"), ("auto", "head")],
)
def test_the_gradient_of_a_confident_sample_is_not_rounded_to_zero(
    method: MethodName, scope: str, dtype: torch.dtype, margin: int
) -> None:
    model = margin_model().to(dtype)
    inputs = torch.tensor([[margin, 1.0]], dtype=dtype)
    for target in (0, 1):  # predicted with this margin, and missed by it
        expected = exact_squares(model, inputs[0], target)
        found = fisher_diagonal(
            model, [(inputs, torch.tensor([target]))], scope=scope, method=method
        )
        for name, value in found.values.items():
            close(value, expected[name], dtype if scope == "all" else torch.float32)
            least = 0 if dtype == torch.float64 else SMALLEST
            assert float(expected[name].max()) <= least or value.any()


def close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Compare squares, within the precision of gradients relative to the largest."""
    error = {torch.float16: 2e-3, torch.bfloat16: 2e-2}.get(dtype, 1e-6)
    least = SMALLEST if found.dtype == torch.float32 else 0.0
    scale = float(expected.max())
    torch.testing.assert_close(
        found.double(), expected, rtol=error, atol=max(1e-3 * error * scale, 2 * least)
    )


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_backward_pass_per_sample_does_not_round_to_zero(
    dtype: torch.dtype, margin: int
) -> None:
    model = Unvectorised().to(dtype)
    inputs = torch.tensor([[margin, 1.0]], dtype=dtype)
    expected = exact_squares(margin_model().to(dtype), inputs[0], 0)
    found = fisher_diagonal(model, [(inputs, torch.tensor([0]))], scope="all")
    for name, value in expected.items():
        close(found.values[f"inner.{name}"], value, dtype)


@pytest.mark.parametrize("method", ["head", "layers", "vmap"])
def test_a_small_residual_times_large_features_is_not_lost(method: MethodName) -> None:
    """Its square exceeds float32, the gradient's does not."""
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3e-12], [-3e-12]]))
    inputs = torch.tensor([[1e13]])
    expected = exact_squares(model, inputs[0], 0)["weight"]
    found = fisher_diagonal(model, [(inputs, torch.tensor([0]))], method=method).values["weight"]
    assert float(expected.max()) < 1e-25 / 4
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


def test_residuals_of_extreme_logits_are_exact() -> None:
    inf, nan = float("inf"), float("nan")
    expected = {
        (0.0, -inf, -inf): [0.0, 0.0, 0.0],
        (-inf, 0.0, 0.0): [-1.0, 0.5, 0.5],
        (0.0, -inf, 0.0): [-0.5, 0.0, 0.5],
        (-1e30, 1e30, 0.0): [-1.0, 1.0, 0.0],
        (inf, 0.0, 0.0): [nan] * 3,
        (0.0, inf, 0.0): [nan] * 3,
        (0.0, nan, 0.0): [nan] * 3,
        (3.0,): [0.0],
    }
    for logits, residual in expected.items():
        directions, scales = residuals(torch.tensor([logits]), torch.tensor([0]))
        found = (directions * scales[:, None])[0]
        torch.testing.assert_close(found, torch.tensor(residual).double(), equal_nan=True)


@pytest.mark.parametrize("method", ["head", "layers", "vmap"])
def test_one_class_has_no_gradient(method: MethodName) -> None:
    found = fisher_diagonal(
        nn.Linear(2, 1), [(torch.ones(3, 2), torch.zeros(3).long())], method=method
    )
    assert all(not value.any() for value in found.values.values())


@pytest.mark.parametrize(
    ("case", "method"),
    [(c, m) for c, m in product(CASES, ("head", "layers", "vmap")) if m in CASES[c].all_by],
)
def test_every_method_clips_each_sample_and_parameter(case: str, method: MethodName) -> None:
    model, inputs, targets = make(case, 5)
    expected = {name: torch.zeros(CLASSES, *p.shape) for name, p in model.named_parameters()}
    squares = [oracle(model, rows(inputs, torch.tensor([i])), targets[i : i + 1]) for i in range(5)]
    bound = sorted(
        float(one["head.weight" if "head.weight" in one else next(iter(one))].norm())
        for one in squares
    )[2]
    clipped = 0
    for one in squares:
        for name, square in one.items():
            norm = float(square.norm())
            clipped += norm > bound
            expected[name] = expected[name] + square * min(1.0, bound / max(norm, 1e-300))
    assert clipped
    found = fisher_diagonal(
        model, [(inputs, targets)], scope="all", per_class=True, method=method, clip_norm=bound
    )
    for name, value in all_sums(found).items():
        torch.testing.assert_close(value, expected[name].double(), rtol=1e-9, atol=1e-12)


def test_sums_over_millions_of_samples_keep_growing() -> None:
    """0.1 added up in float32 one by one is 4 % off after 2²⁵ samples."""
    count, steps = 2**22, 8
    layer = nn.Linear(1, 2)
    bias = dict(layer.named_parameters())
    targets = torch.zeros(count, dtype=torch.int64)
    batch = make_batch((torch.zeros(count, 1),), targets, 2, torch.device("cpu"))
    for per_class in (False, True):
        sums = Sums({"bias": bias["bias"]}, 2, Grouping(per_class), None, None)
        gradients = torch.full((count, 2), 0.1).sqrt_()
        for _ in range(steps):
            sums.add("bias", batch, gradients, slice(None))
        sums.counts += count * steps * torch.tensor([1, 0])
        found = sums.results().sums["bias"].flatten()
        assert found.dtype == torch.float32
        torch.testing.assert_close(
            found / (count * steps), torch.full((2,), 0.1), rtol=1e-6, atol=0
        )


def test_sums_beyond_the_largest_number_are_an_error() -> None:
    layer = nn.Linear(1, 2)
    batch = make_batch((torch.zeros(1, 1),), torch.tensor([0]), 2, torch.device("cpu"))
    sums = Sums(dict(layer.named_parameters()), 2, Grouping(True), None, None)
    sums.add("bias", batch, torch.full((1, 2), 1e25), slice(None))
    sums.counts += batch.counts
    with pytest.raises(FisherError, match=r"NaN or infinity for parameter 'bias'.*float32 sums"):
        sums.results()
