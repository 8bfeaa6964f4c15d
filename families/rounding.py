"""Whether a model is a rounded copy of another: in a shorter type, or in the integers of one.

A number in a file stands for all numbers that round to it, its cell.  A model is a rounded copy if
every value of the other lies in its cell, and if the errors fill the cells, as those of rounding
do.  A fine-tune that moved so little that it would round back to its base lies in the cells, too,
but in their middles.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from disinherit.families.sampling import Numbers, Sample

LEAST = 64
"""Values that must differ before anything is said of them: fewer may do so by chance."""

_DIGITS = {"bfloat16": 8, "float16": 11}
"""Short dtype -> binary digits of a value."""

_LEAST_FLOAT16 = 2.0**-24
_WAYS: tuple[tuple[str, ...], ...] = ((), ("bfloat16",), ("float16",), ("bfloat16", "float16"))
"""Dtypes in which values may have been loaded before they were rounded."""

_EDGE = 0.01  # of the half of a cell, for the arithmetic of those who round
_FILL = (0.35, 0.65)  # of the half of a cell, on average; one half if errors are even


def rounded(values: Numbers, dtype: str) -> Numbers:
    """Return values as they are in a dtype: to the nearest number, of two the even one."""
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    if dtype != "bfloat16":
        return values
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def rounded_to(child: Sample, parent: Sample) -> str:
    """Return what a model is a copy of another in; `""` if its weights do not show that.

    Example: `bfloat16`, or `integers`.
    """
    types: set[str] = set()
    fills: list[NDArray[np.float64]] = []
    for name, part in child.parts.items():
        found = _tensor(child, name, parent.values[part])
        if found is None:
            return ""
        told, fill = found
        types |= {told} - {""}
        fills.append(fill)
    filled = np.concatenate(fills)
    if len(filled) < LEAST or not _FILL[0] <= float(filled.mean()) <= _FILL[1]:
        return ""
    return "integers" if child.quantised else " and ".join(sorted(types))


def outside(child: Sample, parent: Sample) -> float:
    """Return the share of a quantised model's integers that are not those of another's values."""
    wrong, total = 0, 0
    for name, (low, high) in child.cells.items():
        values = parent.values[child.parts[name]]
        wrong += int((~_inside(values, low, high)).sum())
        total += len(values)
    return wrong / total if total else 0.0


def _tensor(child: Sample, name: str, values: Numbers) -> tuple[str, NDArray[np.float64]] | None:
    """Return what a tensor was rounded to, and how far its errors fill the cells.

    Returns:
        `None` if it is no rounded copy; `""` and nothing if it is equal.
    """
    got = child.values[child.parts[name]]
    dtype = child.places[name].dtype
    for way in _WAYS:
        if name in child.cells:
            low, high = child.cells[name]
            loaded = _loaded(values, way)
            if _inside(loaded, low, high).all():
                return "integers", _share(loaded - got, np.where(loaded > got, high, low) - got)
            continue
        steps = (*way, dtype)
        if not np.array_equal(_loaded(values[:LEAST], steps), got[:LEAST]):
            continue  # which most others are seen by
        if np.array_equal(_loaded(values, steps), got):
            short = [one for one in steps if one in _DIGITS]
            if not short or np.array_equal(values, got):
                return "", np.zeros(0)
            coarse = min(short, key=lambda one: _DIGITS[one])
            return coarse, _share(values - got, _half(got, coarse))
    return None


def _loaded(values: Numbers, steps: Sequence[str]) -> Numbers:
    for step in steps:
        values = rounded(values, step)
    return values


def _inside(values: Numbers, low: Numbers, high: Numbers) -> NDArray[np.bool_]:
    edge = _EDGE * (high - low) / 2
    return np.asarray((values >= low - edge) & (values <= high + edge))


def _half(values: Numbers, dtype: str) -> Numbers:
    """Return half the distance of values to their neighbours in a short dtype."""
    _, exponents = np.frexp(values)
    steps = np.ldexp(np.float32(1), exponents - _DIGITS[dtype])
    if dtype == "float16":
        steps = np.maximum(steps, np.float32(_LEAST_FLOAT16))
    return np.asarray(np.where(values == 0, 0, steps / 2), dtype=np.float32)


def _share(errors: Numbers, halves: Numbers) -> NDArray[np.float64]:
    """Return how far errors fill the halves of cells, where there are both."""
    told = (errors != 0) & (halves != 0)
    return np.asarray(np.abs(errors[told] / halves[told]), dtype=np.float64)
