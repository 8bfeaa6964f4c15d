"""Rows of a softmax head that never win: they replace the rows of forgotten classes.

A class has its own row in the head.  If only such rows may change, nothing has to be weighed: the
row is not dampened by its Fisher information, it is taken out.  It becomes

    W_f = mean of the kept rows        b_f = mean of the kept biases - MARGIN

The mean of logits never exceeds the largest one, so the class is never predicted, for features of
either sign.  Its probability is at most e^-MARGIN / K with K kept classes (Jensen's inequality).
Kept rows stay bit for bit, so the ranking of the kept classes does not change.  This rule is our
own; it is not part of FIUn.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from disinherit.common.errors import ScopeError

MARGIN = 5.0
"""Distance of a forgotten class's bias below the mean of the kept ones.

Compared with exact retraining, by Jensen-Shannon divergence and by logits, this margin is the best
or second best of those from 0 to 30.  Heads followed ReLU, tanh, GELU, LayerNorm and no activation,
on digits and MNIST (docs/adr/0018-rows-taken-out.md).
"""


@torch.no_grad()
def put_at_bottom(weight: Tensor, bias: Tensor | None, rows: Sequence[int]) -> None:
    """Put rows of a head below all others, in place.

    Without a bias the class ties with the kept ones where all of these have the same logit.
    Besides a single kept class no row is lower for features of either sign; it is then lower for
    non-negative features.  Without a kept class, all logits become 0.

    Args:
        weight: `[C, ...]`, a row of any shape per class.
        bias: `[C]`, or `None` for a head without one.
        rows: rows of the forgotten classes.

    Raises:
        ScopeError: if a row does not exist.

    Example:
        >>> weight, bias = torch.tensor([[9.0, -9.0], [2.0, 0.0], [0.0, 4.0]]), torch.zeros(3)
        >>> put_at_bottom(weight, bias, [0])
        >>> weight[0], bias
        (tensor([1., 2.]), tensor([-5.,  0.,  0.]))
    """
    check_rows(len(weight), rows)
    forgotten = torch.tensor(sorted(set(rows)), dtype=torch.long, device=weight.device)
    kept = torch.ones(len(weight), dtype=torch.bool, device=weight.device)
    kept[forgotten] = False
    count = int(kept.sum())
    if not count:
        weight.zero_()
        if bias is not None:
            bias.zero_()
        return
    row = weight[kept].mean(dim=0, dtype=torch.float64)
    if bias is not None:
        bias[forgotten] = (bias[kept].mean(dtype=torch.float64) - MARGIN).to(bias.dtype)
    elif count == 1:
        row = row - row.abs()
    weight[forgotten] = row.to(weight.dtype)


def check_rows(count: int, rows: Sequence[int]) -> None:
    """Check that rows exist in a head.

    Args:
        count: number of its rows.
        rows: their indices.

    Raises:
        ScopeError: if a row does not exist.
    """
    for row in rows:
        if not 0 <= row < count:
            raise ScopeError(f"Expected rows in [0, {count}) of the head, but got {row}.")
