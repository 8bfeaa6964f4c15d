"""Selective dampening: shrink the parameters that matter more to the forget set."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from disinherit.common.errors import FisherError, InputError, ScopeError
from disinherit.common.fiun.merging import check_fisher
from disinherit.common.models.devices import has_triton, is_accelerator

_PIECE = 7 * 2**14
"""Values handled at once on a CPU: intermediate results stay in its cache, and take less than a
tenth of a convolution of 512 x 512 x 3 x 3."""
_DEVICE_PIECE = 2**24


@dataclass(frozen=True, slots=True, eq=False)
class Dampened:
    """The outcome of dampening.

    Attributes:
        parameters: parameter name -> new tensor, shape, dtype and device as before.
        selected: parameter name -> int64 number of selected values per row of dim 0, `[shape[0]]`
            (`[1]` for a scalar).
    """

    parameters: dict[str, Tensor]
    selected: dict[str, Tensor]

    def __repr__(self) -> str:
        return f"Dampened({self.selected_count} of {self._values} values selected)"

    @property
    def selected_count(self) -> int:
        """Number of selected values over all parameters in scope."""
        return sum(int(counts.sum()) for counts in self.selected.values())

    @property
    def selected_fraction(self) -> float:
        """Selected share of all values in scope, in [0, 1]; 0 for an empty scope."""
        return self.selected_count / self._values if self._values else 0.0

    @property
    def _values(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters.values())


def dampen(
    parameters: Mapping[str, Tensor],
    forget: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    alpha: float,
    lam: float,
    exponent: float = 1.0,
    bound: float = 1.0,
    rows: Mapping[str, Sequence[int]] | None = None,
) -> Dampened:
    r"""Dampen parameters where the Fisher of the forget set dominates (SSD, FIUn).

    A value θ is selected where F_forget > α F_ref, and becomes
    θ · min(bound, (λ F_ref / F_forget)^exponent). All other values stay bit for bit.

    With F_ref over *all* training data, exponent 1, bound 1 and no `rows`, this is the published
    rule (Foster et al. 2024; arXiv 2408.08493). As published, a factor above the bound becomes the
    bound, so with bound 1 such a value counts as selected and does not change. Where F_forget is 0,
    nothing is selected; where only F_ref is 0, the value becomes 0. Factors are computed in float32
    or wider.

    Args:
        parameters: parameter name -> floating-point tensor.
        forget: Fisher of the forget set; names and shapes of `parameters`.
        reference: Fisher to compare with; names and shapes of `parameters`.
        alpha: selection threshold, > 0; higher selects less.
        lam: dampening constant, > 0; lower dampens more.
        exponent: exponent of the dampening factor, > 0.
        bound: largest factor, in (0, 1].
        rows: parameter -> the only rows of dim 0 to select in; an empty sequence selects nothing.
            Parameters without an entry are not restricted.

    Returns:
        New tensors, and the numbers of selected values. The inputs are untouched.

    Raises:
        InputError: if alpha, lam, exponent or bound is out of range.
        FisherError: if names or shapes differ, or a Fisher value is not finite or negative.
        ScopeError: if a parameter is not floating-point, or `rows` names a parameter or row that
            does not exist.

    Example:
        >>> theta = {"w": torch.tensor([8.0, 8.0, 8.0])}
        >>> forget = {"w": torch.tensor([4.0, 1.0, 0.0])}
        >>> reference = {"w": torch.tensor([1.0, 1.0, 1.0])}
        >>> result = dampen(theta, forget, reference, alpha=2.0, lam=1.0)
        >>> result.parameters["w"], result.selected_count
        (tensor([2., 8., 8.]), 1)
    """
    new = {name: value.detach().clone() for name, value in parameters.items()}
    return Dampened(new, dampen_(new, forget, reference, alpha, lam, exponent, bound, rows))


@torch.no_grad()
def dampen_(
    parameters: Mapping[str, Tensor],
    forget: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    alpha: float,
    lam: float,
    exponent: float = 1.0,
    bound: float = 1.0,
    rows: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Tensor]:
    """Dampen parameters in place, with almost no further memory.

    Same arguments and errors as `dampen`; after an error nothing has changed.

    Returns:
        Parameter name -> int64 number of selected values per row of dim 0, as in `Dampened`.

    Example:
        >>> theta = {"w": torch.tensor([8.0, 8.0])}
        >>> dampen_(theta, {"w": torch.tensor([4.0, 1.0])}, {"w": torch.ones(2)}, 2.0, 1.0)
        {'w': tensor([1, 0])}
        >>> theta["w"]
        tensor([2., 8.])
    """
    for what, value in (("alpha", alpha), ("lam", lam), ("exponent", exponent)):
        _check_positive(what, value)
    if not 0 < bound <= 1:
        raise InputError(f"Expected bound in (0, 1], but got {bound}.")
    _check_alike(parameters, forget, reference)
    _check_rows(parameters, rows or {})
    for name in parameters:
        check_fisher(name, forget[name], "the forget Fisher")
        check_fisher(name, reference[name], "the reference Fisher")
    largest = max((theta.numel() for theta in parameters.values()), default=0)
    rule = _Rule(alpha, lam, exponent, bound, largest)
    return {
        name: rule.apply(theta, forget[name], reference[name], (rows or {}).get(name))
        for name, theta in parameters.items()
    }


@dataclass(frozen=True, slots=True)
class _Rule:
    """The rule of `dampen`, applied to a piece of a tensor at a time."""

    alpha: float
    lam: float
    exponent: float
    bound: float
    largest: int
    """Size of the largest tensor."""

    scratch: dict[tuple[torch.device, torch.dtype], Tensor] = field(default_factory=dict)
    """Scratch memory, shared by all tensors."""

    def apply(
        self, theta: Tensor, forget: Tensor, reference: Tensor, rows: Sequence[int] | None
    ) -> Tensor:
        """Dampen one tensor in place, and return the number of selected values per row."""
        table = theta.reshape(len(theta) if theta.ndim else 1, math.prod(theta.shape[1:]))
        f_forget, f_reference = forget.reshape(table.shape), reference.reshape(table.shape)
        selected = None
        if self.exponent == 1 and rows is None and has_triton(theta.device):
            from disinherit.common.tensors import fused  # has Triton, which a CPU lacks

            if fused.can_dampen(table, f_forget, f_reference):
                rule = self.alpha, self.lam, self.bound
                selected = fused.dampen_table(table, f_forget, f_reference, *rule)
        if selected is None:
            selected = self._by_pieces(table, f_forget, f_reference, rows)
        if table.data_ptr() != theta.data_ptr():  # the tensor was not contiguous
            theta.copy_(table.view(theta.shape))
        return selected

    def _by_pieces(
        self, table: Tensor, f_forget: Tensor, f_reference: Tensor, rows: Sequence[int] | None
    ) -> Tensor:
        """Dampen by PyTorch's own calls, which any device has."""
        selected = torch.zeros(len(table), dtype=torch.int64, device=table.device)
        dtype = torch.promote_types(f_forget.dtype, f_reference.dtype)
        dtype = torch.promote_types(dtype, torch.float32)
        size = min(_DEVICE_PIECE if is_accelerator(table.device) else _PIECE, self.largest)
        key = table.device, dtype
        if key not in self.scratch:
            self.scratch[key] = torch.empty(2, size, dtype=dtype, device=table.device)
        scratch = self.scratch[key]
        for place in _pieces(table.shape, size, rows):
            piece = table[place]
            factor, kept = (s[: piece.numel()].view(piece.shape) for s in scratch)
            fisher = f_forget[place].to(table.device, dtype)
            compared = f_reference[place].to(table.device, dtype)
            torch.le(fisher, torch.mul(compared, self.alpha, out=kept), out=kept)
            torch.mul(compared, self.lam, out=factor).div_(fisher)
            if self.exponent != 1:
                factor.pow_(self.exponent)
            # 0 / 0 is NaN only where nothing is selected.  A factor is at most 1, so the maximum
            # of the factor and `kept` (1 or 0) is 1 where a value is kept: far faster than a mask.
            factor.clamp_(max=self.bound).nan_to_num_(nan=1.0)
            piece.mul_(torch.maximum(factor, kept, out=factor))
            selected[place[0]] += piece.shape[1] - kept.sum(dim=1).long()
        return selected


def _pieces(
    shape: tuple[int, ...], size: int, rows: Sequence[int] | None
) -> Iterator[tuple[slice, slice]]:
    """Yield parts of a table `[n, d]` of at most `size` values: some rows, or a part of one."""
    count, width = shape
    if not count * width:
        return
    if rows is None:
        step = max(1, size // width)
        blocks = [slice(start, min(start + step, count)) for start in range(0, count, step)]
    else:
        blocks = [slice(row, row + 1) for row in dict.fromkeys(rows)]
    for block in blocks:
        for start in range(0, width, size):
            yield block, slice(start, min(start + size, width))


def _check_rows(parameters: Mapping[str, Tensor], rows: Mapping[str, Sequence[int]]) -> None:
    for name, indices in rows.items():
        if name not in parameters:
            raise ScopeError(
                f"Expected rows only for parameters in scope ({list(parameters)}), but got rows "
                f"for {name!r}."
            )
        theta = parameters[name]
        if theta.ndim == 0:
            raise ScopeError(f"Expected rows only for tensors, but got rows for scalar {name!r}.")
        for index in indices:
            if not 0 <= index < len(theta):
                raise ScopeError(
                    f"Expected rows in [0, {len(theta)}) for parameter {name!r}, but got {index}."
                )


def _check_positive(what: str, value: float) -> None:
    # Beyond float32, alpha * 0 would be inf * 0 = NaN in the kernel and select nothing, silently.
    if not 0 < value <= torch.finfo(torch.float32).max:
        raise InputError(f"Expected a positive finite {what}, but got {value}.")


def _check_alike(
    parameters: Mapping[str, Tensor], forget: Mapping[str, Tensor], reference: Mapping[str, Tensor]
) -> None:
    sides = {
        "the parameters": parameters,
        "the forget Fisher": forget,
        "the reference Fisher": reference,
    }
    names = dict.fromkeys(name for side in sides.values() for name in side)
    gaps = [
        f"{missing} missing in {what}"
        for what, side in sides.items()
        if (missing := [name for name in names if name not in side])
    ]
    if gaps:
        raise FisherError(
            "Expected the same names in the parameters, the forget Fisher and the reference "
            f"Fisher, but got {'; '.join(gaps)}."
        )
    for name, theta in parameters.items():
        if not theta.is_floating_point():
            raise ScopeError(
                f"Expected floating-point parameters, but got {theta.dtype} for {name!r}; take it "
                "out of the scope."
            )
        for what, side in sides.items():
            if side[name].shape != theta.shape:
                raise FisherError(
                    f"Expected shape {list(theta.shape)} for {name!r} as in the parameters, but "
                    f"got {list(side[name].shape)} in {what}; align the rows by class name first, "
                    "with align_rows."
                )
