"""The attack on losses: can samples of the training be told from samples never seen?"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

ONE_SIDED = 1.645
"""Standard deviations that chance exceeds in one of twenty cases."""


def confidence(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the logit-scaled confidence `[n]` in the true class, log p - log(1 - p), in float64.

    Args:
        logits: `[n, C]`, C > 1.
        targets: class indices `[n]`.

    Example:
        >>> confidence(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).item()
        2.0
    """
    wide = logits.double()
    true = F.one_hot(targets, wide.shape[1]).bool()
    return wide[true] - wide.masked_fill(true, -math.inf).logsumexp(dim=1)


def area_under_curve(members: Tensor, others: Tensor) -> float:
    """Return the probability that a member scores above a non-member; a tie counts as half.

    Args:
        members: scores `[n]`, n > 0.
        others: scores `[m]`, m > 0.

    Example:
        >>> area_under_curve(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 1.0]))
        0.625
    """
    ordered = others.double().sort().values
    below = torch.searchsorted(ordered, members.double(), right=False)
    up_to = torch.searchsorted(ordered, members.double(), right=True)
    return (below + up_to).double().mean().item() / 2 / len(others)


def auc_margin(forgotten: int, unseen: int) -> float:
    """Return how far chance may raise the AUC of two equal distributions above one half.

    Example:
        >>> auc_margin(1, 1), round(auc_margin(200, 200), 3)
        (0.5, 0.048)
    """
    spread = math.sqrt((forgotten + unseen + 1) / (12 * forgotten * unseen))
    return min(0.5, ONE_SIDED * spread)
