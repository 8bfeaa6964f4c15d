"""The inheritance score: how like a root's Fisher information is to a descendant's own.

Fisher inheritance rests on the roots' Fisher information telling where a *descendant* keeps what it
inherited.  A descendant that was trained on the forgotten classes itself can check that: its own
registered Fisher of these classes says where they are in it.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from disinherit.common.errors import FisherError


@torch.no_grad()
def inheritance_score(
    inherited: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    rows: Mapping[str, Sequence[int]] | None = None,
) -> float | None:
    r"""Return the cosine similarity of two diagonal Fishers, taken as one vector each.

        Σ_j F_j G_j / sqrt(Σ_j F_j² Σ_j G_j²)

    Both are non-negative, so it is in [0, 1]: 1 where one is a multiple of the other, as dampening
    needs, which compares values within a model only; 0 where they have nothing in common.  Large
    values weigh most, and these are what is selected.

    Args:
        inherited: the merged Fisher of the upstream roots, F.
        own: the model's own Fisher of the same classes, G: the same names and shapes.
        rows: parameter -> the rows of it that count; all of a parameter that is not in it.

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
    shapes = {name: value.shape for name, value in inherited.items()}
    if shapes != {name: value.shape for name, value in own.items()}:
        raise FisherError(
            "Expected two Fishers of the same parameters and shapes, but got "
            f"{ {name: list(shape) for name, shape in shapes.items()} } and "
            f"{ {name: list(value.shape) for name, value in own.items()} }."
        )
    products = torch.zeros(3, dtype=torch.float64)
    for name, value in inherited.items():
        f, g = value, own[name].to(value.device)
        if rows is not None and name in rows:
            f, g = f[list(rows[name])], g[list(rows[name])]
        f, g = f.flatten().double(), g.flatten().double()
        products += torch.stack([f @ g, f @ f, g @ g]).cpu()
    both, one, other = (float(product) for product in products)
    if not one or not other:
        return None
    return min(1.0, both / (math.sqrt(one) * math.sqrt(other)))
