"""Fused kernels in Triton: dampening, and changes added to weights, each in one pass over memory.

PyTorch's own calls take one pass for each step of a formula, which on an accelerator is 5 to 7
times what must be read and written. Triton comes with PyTorch for CUDA. Importing this module
fails without it: ask `has_triton` of `disinherit.common.models.devices` first.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096
_NARROW = (torch.float32, torch.bfloat16, torch.float16)


def try_on(device: torch.device) -> None:
    """Run both kernels on one value, so that what Triton lacks is known before weights change.

    Raises:
        Exception: of any type, if Triton cannot compile for the device.
    """
    one = torch.ones(1, 1, device=device)
    dampen_table(one.clone(), one, one, 1.0, 1.0, 1.0)
    add_changes(one.clone(), [one], [1.0], variance=False)


def can_dampen(theta: Tensor, forget: Tensor, reference: Tensor) -> bool:
    """Whether `dampen_table` takes these three: on one device, contiguous, 32 bits at most."""
    return all(_fits(one, theta) for one in (theta, forget, reference))


def dampen_table(
    theta: Tensor, forget: Tensor, reference: Tensor, alpha: float, lam: float, bound: float
) -> Tensor:
    """Dampen a table in place by the rule of `dampen` with exponent 1, and count what it selects.

    Factors are computed in float32, and divided with correct rounding: the same bits as PyTorch's
    own calls.

    Args:
        theta: table `[n, d]`.
        forget: Fisher of the forget set, `[n, d]`, checked before.
        reference: Fisher to compare with, `[n, d]`, checked before.
        alpha: selection threshold.
        lam: dampening constant.
        bound: largest factor.

    Returns:
        Number of selected values of each row, int64 `[n]`.
    """
    count, width = theta.shape
    selected = torch.zeros(count, dtype=torch.int32, device=theta.device)
    if count * width:
        columns = min(_BLOCK, triton.next_power_of_2(width))
        rows = _BLOCK // columns
        grid = triton.cdiv(count, rows), triton.cdiv(width, columns)
        with torch.cuda.device(theta.device):
            _dampen[grid](
                theta, forget, reference, selected, count, width, alpha, lam, bound, rows, columns
            )
    return selected.long()


def can_add(target: Tensor, changes: Sequence[Tensor]) -> bool:
    """Whether `add_changes` takes these: on one device, contiguous, changes in float32."""
    return all(_fits(one, target) for one in (target, *changes)) and all(
        change.dtype is torch.float32 for change in changes
    )


def add_changes(
    target: Tensor, changes: Sequence[Tensor], coefficients: Sequence[float], variance: bool
) -> tuple[int, bool]:
    """Add changes to a tensor in place: sums in float64, rounded as PyTorch does.

    Args:
        target: weights of any shape.
        changes: tensors of that shape, in float32.
        coefficients: what to multiply each change by.
        variance: whether values below 0 become 0.

    Returns:
        How many values changed, and whether all are finite.
    """
    device = target.device
    counts = torch.zeros(2, dtype=torch.int64, device=device)
    if target.numel():
        places = torch.tensor([one.data_ptr() for one in changes], device=device)
        factors = torch.tensor(coefficients, dtype=torch.float64, device=device)
        grid = (triton.cdiv(target.numel(), _BLOCK),)
        with torch.cuda.device(device):
            _add[grid](
                target, places, factors, counts, target.numel(), len(changes), variance, _BLOCK
            )
    changed, not_finite = counts.tolist()
    return changed, not not_finite


def _fits(one: Tensor, first: Tensor) -> bool:
    return one.device == first.device and one.is_contiguous() and one.dtype in _NARROW


@triton.jit  # type: ignore[untyped-decorator]
def _dampen(  # type: ignore[no-untyped-def]
    theta,
    forget,
    reference,
    selected,
    count,
    width,
    alpha,
    lam,
    bound,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    at = row[:, None].to(tl.int64) * width + column[None, :]
    inside = (row[:, None] < count) & (column[None, :] < width)
    old = tl.load(theta + at, inside, 0.0).to(tl.float32)
    fisher = tl.load(forget + at, inside, 0.0).to(tl.float32)
    compared = tl.load(reference + at, inside, 0.0).to(tl.float32)
    chosen = fisher > compared * alpha
    factor = tl.div_rn(compared * lam, tl.where(chosen, fisher, 1.0))
    factor = tl.where(chosen, tl.minimum(factor, bound), 1.0)
    tl.store(theta + at, (old * factor).to(theta.dtype.element_ty), inside)
    tl.atomic_add(selected + row, tl.sum(chosen.to(tl.int32), 1), row < count)


@triton.jit  # type: ignore[untyped-decorator]
def _add(  # type: ignore[no-untyped-def]
    target,
    places,
    factors,
    counts,
    size,
    changes: tl.constexpr,
    variance: tl.constexpr,
    block: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < size
    old = tl.load(target + at, inside, 0.0)
    total = old.to(tl.float64)
    for one in tl.static_range(changes):
        change = tl.load(places + one).to(tl.pointer_type(tl.float32))
        total += tl.load(factors + one) * tl.load(change + at, inside, 0.0).to(tl.float64)
    if variance:
        total = tl.maximum(total, 0.0)
    new = total.to(tl.float32).to(target.dtype.element_ty)  # as PyTorch rounds to 16 bits
    tl.store(target + at, new, inside)
    wide = new.to(tl.float32)
    finite = tl.abs(wide) < float("inf")
    tl.atomic_add(counts, tl.sum((new != old).to(tl.int64)))
    tl.atomic_add(counts + 1, tl.sum((finite == 0).to(tl.int64)))
