"""EK-FAC against the exact Gauss-Newton matrix in float64."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F

from disinherit.common.curvature import sweeping
from disinherit.common.curvature.ekfac import (
    Curvature,
    as_tensors,
    from_tensors,
    gradients,
    measure,
    squares,
)
from disinherit.common.curvature.step import newton_step
from disinherit.common.errors import FisherError

CPU = torch.device("cpu")
Batch = tuple[Tensor, Tensor]


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(12, 3),
    ).double()


def samples(shape: Sequence[int], count: int = 9, seed: int = 1, classes: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, classes, (count,), generator=generator)


def names_of(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def exact(model: nn.Module, inputs: Tensor, path: str) -> Tensor:
    """Gauss-Newton matrix of one layer's weight (and bias), `[o * d, o * d]`, row by row."""
    names = [n for n in names_of(model) if n.rpartition(".")[0] == path]
    fixed = dict(model.named_parameters())

    def logits(chosen: dict[str, Tensor], one: Tensor) -> Tensor:
        found = functional_call(model, {**fixed, **chosen}, (one.unsqueeze(0),))
        assert isinstance(found, Tensor)
        return found[0]

    chosen = {name: fixed[name].detach() for name in names}
    total = torch.zeros((), dtype=torch.float64)
    for one in inputs:
        jacobian = jacrev(logits)(chosen, one)
        rows = [
            value.flatten(2) if value.ndim > 2 else value[..., None] for value in jacobian.values()
        ]
        joined = torch.cat([r.flatten(2) for r in rows], dim=2).flatten(1)
        p = logits(chosen, one).detach().softmax(0)
        total = total + joined.mT @ (p.diag() - p.outer(p)) @ joined
    return total.detach()


def in_basis(curvature: Curvature, path: str) -> Tensor:
    one = curvature.layers[path]
    return torch.kron(one.outputs, one.inputs)


@pytest.mark.parametrize(
    ("model", "shape", "path"),
    [
        (mlp(), (4,), "0"),
        (mlp(), (4,), "2"),
        (convolutional(), (2, 4, 4), "0"),
        (convolutional(), (2, 4, 4), "3"),
    ],
)
def test_values_are_the_diagonal_of_the_exact_matrix_in_the_basis(
    model: nn.Module, shape: Sequence[int], path: str
) -> None:
    inputs, targets = samples(shape)
    curvature = measure(
        model, names_of(model), [(inputs[:5], targets[:5]), (inputs[5:], targets[5:])], CPU
    )
    assert curvature.count == 9
    basis = in_basis(curvature, path)
    one = curvature.layers[path]
    assert torch.allclose(basis.mT @ basis, torch.eye(len(basis)).double(), atol=1e-10)
    diagonal = (basis.mT @ exact(model, inputs, path) @ basis).diagonal()
    assert torch.allclose(diagonal, one.values.flatten(), rtol=1e-9, atol=1e-12)


def test_the_curvature_of_a_single_output_gradient_is_exact() -> None:
    """With two classes and one sample, G is one outer product, which the basis diagonalises."""
    model = nn.Linear(3, 2).double()
    inputs, targets = samples((3,), count=1, classes=2)
    curvature = measure(model, names_of(model), [(inputs, targets)], CPU)
    one, basis = curvature.layers[""], in_basis(curvature, "")
    assert curvature.names == ("weight", "bias")
    found = basis @ one.values.flatten().diag() @ basis.mT
    assert torch.allclose(found, exact(model, inputs, ""), atol=1e-12)


def test_the_step_is_the_exact_newton_step_of_a_linear_model_with_few_samples() -> None:
    """In the basis of orthogonal samples G' + λ is inverted exactly, so the oracle is a solve."""
    model = nn.Linear(4, 2, bias=False).double()
    inputs = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5])).double()
    targets = torch.tensor([0, 1, 0, 1])
    curvature = measure(model, ["weight"], [(inputs, targets)], CPU)
    forget = [(inputs[:1], targets[:1])]
    found = gradients(model, curvature, forget, CPU)
    step = newton_step(curvature, found, squares(model, curvature, forget, CPU), 1)
    others = exact(model, inputs[1:], "")
    loss = F.cross_entropy(model(inputs[:1]), targets[:1], reduction="sum")
    (gradient,) = torch.autograd.grad(loss, [model.weight])
    damping = 0.1 * others.trace() / len(others)
    oracle = torch.linalg.solve(others + damping * torch.eye(8).double(), gradient.flatten())
    assert torch.allclose(step.change["weight"].flatten(), oracle, rtol=1e-8)
    rise = (oracle @ others @ oracle / 2 / 3).item()
    assert step.rise == pytest.approx(rise, rel=1e-8)


@given(st.integers(1, 8), st.integers(0, 5))
def test_what_samples_add_is_subtracted_exactly(count: int, seed: int) -> None:
    model = mlp()
    inputs, targets = samples((4,), seed=seed)
    curvature = measure(model, names_of(model), [(inputs, targets)], CPU)
    some = squares(model, curvature, [(inputs[:count], targets[:count])], CPU)
    rest = squares(model, curvature, [(inputs[count:], targets[count:])], CPU)
    for path, one in curvature.layers.items():
        assert torch.allclose(some[path] + rest[path], one.values, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("model", "shape"), [(mlp(), (4,)), (convolutional(), (2, 4, 4))])
def test_gradients_are_those_of_autograd(model: nn.Module, shape: Sequence[int]) -> None:
    inputs, targets = samples(shape)
    curvature = measure(model, names_of(model), [(inputs, targets)], CPU)
    found = gradients(model, curvature, [(inputs, targets)], CPU)
    F.cross_entropy(model(inputs), targets, reduction="sum").backward()
    for path, one in curvature.layers.items():
        matrix = one.outputs @ found[path] @ one.inputs.mT
        layer = model.get_submodule(path)
        assert isinstance(layer.weight, nn.Parameter)
        assert layer.weight.grad is not None
        wanted = layer.weight.grad.flatten(1)
        if one.with_bias:
            assert isinstance(layer.bias, nn.Parameter)
            assert layer.bias.grad is not None
            wanted = torch.cat([wanted, layer.bias.grad.unsqueeze(1)], 1)
        assert torch.allclose(matrix, wanted, rtol=1e-8, atol=1e-12)
    model.zero_grad()


def test_random_columns_give_the_same_curvature_on_average(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mlp()
    inputs, targets = samples((4,), count=3)
    many = inputs.repeat(300, 1), targets.repeat(300)
    whole = measure(model, names_of(model), [many], CPU)
    monkeypatch.setattr(sweeping, "COLUMNS", 2)
    some = squares(model, whole, [many], CPU)
    again = squares(model, whole, [many], CPU)
    for path, one in whole.layers.items():
        assert torch.equal(some[path], again[path])
        assert not torch.equal(some[path], one.values)
        assert torch.allclose(some[path], one.values, rtol=0.2, atol=0.02 * one.values.max().item())


class Several(nn.Module):
    """Layers that are covered, and some that are not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.twice = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.twice(self.twice(self.norm(self.first(x)))))
        return found


def test_layers_that_are_used_twice_or_no_products_are_left_out() -> None:
    model = Several().double()
    curvature = measure(model, names_of(model), [samples((4,))], CPU)
    assert curvature.names == ("first.weight", "first.bias", "head.weight", "head.bias")
    grouped = nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.Flatten(), nn.Linear(8, 3)).double()
    found = measure(grouped, names_of(grouped), [samples((2, 4, 4))], CPU)
    assert found.names == ("2.weight", "2.bias")
    frozen = measure(model, ["head.weight"], [samples((4,))], CPU)
    assert frozen.names == ("head.weight",)


def test_sequences_are_summed_over_positions() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.layer(x).tanh().mean(1)
            return found

    model = Pooled().double()
    inputs, targets = samples((5, 4))
    curvature = measure(model, names_of(model), [(inputs, targets)], CPU)
    basis = in_basis(curvature, "layer")
    diagonal = (basis.mT @ exact(model, inputs, "layer") @ basis).diagonal()
    assert torch.allclose(
        diagonal, curvature.layers["layer"].values.flatten(), rtol=1e-9, atol=1e-12
    )


def test_a_model_without_such_layers_is_refused() -> None:
    model = nn.Sequential(nn.LayerNorm(3)).double()
    with pytest.raises(FisherError, match="linear layer or convolution that is used once"):
        measure(model, names_of(model), [samples((3,))], CPU)


def test_inputs_that_are_not_finite_are_refused() -> None:
    inputs, targets = samples((4,))
    inputs[0, 0] = torch.nan
    with pytest.raises(FisherError, match="finite inputs and gradients of layer '0'"):
        measure(mlp(), names_of(mlp()), [(inputs, targets)], CPU)


def test_tensors_come_back() -> None:
    model = Several()
    inputs, targets = samples((4,))
    curvature = measure(model, names_of(model), [(inputs.float(), targets)], CPU)
    found = from_tensors(as_tensors(curvature))
    assert (found.count, found.names) == (curvature.count, curvature.names)
    for path, one in curvature.layers.items():
        other = found.layers[path]
        assert one.values.dtype == torch.float32
        for left, right in (
            (one.values, other.values),
            (one.inputs, other.inputs),
            (one.outputs, other.outputs),
        ):
            assert torch.equal(left, right)
