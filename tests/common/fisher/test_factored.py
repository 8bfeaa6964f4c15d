"""Factored sums of squared gradients, against exact ones and one backward pass per sample."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from disinherit.common.errors import FisherError
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.fisher.diagonal import fisher_diagonal
from disinherit.common.fisher.factors import is_shortened, product_of, sums_of
from disinherit.common.fisher.methods import SamplesMethod
from disinherit.common.tensors.lazy import LazyTensors
from tests.support.fisher_cases import CLASSES, Bag, Sequences

X, Y = torch.randn(9, 1, 8, 8), torch.tensor([0, 1, 1, 3, 3, 0, 1, 3, 3])


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.Flatten(), nn.Linear(80, CLASSES)
    )


MODELS: list[tuple[Callable[[], nn.Module], Tensor, set[str]]] = [
    (convolutions, X, {"0.weight", "2.weight"}),
    (Bag, torch.randint(0, 6, (9, 7)), {"embed.weight"}),
    (Sequences, torch.randn(9, 5, 3), {"inner.weight", "norm.weight", "norm.bias"}),
]


@pytest.mark.parametrize(("make", "inputs", "factored"), MODELS)
@pytest.mark.parametrize("method", ["auto", "vmap"])
@pytest.mark.parametrize("clip_norm", [None, 1e-3])
def test_sums_of_rows_and_columns_are_those_of_exact_sums(
    make: Callable[[], nn.Module],
    inputs: Tensor,
    factored: set[str],
    method: str,
    clip_norm: float | None,
) -> None:
    model = make().double()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    given = {"scope": "all", "per_class": True, "method": method, "clip_norm": clip_norm}
    exact = fisher_diagonal(model, [(inputs, Y)], **given)  # type: ignore[call-overload]
    short = fisher_diagonal(model, [(inputs, Y)], factored=True, **given)  # type: ignore[call-overload]
    assert short.columns.keys() == factored
    assert short.classes.tolist() == exact.classes.tolist() == [0, 1, 3]
    for name, value in exact.sums.items():
        if name not in factored:  # vectors, and the head
            torch.testing.assert_close(short.sums[name], value)
            continue
        torch.testing.assert_close(short.sums[name], value.flatten(2).sum(2))
        torch.testing.assert_close(short.columns[name], value.sum(1))
    assert short.class_totals() == pytest.approx(exact.class_totals())


def test_values_are_the_products_of_the_sums_of_all_chosen_classes() -> None:
    model = convolutions()
    exact = fisher_diagonal(model, [(X, Y)], scope="all", per_class=True)
    short = fisher_diagonal(model, [(X, Y)], scope="all", per_class=True, factored=True)
    for chosen in ([0], [1, 3], [0, 1, 3]):
        pooled, values = exact.over(chosen).values, short.over(chosen).values
        assert isinstance(values, LazyTensors)
        for name, value in pooled.items():
            expected = value
            if name in short.columns:
                expected = product_of(*sums_of(value))
                assert not torch.allclose(expected, value)
                torch.testing.assert_close(values.block(name, slice(1, 3)), values[name][1:3])
            torch.testing.assert_close(values[name], expected)
    kept = short.without([1])
    assert kept.excluding([0]).count == 4
    torch.testing.assert_close(
        kept.excluding([0]).values["0.weight"], short.over([3]).values["0.weight"]
    )
    (halves, rest) = (
        fisher_diagonal(model, [(X[part], Y[part])], scope="all", per_class=True, factored=True)
        for part in (slice(5), slice(5, None))
    )
    whole = halves + rest
    for name in short.columns:
        torch.testing.assert_close(whole.columns[name], short.columns[name])
    with pytest.raises(FisherError, match="same shapes"):
        exact + short


def test_other_sums_than_of_rows_and_columns_are_refused() -> None:
    counts, rows = torch.tensor([1, 1]), {"w": torch.ones(2, 3)}
    ClassFishers(rows, counts, columns={"w": torch.ones(2, 4)})
    for columns in ({"w": torch.ones(1, 4)}, {"w": torch.ones(2)}, {"v": torch.ones(2, 4)}):
        with pytest.raises(FisherError, match="sums of"):
            ClassFishers(rows, counts, columns=columns)


def test_a_product_has_the_sums_of_what_it_stands_for() -> None:
    value = torch.rand(4, 3, 2, 2).double()
    value[1] = 0
    found = product_of(*sums_of(value))
    torch.testing.assert_close(found.sum(0), value.sum(0))
    torch.testing.assert_close(found.flatten(1).sum(1), value.flatten(1).sum(1))
    assert product_of(torch.zeros(3), torch.zeros(2)).tolist() == [[0.0, 0.0]] * 3
    assert not is_shortened([1, 50])


class Product(nn.Module):
    """A layer without a formula of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Bilinear(3, 3, 8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(torch.tanh(self.inner(x, x)))
        return found


@pytest.mark.parametrize("factored", [False, True])
def test_large_models_take_a_backward_pass_for_each_sample_and_keep_no_gradient(
    monkeypatch: pytest.MonkeyPatch, factored: bool
) -> None:
    model, batch = Product(), (torch.randn(9, 3), Y)
    expected = fisher_diagonal(model, [batch], scope="all", per_class=True)
    monkeypatch.setattr(SamplesMethod, "_vmapped", None)  # which would take all gradients at once
    monkeypatch.setattr("disinherit.common.fisher.methods.MOST_ELEMENTS", 8)
    monkeypatch.setattr("disinherit.common.fisher.sums._LARGE", 4)
    monkeypatch.setattr("disinherit.common.fisher.sums._PIECE", 20)  # blocks of two rows
    before = model.inner.weight.grad = torch.ones_like(model.inner.weight)
    found = fisher_diagonal(model, [batch], scope="all", per_class=True, factored=factored)
    assert bool(found.columns) is factored
    for name, value in expected.sums.items():
        if name in found.columns:
            torch.testing.assert_close(found.sums[name], value.flatten(2).sum(2))
            torch.testing.assert_close(found.columns[name], value.sum(1))
        else:
            torch.testing.assert_close(found.sums[name], value)
    assert model.inner.weight.grad is before
    assert model.inner.bias.grad is model.head.weight.grad is None
