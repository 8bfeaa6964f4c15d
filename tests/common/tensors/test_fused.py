"""Tests for the fused kernels: on CUDA, bit for bit what PyTorch's own calls give."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from disinherit.common.deltas import changes
from disinherit.common.deltas.changes import add
from disinherit.common.errors import FisherError
from disinherit.common.fiun import dampening
from disinherit.common.fiun.dampening import dampen

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(), (1,), (7,), (10, 3), (3, 5000), (129, 513), (16, 8, 3, 3)]


@pytest.fixture
def stock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that has PyTorch's own calls taken from then on."""

    def take() -> None:
        for module in (dampening, changes):
            monkeypatch.setattr(module, "has_triton", lambda device: False)

    return take


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bound", [1.0, 0.25])
def test_dampening_equals_the_calls_of_pytorch(
    shape: tuple[int, ...], dtype: torch.dtype, bound: float, stock: Callable[[], None]
) -> None:
    theta, forget, reference = (random(shape) for _ in range(3))
    forget, reference = forget.square(), reference.square()
    forget.flatten()[::3] = 0.0
    reference.flatten()[::2] = 0.0
    sides = {"w": theta.to(dtype)}, {"w": forget}, {"w": reference}
    fused = dampen(*sides, alpha=0.7, lam=0.3, bound=bound)
    stock()
    expected = dampen(*sides, alpha=0.7, lam=0.3, bound=bound)
    assert torch.equal(fused.parameters["w"], expected.parameters["w"])
    assert torch.equal(fused.selected["w"], expected.selected["w"])


def test_dampening_of_a_tensor_that_is_not_contiguous(stock: Callable[[], None]) -> None:
    theta, forget, reference = (random((40, 30)).t() for _ in range(3))
    sides = {"w": theta}, {"w": forget.square()}, {"w": reference.square()}
    fused = dampen(*sides, alpha=0.7, lam=0.3)
    stock()
    expected = dampen(*sides, alpha=0.7, lam=0.3)
    assert torch.equal(fused.parameters["w"], expected.parameters["w"])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", ["w", "bn.running_var"])
def test_added_changes_equal_the_calls_of_pytorch(
    shape: tuple[int, ...], dtype: torch.dtype, count: int, name: str, stock: Callable[[], None]
) -> None:
    before = random(shape).to(dtype)
    shares = [({name: random(shape) * 10.0**-turn}, 0.5 - 0.3 * turn) for turn in range(count)]
    fused, expected = {name: before.clone()}, {name: before.clone()}
    counts = add(fused, shares)
    stock()
    assert add(expected, shares) == counts
    assert torch.equal(fused[name], expected[name])


def test_tied_names_get_one_sum() -> None:
    one = random((30, 4))
    weights = {"w": one.clone(), "v": one.clone()}
    change = random((30, 4))
    add(weights, [({"w": change}, 0.5)], ties=[("w", "v")])
    assert torch.equal(weights["w"], weights["v"])
    assert torch.equal(weights["w"], (one.double() + 0.5 * change.double()).float())


def test_a_sum_beyond_the_range_is_refused() -> None:
    weights = {"w": torch.full((5000,), 6e4, dtype=torch.float16, device="cuda")}
    change = torch.zeros(5000, device="cuda")
    change[4999] = 6e4
    with pytest.raises(FisherError, match=r"finite values of .*w"):
        add(weights, [({"w": change}, 1.0)])


def test_more_values_than_32_bits_count() -> None:
    weights = {"w": torch.zeros(2**31 + 5, dtype=torch.float16, device="cuda")}
    change = torch.ones(1, device="cuda").expand(2**31 + 5).contiguous()
    assert add(weights, [({"w": change}, 1.0)]) == {"w": 2**31 + 5}
    assert weights["w"][-1] == 1


def random(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, device="cuda")
