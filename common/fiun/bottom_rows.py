"""Rows of a softmax head that never win: what the rows of forgotten classes become.

A class has a row of its own in the head, so where only such rows may change there is nothing to
weigh: the row is not weakened by what its Fisher information says, it is taken out.  It becomes

    W_f = mean of the kept rows        b_f = mean of the kept biases - MARGIN

The mean of some logits is never above the largest of them, so the class never is the prediction,
whatever the features are, of either sign, and its probability is at most e^-MARGIN / K with K kept
classes (Jensen's inequality).  Kept rows stay bit for bit: what the model says among the kept
classes does not change.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from disinherit.common.errors import ScopeError

MARGIN = 5.0
"""How far the bias of a forgotten class lies below the mean of the kept ones.

Beside exact retraining on digits and MNIST, with ReLU, tanh, GELU, LayerNorm and no activation
before the head, of the margins from 0 to 30 it is the closest or next to it in Jensen-Shannon
divergence and in logits (docs/adr/0018-rows-taken-out.md).
"""


@torch.no_grad()
def put_at_bottom(weight: Tensor, bias: Tensor | None, rows: Sequence[int]) -> None:
    """Put rows of a head below all others, in place.

    Without a bias the class ties with the kept ones where these all have the same logit.  If one
    class only is kept besides, no row lies below its row for features of either sign; then it is
    below on features that are not negative.  Where no class is kept, all logits become 0.

    Args:
        weight: `[C, ...]`, a row of any shape per class.
        bias: `[C]`, or `None` for a head without one.
        rows: of the forgotten classes.

    Raises:
        ScopeError: if there is no such row.

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
    """Check that a head has some rows.

    Args:
        count: number of its rows.
        rows: their indices.

    Raises:
        ScopeError: if there is no such row.
    """
    for row in rows:
        if not 0 <= row < count:
            raise ScopeError(f"Expected rows in [0, {count}) of the head, but got {row}.")
