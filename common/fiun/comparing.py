"""The scale of a Fisher information: what differs between models that keep the same things alike.

How large a model's gradients are depends on how well it fits its data: a root that fits the samples
to forget perfectly has hardly any Fisher information of them left, and compared as it is with that
of a descendant it would select nothing there.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


@torch.no_grad()
def relative_scale(
    inherited: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    rows: Mapping[str, Sequence[int]] | None = None,
) -> float:
    """Return the factor that brings a model's own Fisher to the scale of an inherited one.

        Σ_j F_j / Σ_j G_j        over all values that both can have

    Args:
        inherited: the merged Fisher of the upstream roots, F.
        own: Fisher of the model, G, of the same parameters; others do not count.
        rows: parameter -> the rows of it that both can have; all of one that is not in it.

    Returns:
        The factor, > 0; 1 where one of the two is zero everywhere, and there is nothing to compare.

    Example:
        >>> relative_scale({"w": torch.tensor([1.0, 3.0])}, {"w": torch.tensor([4.0, 4.0])})
        0.5
    """
    common = {name: (rows or {}).get(name) for name in inherited if name in own}
    total, other = (_total(fisher, common) for fisher in (inherited, own))
    factor = total / other if total and other else 1.0
    return factor if 0 < factor < math.inf else 1.0


def scaled(fisher: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """Return a Fisher times a factor; the same tensors where that is 1."""
    if factor == 1:
        return dict(fisher)
    return {name: value * factor for name, value in fisher.items()}


def _total(fisher: Mapping[str, Tensor], common: Mapping[str, Sequence[int] | None]) -> float:
    return math.fsum(
        float((fisher[name] if rows is None else fisher[name][list(rows)]).sum(dtype=torch.float64))
        for name, rows in common.items()
    )
