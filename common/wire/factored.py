"""Factored Fisher information in packets: sums of rows and of columns in the place of matrices.

A small packet stands for large matrices.  So nothing is multiplied out before its size is known to
be that of a model, and then one matrix, or some of its rows, at a time.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from disinherit.common.errors import FisherError
from disinherit.common.fisher.factors import is_shortened, product_of, sums_of
from disinherit.common.fiun.merging import check_fisher
from disinherit.common.limits import shown
from disinherit.common.tensors.lazy import LazyTensors

_ROWS, _COLUMNS, _VALUES = "rows.", "columns.", "values."
_DTYPES = (torch.float32, torch.float64)
MOST_MATRICES = 10_000
"""Most matrices that one pair of sums stands for: one for each root and class that were merged."""

_AGREE = 1e-3
"""Relative difference that rounding may make between the sum of rows and that of columns."""


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """K matrices of one shape by their sums, which stand for their element-wise maximum.

    Attributes:
        rows: sums of rows, `[K, o]`.
        columns: sums of columns, `[K, *rest]`.
    """

    rows: Tensor
    columns: Tensor

    @classmethod
    def of(cls, value: Tensor) -> "Factors":
        """Return the sums of one matrix `[o, *rest]`."""
        rows, columns = sums_of(value.to(torch.promote_types(value.dtype, torch.float32)))
        return cls(rows.unsqueeze(0), columns.unsqueeze(0))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a matrix, `[o, *rest]`."""
        return (self.rows.shape[1], *self.columns.shape[1:])

    @property
    def total(self) -> float:
        """The sum of all values of the matrices, at least that of their maximum."""
        return float(self.rows.sum(dtype=torch.float64))

    def block(self, rows: slice = slice(None)) -> Tensor:
        """Return some rows of the matrix."""
        found = product_of(self.rows[0], self.columns[0], rows)
        for one, other in zip(self.rows[1:], self.columns[1:], strict=True):
            torch.maximum(found, product_of(one, other, rows), out=found)
        return found

    def joined(self, other: "Factors") -> "Factors":
        """Return the matrices of both, of the same shape."""
        return Factors(torch.cat([self.rows, other.rows]), torch.cat([self.columns, other.columns]))

    def plus(self, other: "Factors", scale: float = 1.0) -> "Factors":
        """Return one matrix and another one times a number, added; both are single."""
        return Factors(self.rows + scale * other.rows, self.columns + scale * other.columns)


def with_factors(
    values: Mapping[str, Tensor], factors: Mapping[str, Factors], names: Collection[str] = ()
) -> Mapping[str, Tensor]:
    """Return tensors by name, of which factored ones are multiplied out when they are asked for.

    Args:
        values: those that are whole.
        factors: all others.
        names: order of all names; by default whole ones first.
    """
    if not factors:
        return values

    def block(name: str, rows: slice) -> Tensor:
        return factors[name].block(rows) if name in factors else values[name][rows]

    def one(name: str) -> Tensor:
        return factors[name].block() if name in factors else values[name]

    shapes = {name: one.shape for name, one in factors.items()}
    return LazyTensors(names or [*values, *factors], one, block, shapes)


@torch.no_grad()
def encode_factored(
    values: Mapping[str, Tensor], factors: Mapping[str, Factors], exact: Collection[str]
) -> dict[str, Tensor]:
    """Return the stored form of factored Fisher information.

    Args:
        values: parameter name -> floating-point tensor, finite and >= 0; one is read at a time.
        factors: those that are factored already.
        exact: names of the head's parameters, which stay as they are.
    """
    stored: dict[str, Tensor] = {}
    for name in values:
        known = factors.get(name)
        if known is None:
            value = values[name]
            if name in exact or not is_shortened(value.shape):
                stored[_VALUES + name] = value
                continue
            known = Factors.of(value)
        stored[_ROWS + name], stored[_COLUMNS + name] = known.rows, known.columns
    return stored


def decode_factored(
    stored: Mapping[str, Tensor], exact: Collection[str], what: str
) -> tuple[dict[str, Tensor], dict[str, Factors]]:
    """Check stored tensors, and return whole ones and the sums of all others.

    Args:
        stored: tensors from `encode_factored`; not trusted.
        exact: names of the head's parameters, which are whole.
        what: name of the source, for error messages.

    Raises:
        FisherError: if they do not fit together, or a value is negative, NaN or infinite.
    """
    values = {n.removeprefix(_VALUES): v for n, v in stored.items() if n.startswith(_VALUES)}
    names = [n.removeprefix(_ROWS) for n in stored if n.startswith(_ROWS)]
    expected = {_VALUES + name for name in values}
    expected |= {prefix + name for name in names for prefix in (_ROWS, _COLUMNS)}
    twice = {*values} & {*names} | {*exact} & {*names}
    if expected != stored.keys() or twice:
        odd = min(twice or expected ^ stored.keys())
        raise FisherError(
            f"Expected values, or the sums of rows and of columns, for each parameter in {what}, "
            f"and values for those of the head, but got {shown(odd)} alone, twice or unexpected."
        )
    for name, value in values.items():
        check_fisher(name, value, what)
    return values, {
        name: _checked(name, stored[_ROWS + name], stored[_COLUMNS + name], what) for name in names
    }


def _checked(name: str, rows: Tensor, columns: Tensor, what: str) -> Factors:
    fits = (
        rows.dtype in _DTYPES
        and rows.dtype == columns.dtype
        and rows.ndim == 2
        and columns.ndim >= 2
        and 1 <= len(rows) == len(columns) <= MOST_MATRICES
    )
    if not fits:
        raise FisherError(
            "Expected sums of rows [K, o] and of columns [K, ...] in float32 or float64, with K "
            f"from 1 to {MOST_MATRICES}, for {shown(name)} in {what}, but got {rows.dtype} of "
            f"shape {list(rows.shape)} and {columns.dtype} of shape {list(columns.shape)}."
        )
    for part in (rows, columns):
        check_fisher(name, part, what)
    one, other = rows.sum(1, dtype=torch.float64), columns.flatten(1).sum(1, dtype=torch.float64)
    if ((one - other).abs() > _AGREE * torch.maximum(one, other)).any():
        raise FisherError(
            f"Expected sums of rows and of columns of one matrix for {shown(name)} in {what}, but "
            "they sum to other numbers."
        )
    return Factors(rows, columns)
