"""Encodings of Fisher values: as computed, in fewer bits, or factored.

Dampening compares Fishers by their ratios, which span many orders of magnitude.  So the *relative*
error matters, and `bfloat16` and `log8` bound it:

`bfloat16`
    8 bits of precision: at most 2⁻⁸ = 0.4%.  It reaches from 2⁻¹²⁶ to 3.39e38; larger values become
    the largest, smaller ones are less precise, and zero below 2⁻¹³⁴.
`log8`
    For each row r of a tensor (its first dimension; a vector is one row), with the largest value
    M_r, the smallest positive value m_r, and l_r = max(log₂ m_r, log₂ M_r - 32)::

        code = 0                                       for x = 0, or x < 2^(l_r - step_r / 2)
        code = 1 + round((log₂ x - l_r) / step_r)      else, with step_r = (log₂ M_r - l_r) / 254
        x    = 2^(l_r + (code - 1) step_r)

    At most 2^(step_r / 2) - 1: 4.5% for a row that spans 32 powers of two, 0.9% for one that spans
    six, also beyond the range of float32.  Values below 2⁻³² of the largest value of their row
    become zero, which selects nothing.
`factored`
    Of a matrix outside of the head, the sums of its rows and of its columns
    (`disinherit.common.fisher.factors`), in float32; vectors and the head as they are.  Several
    matrices stand for their largest values element by element: `rows [K, o]`, `columns [K, *rest]`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from disinherit.common.encodings import Encoding
from disinherit.common.errors import FisherError

_CODES, _SCALES = "codes.", "scales."
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""Dtypes of values stored as computed: torch has other floats, and adds some, in which it cannot
compute."""

_STEPS = 254
_SPAN = 32.0
_NORMAL = 126.0  # powers of two in full float32 precision, besides 2^0.99


@torch.no_grad()
def encode_values(values: Mapping[str, Tensor], encoding: Encoding) -> dict[str, Tensor]:
    """Return the stored form of Fisher values.

    Args:
        values: parameter name -> floating-point tensor, finite and >= 0.
        encoding: encoding of the values; not `factored` (`disinherit.common.wire.factored`).

    Returns:
        Tensors by name; for `log8`, two for each parameter: codes in uint8 of its shape, and per
        row l_r and step_r in float32, `[rows, 2]`.
    """
    if encoding is Encoding.FULL:
        return dict(values)
    if encoding is Encoding.BFLOAT16:
        # Rounding up beyond the largest bfloat16 would give infinity.
        largest = torch.finfo(torch.bfloat16).max
        return {
            name: _widened(value).clamp(max=largest).bfloat16() for name, value in values.items()
        }
    stored = {}
    for name, value in values.items():
        stored[_CODES + name], stored[_SCALES + name] = _to_codes(value)
    return stored


@torch.no_grad()
def decode_values(stored: Mapping[str, Tensor], encoding: Encoding, what: str) -> dict[str, Tensor]:
    """Return the Fisher values of stored tensors.

    Args:
        stored: tensors from `encode_values`; not trusted.
        encoding: encoding of the values; not `factored`.
        what: name of the source, for the error message.

    Returns:
        Parameter name -> tensor: unchanged for `full`; else in float32, or in float64 where `log8`
        codes exceed its range.

    Raises:
        FisherError: if the tensors do not fit the encoding.
    """
    if encoding is not Encoding.LOG8:
        full = encoding is Encoding.FULL
        allowed = _DTYPES if full else (torch.bfloat16,)
        for name, value in stored.items():
            if value.dtype not in allowed:
                known = "float64, float32, float16 or bfloat16" if full else "bfloat16"
                raise FisherError(
                    f"Expected {known} for {name!r} in {what}, for its encoding {encoding.value}, "
                    f"but got {value.dtype}."
                )
        return dict(stored) if full else {name: value.float() for name, value in stored.items()}
    names = [name.removeprefix(_CODES) for name in stored if name.startswith(_CODES)]
    expected = {prefix + name for name in names for prefix in (_CODES, _SCALES)}
    if expected != stored.keys():
        raise FisherError(
            f"Expected codes and scales for each parameter in {what}, for its encoding log8, "
            f"but got {sorted(expected ^ stored.keys())[0]!r} alone or unexpected."
        )
    return {
        name: _from_codes(name, stored[_CODES + name], stored[_SCALES + name], what)
        for name in names
    }


def _widened(value: Tensor) -> Tensor:
    """Return values in float32 or float64."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _rows(shape: torch.Size) -> int:
    return shape[0] if len(shape) > 1 else 1


def _to_codes(value: Tensor) -> tuple[Tensor, Tensor]:
    rows = _rows(value.shape)
    if not value.numel():
        empty = torch.zeros(rows, 2, dtype=torch.float32, device=value.device)
        return torch.zeros(value.shape, dtype=torch.uint8, device=value.device), empty
    logs = _widened(value).reshape(rows, -1).log2()
    zero = logs == -torch.inf
    high = logs.amax(1, keepdim=True)
    low = logs.masked_fill(zero, torch.inf).amin(1, keepdim=True)
    nothing = zero.all(1, keepdim=True)
    high = high.masked_fill(nothing, 0.0)
    low = torch.maximum(low.masked_fill(nothing, 0.0), high - _SPAN)
    step = (high - low) / _STEPS
    places = logs.sub_(low).div_(step.masked_fill(step == 0, 1.0))
    codes = places.round_().clamp_(max=_STEPS).add_(1).masked_fill_(zero, 0.0).clamp_(min=0.0)
    return codes.to(torch.uint8).view(value.shape), torch.cat([low, step], 1).float()


def _from_codes(name: str, codes: Tensor, scales: Tensor, what: str) -> Tensor:
    rows = _rows(codes.shape)
    if codes.dtype != torch.uint8 or scales.dtype != torch.float32 or scales.shape != (rows, 2):
        raise FisherError(
            f"Expected codes in uint8 and scales [{rows}, 2] in float32 for {name!r} in {what}, "
            f"but got {codes.dtype} and {list(scales.shape)} in {scales.dtype}."
        )
    low, step = scales[:, :1], scales[:, 1:]
    if not (torch.isfinite(scales).all() and (step >= 0).all()):
        raise FisherError(
            f"Expected finite scales, with steps >= 0, for {name!r} in {what}, but got others."
        )
    if not codes.numel():
        return torch.zeros(codes.shape, device=codes.device)
    flat = codes.reshape(rows, -1)
    reach = torch.cat([low, low + _STEPS * step])
    dtype = torch.float32 if reach.abs().max() < _NORMAL else torch.float64
    values = flat.to(dtype).sub_(1).mul_(step).add_(low).exp2_()
    return values.masked_fill_(flat == 0, 0.0).view(codes.shape)
