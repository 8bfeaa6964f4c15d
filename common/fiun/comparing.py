"""Scale and similarity of Fisher information across models.  Both measures are our own.

The size of a model's gradients depends on its fit: a root that fits the samples to forget perfectly
has hardly any Fisher information of them.  Without rescaling, it would select nothing in a
descendant.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from disinherit.common.errors import FisherError
from disinherit.common.tensors.lazy import blocks_of, mapped, shape_of


@torch.no_grad()
def relative_scale(
    inherited: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    rows: Mapping[str, Sequence[int]] | None = None,
) -> float:
    """Return the factor that brings a model's own Fisher to the scale of an inherited one.

        Σ_j F_j / Σ_j G_j        over the values that both have

    Our own measure; FIUn compares the values without rescaling.

    Args:
        inherited: F, the merged Fisher of the upstream roots.
        own: G, the model's own Fisher, for the same parameters; others are ignored.
        rows: parameter -> the rows that both have; all rows of a parameter without an entry.

    Returns:
        The factor, > 0; 1 if one of the two is zero everywhere.

    Example:
        >>> relative_scale({"w": torch.tensor([1.0, 3.0])}, {"w": torch.tensor([4.0, 4.0])})
        0.5
    """
    common = {name: (rows or {}).get(name) for name in inherited if name in own}
    total, other = (_total(fisher, common) for fisher in (inherited, own))
    factor = total / other if total and other else 1.0
    return factor if 0 < factor < math.inf else 1.0


def scaled(fisher: Mapping[str, Tensor], factor: float) -> Mapping[str, Tensor]:
    """Return a Fisher times a factor; the same tensors for factor 1."""
    return fisher if factor == 1 else mapped(fisher, lambda value: value * factor)


def _total(fisher: Mapping[str, Tensor], common: Mapping[str, Sequence[int] | None]) -> float:
    parts = (
        value
        for name, rows in common.items()
        for (value,) in (
            blocks_of(fisher, name=name) if rows is None else [(fisher[name][list(rows)],)]
        )
    )
    return math.fsum(float(part.sum(dtype=torch.float64)) for part in parts)


@torch.no_grad()
def inheritance_score(
    inherited: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    rows: Mapping[str, Sequence[int]] | None = None,
) -> float | None:
    r"""Return the cosine similarity of two diagonal Fishers, each taken as one vector.

        Σ_j F_j G_j / sqrt(Σ_j F_j² Σ_j G_j²)

    This is our own score.  It checks the assumption of Fisher inheritance that the roots' Fisher
    shows where a descendant keeps the forgotten classes, on descendants that trained on them.  Both
    Fishers are non-negative, so it is in [0, 1].  It is 1 where one is a multiple of the other,
    since dampening compares values within one model; it is 0 where they have nothing in common.
    Large values weigh most, and they are the ones selected.

    Args:
        inherited: F, the merged Fisher of the upstream roots.
        own: G, the model's own Fisher of the same classes: the same names and shapes.
        rows: parameter -> the rows that count; all rows of a parameter without an entry.

    Returns:
        The similarity; `None` if one of the two is zero everywhere.

    Raises:
        FisherError: if names or shapes differ.

    Example:
        >>> inheritance_score({"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([6.0, 8.0])})
        1.0
        >>> inheritance_score({"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])})
        0.0
    """
    shapes = {name: list(shape_of(inherited, name)) for name in inherited}
    others = {name: list(shape_of(own, name)) for name in own}
    if shapes != others:
        raise FisherError(
            f"Expected two Fishers of the same parameters and shapes, but got {shapes} and "
            f"{others}."
        )
    products = torch.zeros(3, dtype=torch.float64)
    for name in inherited:
        chosen = None if rows is None or name not in rows else list(rows[name])
        pairs = blocks_of(inherited, own, name=name)
        for f, g in pairs if chosen is None else [(inherited[name][chosen], own[name][chosen])]:
            mine, its = f.flatten().double(), g.to(f.device).flatten().double()
            products += torch.stack([mine @ its, mine @ mine, its @ its]).cpu()
    both, one, other = (float(product) for product in products)
    if not one or not other:
        return None
    return min(1.0, both / (math.sqrt(one) * math.sqrt(other)))
