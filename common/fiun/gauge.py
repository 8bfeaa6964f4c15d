"""The gauge freedom of a softmax head, fixed so that a dampened class ends at the bottom.

Softmax does not change when all logits of a sample move by the same number:
softmax(z + c 1) = softmax(z) (Goodfellow et al. 2016, Deep Learning, section 4.1).  So all rows
of a head may move by one vector.  FIUn does not use this freedom; the shift here is our own.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from disinherit.common.errors import InputError, ScopeError


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """A linear layer that makes logits.

    Attributes:
        weight: `[C, d]`, one row per class; `[C, d, ...]` of a convolution.
        bias: `[C]`, or `None` for a head without one.

    Raises:
        ScopeError: if the shapes differ, or there is no class.
    """

    weight: Tensor
    bias: Tensor | None = None

    def __post_init__(self) -> None:
        if self.weight.ndim < 2 or self.weight.shape[0] == 0:
            raise ScopeError(
                "Expected a head weight [C, d, ...] with at least one class, but got shape "
                f"{list(self.weight.shape)}."
            )
        if self.bias is not None and self.bias.shape != self.weight.shape[:1]:
            raise ScopeError(
                f"Expected a head bias [{self.weight.shape[0]}] like the rows of the weight, but "
                f"got shape {list(self.bias.shape)}."
            )


def check_strength(strength: float) -> None:
    """Check the strength of a gauge shift.

    Raises:
        InputError: if the strength is negative or not finite.
    """
    if not 0 <= strength < math.inf:
        raise InputError(f"Expected a finite gauge strength >= 0, but got {strength}.")


@torch.no_grad()
def fix_gauge(head: LinearHead, strength: float) -> LinearHead:
    r"""Shift a head by its column-wise minimum, times `strength`.

    W' = W - t · min_c W_c (one vector `[d]` from all rows), b' = b - t · min_c b_c. All logits of
    a sample move by the same number, so softmax outputs and Fisher information are the same for
    every t, up to rounding. Dampening is not: it pulls towards zero, so a fully dampened row ends
    at logit 0, often *above* the others. With t = 1 and non-negative features (after a ReLU), all
    logits are >= 0 and that row ends at the bottom. A larger t gives a larger margin, and costs a
    partly dampened retained row more.

    Args:
        head: weight `[C, d, ...]` and bias `[C]`.
        strength: t, finite and >= 0; 0 changes nothing.

    Returns:
        A new head, dtypes and devices as before; the input is untouched.

    Raises:
        InputError: if the strength is negative or not finite.

    Example:
        >>> fix_gauge(LinearHead(torch.tensor([[1.0, -2.0], [3.0, 5.0]])), 1.0).weight
        tensor([[0., 0.],
                [2., 7.]])
    """
    check_strength(strength)
    bias = None if head.bias is None else shift_rows(head.bias, strength)
    return LinearHead(shift_rows(head.weight, strength), bias)


def shift_rows(values: Tensor, strength: float, dim: int = 0) -> Tensor:
    """Return values of a head minus `strength` times their minimum over the classes.

    Args:
        values: weights or biases, also of many heads at once.
        strength: strength t of the shift.
        dim: dimension of the classes.
    """
    # One rounding instead of two matters in half precision: the shift must be equal in all rows.
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    return (wide - strength * wide.amin(dim=dim, keepdim=True)).to(values.dtype)
