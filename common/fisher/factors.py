"""Factored Fisher information: a matrix by the sums of its rows and of its columns.

With R_i the sums of the rows and C_j those of the columns of a matrix F, and T the sum of all::

    F_ij ~ R_i C_j / T

It has the sums of F, and no other matrix of rank 1 is nearer to F in the generalised
Kullback-Leibler divergence (Lee and Seung 2001).  Adafactor keeps second moments of gradients so
(Shazeer and Stern 2018, arXiv 1804.04235).  A kernel `[o, i, h, w]` is a matrix of o rows.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def is_shortened(shape: Sequence[int]) -> bool:
    """Return whether a tensor of this shape has more values than its sums of rows and columns.

    Example:
        >>> is_shortened([3, 4]), is_shortened([2, 2]), is_shortened([9])
        (True, False, False)
    """
    if len(shape) < 2:
        return False
    columns = math.prod(shape[1:])
    return shape[0] + columns < shape[0] * columns


@torch.no_grad()
def sums_of(value: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of the rows and of the columns of a tensor, in its dtype.

    Args:
        value: `[o, *rest]`, not negative.

    Returns:
        `[o]` and `[*rest]`; sums are computed in float64 where the device has it.
    """
    wide = torch.float32 if value.device.type == "mps" else torch.float64
    rows, columns = value.flatten(1).sum(1, dtype=wide), value.sum(0, dtype=wide)
    return rows.to(value.dtype), columns.to(value.dtype)


@torch.no_grad()
def product_of(rows: Tensor, columns: Tensor, some: slice = slice(None)) -> Tensor:
    """Return the matrix of its sums, or some of its rows.

    Args:
        rows: sums of rows, `[o]`.
        columns: sums of columns, `[*rest]`, of the same dtype.
        some: which rows.

    Returns:
        `[o, *rest]`, or as many rows as were asked for; zeros where all sums are zero.

    Example:
        >>> product_of(*sums_of(torch.tensor([[2.0, 4.0], [1.0, 2.0]])))
        tensor([[2., 4.],
                [1., 2.]])
    """
    wide = torch.float32 if rows.device.type == "mps" else torch.float64
    total = rows.sum(dtype=wide)
    shares = torch.where(total > 0, rows[some].to(wide) / total, 0).to(rows.dtype)
    return shares.view(-1, *[1] * columns.ndim) * columns
