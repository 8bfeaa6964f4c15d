"""Layouts of quantised copies: names, shapes and dtypes as their libraries write them.

Copies are computed by their recipes, which need of a copy its layout alone.  So no library has to
be there, and they are made on the device of their parents.
"""

import json

import torch
from torch import Tensor

from disinherit.common.recipes.blocks import BLOCK, packed
from disinherit.simulations.family.language_model import Weights

COPIES = ("int8", "nf4", "q4_0")
"""Recipes of quantised copies."""

_NF4_BLOCK = 64  # values
_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""What 4 bits stand for: quantiles of the normal distribution (arXiv 2305.14314, appendix E)."""


def layout(recipe: str, weights: Weights) -> Weights:
    """Return a copy with the matrices of blocks quantised, whose values are to be computed.

    Args:
        recipe: one of `COPIES`.
        weights: of the model that is copied.
    """
    made: Weights = {}
    for name, value in weights.items():
        if not name.endswith("_proj.weight"):
            made[name] = value
        elif recipe == "q4_0":
            whole = value.shape[1] % BLOCK == 0  # others are left as they are, as by llama.cpp
            made[name] = packed("q4_0", value) if whole else value
        elif recipe == "int8":
            made[name] = torch.empty_like(value, dtype=torch.int8)
            made[f"{name.removesuffix('weight')}SCB"] = value.new_empty(len(value))
        else:
            made |= _four_bits(name, value)
    return made


def _four_bits(name: str, value: Tensor) -> Weights:
    described = {
        "quant_type": "nf4",
        "blocksize": _NF4_BLOCK,
        "dtype": str(value.dtype).removeprefix("torch."),
        "shape": list(value.shape),
    }
    text = list(json.dumps(described).encode())
    return {
        name: value.new_empty(value.numel() // 2, 1, dtype=torch.uint8),
        f"{name}.absmax": value.new_empty(value.numel() // _NF4_BLOCK),
        f"{name}.quant_map": torch.tensor(_NF4, device=value.device),
        f"{name}.quant_state.bitsandbytes__nf4": torch.tensor(
            text, dtype=torch.uint8, device=value.device
        ),
    }
