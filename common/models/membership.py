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


def true_positive_rate(members: Tensor, others: Tensor, false_positives: float) -> float:
    """Return the share of members above the lowest threshold that so few non-members are above.

    Args:
        members: scores `[n]`, n > 0.
        others: scores `[m]`, m > 0.
        false_positives: the largest share of non-members above the threshold.

    Example:
        >>> true_positive_rate(torch.tensor([5.0, 3.0]), torch.tensor([4.0, 1.0]), 0.0)
        0.5
    """
    allowed = int(false_positives * len(others) + 1e-9)
    ordered = others.double().sort(descending=True).values
    if allowed >= len(ordered):
        return 1.0
    return (members.double() > ordered[allowed]).double().mean().item()


def found_by_losses(forgotten: Tensor, unseen: Tensor, false_alarms: float) -> float | None:
    """Return the share of samples that low losses give away at so few false alarms.

    An attacker calls a sample known if its loss is less than those of all unseen ones but the share
    `false_alarms`; of ties none counts.  In a model that never saw the samples it finds as large a
    share of them.

    Args:
        forgotten: losses of the samples to forget `[n]`, n > 0.
        unseen: losses of unseen samples `[m]`.
        false_alarms: the largest share of unseen samples below the threshold.

    Returns:
        The share; `None` if m is so small that not even one unseen sample may be below.

    Example:
        >>> unseen = torch.arange(100.0)
        >>> found_by_losses(torch.tensor([0.5, 1.0, 7.0, 9.0]), unseen, 0.01)
        0.25
        >>> found_by_losses(torch.tensor([0.5]), unseen[:99], 0.01)
    """
    if int(false_alarms * len(unseen) + 1e-9) < 1:
        return None
    return true_positive_rate(-forgotten, -unseen, false_alarms)


def auc_margin(forgotten: int, unseen: int) -> float:
    """Return how far chance may raise the AUC of two equal distributions above one half.

    Example:
        >>> auc_margin(1, 1), round(auc_margin(200, 200), 3)
        (0.5, 0.048)
    """
    spread = math.sqrt((forgotten + unseen + 1) / (12 * forgotten * unseen))
    return min(0.5, ONE_SIDED * spread)
