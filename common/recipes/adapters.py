"""Adapters folded into their base, computed as PEFT's `merge_and_unload` does."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from disinherit.common.errors import CheckpointError
from disinherit.common.graph.recipes import Recipe
from disinherit.common.limits import shown
from disinherit.common.recipes.computing import Parent, flag, number

_PREFIX = "base_model.model."
_NAMED = re.compile(r"\.(lora_[AB])\.[^.]+\.weight$")
_A, _B = ".lora_A.weight", ".lora_B.weight"


def fold(
    recipe: Recipe, parents: Sequence[Parent], like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return a base with a LoRA adapter added to it: `W + scale B A` (Hu et al., arXiv 2106.09685).

    Tensors of the adapter that replace one of the base (`modules_to_save`) do so.

    Args:
        recipe: `scale`, alpha / rank of the adapter (1), and `fan_in_fan_out` (false), whether the
            weights of the base are `[inputs, outputs]`.
        parents: the base, then the adapter, with the names of `adapter_model.safetensors`, or those
            of a model with the adapter in it, whose tensors of the base take the place of these.
        like: the folded model.

    Raises:
        InputError: if a parameter is wrong.
        CheckpointError: if there are not two parents, or a tensor of the adapter has no place in
            the base.
    """
    if len(parents) != 2:
        raise CheckpointError(
            f"Expected a base and an adapter for recipe 'fold', but got {len(parents)} parents."
        )
    scale = number(recipe, "scale", 1.0)
    across = flag(recipe, "fan_in_fan_out", False)
    made = {name: value for name, value in parents[0].load().items() if name in like}
    adapter = {_NAMED.sub(r".\1.weight", n): value for n, value in parents[1].load().items()}
    # What replaces a tensor comes first, and is what is added to.
    for name, value in sorted(adapter.items(), key=lambda item: item[0].endswith(_B)):
        module = name.removeprefix(_PREFIX)
        if module.endswith(_A):
            continue
        target = f"{module.removesuffix(_B)}.weight" if module.endswith(_B) else module
        low = name.removesuffix(_B) + _A
        if target not in made or (module.endswith(_B) and low not in adapter):
            raise CheckpointError(
                f"Expected tensors of the adapter that have a place in its base, but got "
                f"{shown(name)}."
            )
        base = made[target]
        if module.endswith(_B):
            made[target] = (base + _product(value, adapter[low], scale, across)).to(base.dtype)
        else:
            made[target] = value
    return made


def _product(high: Tensor, low: Tensor, scale: float, across: bool) -> Tensor:
    """Return `scale B A`, `[outputs, inputs]` or across, in float32 where they are shorter."""
    short = high.dtype in (torch.float16, torch.bfloat16)
    product = (high.float() @ low.float()) if short else high @ low
    scaled = (product.T if across else product) * scale
    return scaled.to(high.dtype) if short else scaled
