"""Values of quantised matrices, against their definition in float64."""

import pytest
import torch
from torch import Tensor

from disinherit.common.errors import CheckpointError
from disinherit.common.graph.recipes import Recipe
from disinherit.common.recipes.computing import Parent, compute
from disinherit.common.recipes.quantised import is_quantised, unquantised

MAP = torch.linspace(-1, 1, 16)
SHAPE = (6, 8)


def copy_of(matrix: Tensor, how: str) -> dict[str, Tensor]:
    """A copy of a layer `m`, as its recipe makes it."""
    like = {"m.weight": torch.zeros(SHAPE, dtype=torch.int8), "m.SCB": torch.ones(6)}
    if how == "nf4":
        like = {"m.weight": torch.zeros([24, 1], dtype=torch.uint8)}
        like |= {"m.weight.absmax": torch.ones(3), "m.weight.quant_map": MAP}
    like["m.bias"] = torch.zeros(6)
    given = {"m.weight": matrix, "m.bias": torch.zeros(6)}
    return compute(Recipe(how), [Parent(lambda: given, 1.0)], like)


def test_int8_is_within_half_a_step_of_each_row() -> None:
    matrix = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    copy = copy_of(matrix, "int8")
    assert is_quantised(copy, "m.weight")
    assert not is_quantised(copy, "m.bias")
    found = unquantised(copy, "m.weight", SHAPE)
    naive = copy["m.weight"].double() * copy["m.SCB"].double()[:, None] / 127
    assert torch.allclose(found.double(), naive, rtol=1e-6)
    steps = matrix.abs().amax(1, keepdim=True) / 127
    assert ((found - matrix).abs() <= 0.52 * steps).all(), "half, and what float16 rounds"


def test_four_bits_are_the_nearest_value_of_each_block() -> None:
    matrix = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    copy = copy_of(matrix, "nf4")
    assert is_quantised(copy, "m.weight")
    blocks = matrix.double().reshape(3, 16)
    highest = blocks.abs().amax(1, keepdim=True)
    choices = MAP.double() * highest[:, :, None]
    nearest = (choices - blocks[:, :, None]).abs().argmin(2)
    naive = (MAP.double()[nearest] * highest).reshape(SHAPE)
    assert torch.allclose(unquantised(copy, "m.weight", SHAPE).double(), naive, rtol=1e-6)


@pytest.mark.parametrize(
    ("how", "changed"),
    [
        ("int8", {"m.SCB": torch.ones(5)}),
        ("int8", {"m.weight_format": torch.tensor(2, dtype=torch.uint8)}),
        ("int8", {"m.weight": torch.zeros([6, 7], dtype=torch.int8)}),
        ("nf4", {"m.weight.absmax": torch.ones(3, dtype=torch.uint8)}),  # quantised twice
        ("nf4", {"m.weight.absmax": torch.ones(5)}),
        ("nf4", {"m.weight.absmax": torch.ones(0)}),
        ("nf4", {"m.weight.quant_map": torch.ones(3)}),
        ("nf4", {"m.weight": torch.zeros([12, 1], dtype=torch.bfloat16)}),  # another storage
    ],
)
def test_tensors_that_do_not_fit_are_refused(how: str, changed: dict[str, Tensor]) -> None:
    copy = copy_of(torch.ones(SHAPE), how) | changed
    with pytest.raises(CheckpointError, match=r"'m.weight' with the tensors of a quantised matrix"):
        unquantised(copy, "m.weight", SHAPE)
