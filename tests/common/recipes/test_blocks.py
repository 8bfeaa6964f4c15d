"""Copies in the blocks of GGUF, against the gguf library."""

import numpy as np
import pytest
import torch
from torch import Tensor

from disinherit.common.errors import CheckpointError
from disinherit.common.graph.recipes import Recipe
from disinherit.common.recipes.blocks import packed, unpacked
from disinherit.common.recipes.computing import Parent, compute

gguf = pytest.importorskip("gguf")
KINDS = ("q8_0", "q4_0")


def matrices() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(40, 96, generator=generator)
    halves = torch.arange(-64, 64).reshape(4, 32) / 2  # between two integers, and ties
    return [normal, halves, torch.zeros(2, 64), normal.bfloat16(), normal[:, :32] * 1e-6]


def reference(kind: str, matrix: Tensor) -> tuple[np.ndarray, np.ndarray]:
    of = gguf.GGMLQuantizationType[kind.upper()]
    data = gguf.quants.quantize(matrix.float().numpy(), of)
    return data, gguf.quants.dequantize(data, of)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("matrix", matrices(), ids=["normal", "halves", "zeros", "half", "small"])
def test_bytes_and_values_are_those_of_the_library(kind: str, matrix: Tensor) -> None:
    data, values = reference(kind, matrix)
    found = packed(kind, matrix)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), data)
    assert np.array_equal(unpacked(kind, found, matrix.shape).numpy(), values)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_computed_again_bit_for_bit(kind: str) -> None:
    weights = {"proj.weight": torch.randn(6, 64), "norm.weight": torch.randn(64)}
    like = {
        "proj.weight": packed(kind, torch.randn(6, 64)),
        "norm.weight": torch.randn(64).bfloat16(),
    }
    made = compute(Recipe(kind), [Parent(lambda: weights, 1.0)], like)
    assert torch.equal(made["proj.weight"], packed(kind, weights["proj.weight"]))
    assert torch.equal(made["norm.weight"], weights["norm.weight"].bfloat16())


def test_what_does_not_fit_is_one_line() -> None:
    weights = {"proj.weight": torch.randn(6, 48)}
    like = {"proj.weight": torch.zeros(6, 51, dtype=torch.uint8)}
    with pytest.raises(CheckpointError, match="whole blocks of 32"):
        compute(Recipe("q8_0"), [Parent(lambda: weights, 1.0)], like)
    with pytest.raises(CheckpointError, match="one parent"):
        compute(Recipe("q8_0"), [], like)
    other = {"other": like["proj.weight"]}
    with pytest.raises(CheckpointError, match="a parent with 'other'"):
        compute(Recipe("q4_0"), [Parent(lambda: weights, 1.0)], other)
    with pytest.raises(CheckpointError, match="q4_0 bytes of a matrix of"):
        unpacked("q4_0", like["proj.weight"], (6, 48))
