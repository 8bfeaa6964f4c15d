"""Merging of Fisher information from several roots (MFIM, arXiv 2408.08493)."""

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import get_args

import torch
from torch import Tensor

from disinherit.common.errors import FisherError, InputError
from disinherit.common.method import MergeRule
from disinherit.common.tensors.lazy import LazyTensors, rows_of, select_names


def check_fisher(name: str, value: Tensor, owner: str) -> None:
    """Check that `value` can be a diagonal Fisher information: floating, finite, non-negative.

    Args:
        name: name of its parameter, for the message.
        value: a tensor of any shape.
        owner: origin of the Fisher information, for the message.

    Raises:
        FisherError: if it cannot.
    """
    if not value.is_floating_point():
        raise FisherError(
            f"Expected floating-point values for {name!r} in {owner}, but got {value.dtype}."
        )
    if not value.numel():
        return
    low, high = (bound.item() for bound in value.aminmax())  # both NaN if any value is
    if not 0 <= low <= high < math.inf:
        bad = value[~((value >= 0) & (value < math.inf))].flatten()
        raise FisherError(
            f"Expected finite values >= 0 for {name!r} in {owner}, but got {bad[0].item()} "
            f"({bad.numel()} of {value.numel()} values are wrong); compute it again."
        )


@torch.no_grad()
def merge_fishers(
    fishers: Sequence[Mapping[str, Tensor]],
    rule: MergeRule = "max",
) -> dict[str, Tensor]:
    r"""Merge diagonal Fisher information element by element (MFIM, arXiv 2408.08493).

    For Fishers F_1, ..., F_n:

    - `max` (as published): max_i F_i. One root's importance is not diluted by others.
    - `sum`: Σ_i F_i.
    - `mean`: Σ_i F_i / n.

    Args:
        fishers: at least one; parameter name -> non-negative tensor of the parameter's shape, with
            the same names and shapes everywhere.
        rule: rule of merging.

    Returns:
        New tensors that share no memory with the inputs, named and ordered like the first Fisher,
        on its devices, in the widest dtype among the inputs and float32.

    Raises:
        InputError: if the rule is unknown.
        FisherError: if there is no Fisher, names or shapes differ, a value is not finite or
            negative, or the merged value overflows.

    Example:
        >>> first, second = {"w": torch.tensor([1.0, 4.0])}, {"w": torch.tensor([3.0, 2.0])}
        >>> merge_fishers([first, second])
        {'w': tensor([3., 4.])}
        >>> merge_fishers([first, second], "mean")
        {'w': tensor([2., 3.])}
    """
    if rule not in get_args(MergeRule):
        raise InputError(
            f"Expected one of {list(get_args(MergeRule))} as merge rule, but got {rule!r}."
        )
    if not fishers:
        raise FisherError("Expected at least one Fisher information to merge, but got none.")
    _check_alike(fishers)
    return {
        name: _merge_one(name, [fisher[name] for fisher in fishers], rule) for name in fishers[0]
    }


def merge_lazily(
    fishers: Sequence[Mapping[str, Tensor]], names: Sequence[str], rule: MergeRule
) -> Mapping[str, Tensor]:
    """Merge as `merge_fishers` does; where Fishers are lazy, a parameter when it is asked for.

    Args:
        fishers: at least one, of one model.
        names: parameters to merge.
        rule: rule of merging.

    Raises:
        InputError: as `merge_fishers`.
        FisherError: likewise.
    """
    if not any(isinstance(one, LazyTensors) for one in fishers):
        return merge_fishers([select_names(one, names) for one in fishers], rule)

    def block(name: str, rows: slice) -> Tensor:
        return _merge_one(name, [rows_of(one, name, rows) for one in fishers], rule)

    shapes = next(one.shapes for one in fishers if isinstance(one, LazyTensors))
    return LazyTensors(
        names, lambda name: _merge_one(name, [one[name] for one in fishers], rule), block, shapes
    )


def _merge_one(name: str, values: Sequence[Tensor], rule: str) -> Tensor:
    for index, value in enumerate(values):
        check_fisher(name, value, f"Fisher {index}")
    dtype = reduce(torch.promote_types, (value.dtype for value in values), torch.float32)
    device = values[0].device
    scale = 1 / len(values) if rule == "mean" else 1.0
    merged = values[0].to(dtype) * scale
    for value in values[1:]:
        scaled = value.to(device, dtype) * scale
        if rule == "max":
            torch.maximum(merged, scaled, out=merged)
        else:
            merged += scaled
    if not bool((merged < math.inf).all()):
        raise FisherError(
            f"Expected merged values that fit {dtype} for {name!r}, but got an overflow. "
            "Merge with rule 'max' or 'mean'."
        )
    return merged


def _check_alike(fishers: Sequence[Mapping[str, Tensor]]) -> None:
    first = fishers[0]
    for index, fisher in enumerate(fishers[1:], start=1):
        for name in first:
            if name not in fisher:
                raise FisherError(
                    f"Expected the same parameters in all Fishers, but got no {name!r} in "
                    f"Fisher {index}, which Fisher 0 has."
                )
        for name in fisher:
            if name not in first:
                raise FisherError(
                    f"Expected the same parameters in all Fishers, but got {name!r} in "
                    f"Fisher {index}, which Fisher 0 does not have."
                )
        for name, value in first.items():
            if fisher[name].shape != value.shape:
                raise FisherError(
                    f"Expected shape {list(value.shape)} for {name!r} as in Fisher 0, but got "
                    f"{list(fisher[name].shape)} in Fisher {index}; align the rows by class name "
                    "first, with align_rows."
                )
