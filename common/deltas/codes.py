"""Encodings of a root's change in transit: signed values, in fewer bits or as two factors.

A change is added to weights, so its *absolute* error beside the largest values of a row matters:

`full`
    As computed.
`bfloat16`
    At most 2⁻⁸ = 0.4% of each value; larger values than 3.39e38 are refused.
`int8`
    A signed byte for each value x of row r (first dimension; a vector is one row), with its largest
    magnitude M_r::

        scale_r = M_r / 127      code = round(x / scale_r)      x' = code scale_r

    At most M_r / 254: 0.4% of the largest value of the row.

With rank k, a matrix or convolution kernel, flattened to D [out, n], is replaced by its truncated
singular value decomposition, if it has more values than the two factors::

    left = U_k [out, k]      right = diag(s_k) V_kᵀ [k, n]      ‖D - left right‖² = Σ_{i>k} s_i²

No other matrix of rank k is nearer to D (Eckart and Young, 1936).  `right` keeps the kernel's shape
after its first dimension.  Each factor is encoded by the encoding; a row of `right` has the scale
of its own singular value, so that `int8` rounds small singular values as well as large ones.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from disinherit.common.errors import FisherError
from disinherit.common.limits import shown
from disinherit.common.method import DeltaCode
from disinherit.common.tensors.lazy import LazyTensors, row_blocks, rows_of

_CODES, _SCALES = "codes.", "scales."
_WHOLE, _LEFT, _RIGHT = "whole.", "left.", "right."
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_STEPS = 127
_LARGEST = torch.finfo(torch.bfloat16).max


def check_dtype(name: str, value: Tensor, what: str) -> None:
    """Check that a tensor has a floating-point type that changes are computed in.

    Complex values and floats of 8 bits have none: sums of them would be wrong or fail.

    Args:
        name: name of its parameter or buffer, for the message.
        value: a tensor of any shape.
        what: name of the source, for the message.

    Raises:
        FisherError: if it has not.
    """
    if value.dtype not in _DTYPES:
        raise FisherError(
            f"Expected float64, float32, float16 or bfloat16 for {shown(name)} in {what}, but got "
            f"{value.dtype}."
        )


def check_change(name: str, value: Tensor, what: str) -> None:
    """Check that a tensor can be a change: floating-point and finite.

    Args:
        name: name of its parameter or buffer, for the message.
        value: a tensor of any shape.
        what: name of the source, for the message.

    Raises:
        FisherError: if it cannot.
    """
    check_dtype(name, value, what)
    if value.numel() and not all(bound.isfinite() for bound in value.aminmax()):
        raise FisherError(
            f"Expected finite values for {shown(name)} in {what}, but got NaN or infinity; compute "
            "it again."
        )


@torch.no_grad()
def encode_changes(values: Mapping[str, Tensor], code: DeltaCode, rank: int) -> dict[str, Tensor]:
    """Return the stored form of changes; the same values give the same bytes.

    Args:
        values: name -> change, of either sign.
        code: encoding of the values.
        rank: rank of matrices; 0 for full.

    Raises:
        FisherError: if a value is not finite, or beyond the range of the encoding.
    """
    stored: dict[str, Tensor] = {}
    for name, value in values.items():
        check_change(name, value, "a change")
        if code != "full" and value.numel() and value.abs().max() > _LARGEST:
            raise FisherError(
                f"Expected changes of {shown(name)} up to {_LARGEST:.3g} for the encoding {code}, "
                f"but got {float(value.abs().max()):.3g}. Send it in full, or compute it again."
            )
        for part, tensor in _factors(name, value, rank).items():
            stored |= _encoded(part, tensor, code)
    return stored


@dataclass(frozen=True, slots=True, eq=False)
class StoredChanges:
    """Changes in their stored form, whose names, dtypes and shapes fit together.

    Nothing is decoded before it is asked for, since factors can be much shorter than their product.

    Attributes:
        shapes: name -> shape of its decoded change.
    """

    shapes: Mapping[str, tuple[int, ...]]
    _stored: Mapping[str, Tensor]
    _code: DeltaCode
    _factored: frozenset[str]
    _prefixed: bool

    @classmethod
    def read(
        cls, stored: Mapping[str, Tensor], code: DeltaCode, rank: int, what: str
    ) -> "StoredChanges":
        """Check stored tensors.

        Args:
            stored: tensors from `encode_changes`; not trusted.
            code: encoding of the values.
            rank: rank of matrices; 0 for full.
            what: name of the source, for the error message.

        Raises:
            FisherError: if the tensors do not fit the encoding or the rank.
        """
        parts = _part_shapes(stored, code, what)
        if not rank:
            return cls(parts, stored, code, frozenset(), False)
        shapes: dict[str, tuple[int, ...]] = {}
        factored: set[str] = set()
        for part, shape in parts.items():
            name = part.removeprefix(_WHOLE if part.startswith(_WHOLE) else _LEFT)
            if part.startswith(_RIGHT) and _LEFT + part.removeprefix(_RIGHT) in parts:
                continue
            if name == part or name in shapes:
                raise _misfit(part, what)
            if part.startswith(_LEFT):
                shape = _product_shape(name, shape, parts.get(_RIGHT + name), rank, what)
                factored.add(name)
            shapes[name] = shape
        return cls(shapes, stored, code, frozenset(factored), True)

    @torch.no_grad()
    def decode(self, name: str) -> Tensor:
        """Return a change: as stored for `full`, else in float32."""
        if name not in self._factored:
            return self._decoded(_WHOLE + name if self._prefixed else name)
        # In the blocks in which a large one is computed, as products of others may round otherwise.
        shape = self.shapes[name]
        blocks = [self.block(name, rows) for rows in row_blocks(shape)]
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)

    @torch.no_grad()
    def block(self, name: str, rows: slice) -> Tensor:
        """Return some rows of a change, which has rows; the others are not decoded."""
        if name not in self._factored:
            return self._decoded(_WHOLE + name if self._prefixed else name, rows)
        left, right = self._decoded(_LEFT + name, rows), self._decoded(_RIGHT + name)
        return (left @ right.flatten(1)).view(len(left), *self.shapes[name][1:])

    def values(self, names: Iterable[str]) -> LazyTensors:
        """Return some changes, each decoded when it is asked for."""
        return LazyTensors(names, self.decode, self.block, self.shapes)

    def _decoded(self, part: str, rows: slice | None = None) -> Tensor:
        if self._code == "full":
            return self._part(part, rows)
        if self._code == "bfloat16":
            return self._part(part, rows).float()
        codes, scales = self._part(_CODES + part, rows), self._stored[_SCALES + part]
        if not codes.numel():
            return codes.float()
        if rows is not None and codes.ndim > 1:
            scales = scales[rows]
        return codes.float().reshape(len(scales), -1).mul_(scales).view(codes.shape)

    def _part(self, part: str, rows: slice | None) -> Tensor:
        return self._stored[part] if rows is None else rows_of(self._stored, part, rows)


def _factors(name: str, value: Tensor, rank: int) -> dict[str, Tensor]:
    """Return the parts of a change: itself, or two factors if they have fewer values."""
    if not rank:
        return {name: value}
    rows = value.shape[0] if value.dim() > 1 else 0
    if not rows or rank * (rows + value[0].numel()) >= value.numel():
        return {_WHOLE + name: value}
    u, s, v = torch.linalg.svd(value.double().flatten(1), full_matrices=False)
    left, right = u[:, :rank], s[:rank, None] * v[:rank]
    # The sign of a pair of singular vectors is free: the largest value of the left one is positive.
    places = left.abs().argmax(0, keepdim=True)
    sign = left.gather(0, places).sign()
    dtype = torch.promote_types(value.dtype, torch.float32)
    right = (right * sign.T).view(rank, *value.shape[1:])
    return {_LEFT + name: (left * sign).to(dtype), _RIGHT + name: right.to(dtype)}


def _encoded(part: str, value: Tensor, code: DeltaCode) -> dict[str, Tensor]:
    if code == "full":
        return {part: value}
    if code == "bfloat16":
        return {part: value.bfloat16()}
    rows = _rows(value.shape)
    if not value.numel():
        return {
            _CODES + part: torch.zeros(value.shape, dtype=torch.int8, device=value.device),
            _SCALES + part: torch.zeros(rows, 1, device=value.device),
        }
    flat = value.reshape(rows, -1).double()
    scales = (flat.abs().amax(1, keepdim=True) / _STEPS).float()
    # In a row without a scale, values are 0, or less than any float32 can step by.
    steps = scales.double().masked_fill(scales == 0, torch.inf)
    codes = (flat / steps).round_().clamp_(-_STEPS, _STEPS)
    return {_CODES + part: codes.to(torch.int8).view(value.shape), _SCALES + part: scales}


def _part_shapes(
    stored: Mapping[str, Tensor], code: DeltaCode, what: str
) -> dict[str, tuple[int, ...]]:
    """Return part -> its shape, of tensors that fit the encoding."""
    if code != "int8":
        for name, value in stored.items():
            if value.dtype not in (_DTYPES if code == "full" else (torch.bfloat16,)):
                known = "float64, float32, float16 or bfloat16" if code == "full" else "bfloat16"
                raise FisherError(
                    f"Expected {known} for {shown(name)} in {what}, for its encoding {code}, but "
                    f"got {value.dtype}."
                )
        return {name: tuple(value.shape) for name, value in stored.items()}
    names = [name.removeprefix(_CODES) for name in stored if name.startswith(_CODES)]
    expected = {prefix + name for name in names for prefix in (_CODES, _SCALES)}
    if expected != stored.keys():
        raise FisherError(
            f"Expected codes and scales for each part of {what}, for its encoding int8, but got "
            f"{shown(min(expected ^ stored.keys()))} alone or unexpected."
        )
    for name in names:
        _check_codes(name, stored[_CODES + name], stored[_SCALES + name], what)
    return {name: tuple(stored[_CODES + name].shape) for name in names}


def _check_codes(name: str, codes: Tensor, scales: Tensor, what: str) -> None:
    rows = _rows(codes.shape)
    if codes.dtype != torch.int8 or scales.dtype != torch.float32 or scales.shape != (rows, 1):
        raise FisherError(
            f"Expected codes in int8 and scales [{rows}, 1] in float32 for {shown(name)} in "
            f"{what}, but got {codes.dtype} and {list(scales.shape)} in {scales.dtype}."
        )
    if not (torch.isfinite(scales).all() and (scales >= 0).all()):
        raise FisherError(
            f"Expected finite scales >= 0 for {shown(name)} in {what}, but got others."
        )


def _product_shape(
    name: str, left: tuple[int, ...], right: tuple[int, ...] | None, rank: int, what: str
) -> tuple[int, ...]:
    """Return the shape of the product of two factors that fit together."""
    if right is None:
        raise _misfit(_LEFT + name, what)
    if len(left) != 2 or len(right) < 2 or left[1] != right[0] or not 1 <= left[1] <= rank:
        raise FisherError(
            f"Expected factors [rows, k] and [k, ...] with k from 1 to {rank} for {shown(name)} in "
            f"{what}, but got {list(left)} and {list(right)}."
        )
    return (left[0], *right[1:])


def _misfit(part: str, what: str) -> FisherError:
    return FisherError(
        f"Expected each change in {what} whole, or as a left and a right factor, for its rank, but "
        f"got {shown(part)} alone, twice or unexpected."
    )


def _rows(shape: torch.Size) -> int:
    return shape[0] if len(shape) > 1 else 1
