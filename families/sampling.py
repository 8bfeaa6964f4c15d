"""Samples of weights in files: the same places of every model, as numbers, without torch.

Two models with the same tensors are compared at some 16,000 places, which takes as long for a large
model as for a small one.  Copies that bitsandbytes quantised are sampled as the numbers that their
integers mean, so that they can be compared with their originals.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinherit.common.errors import DataError
from disinherit.common.limits import shown
from disinherit.common.text import one_line
from disinherit.families.reading import table_of
from disinherit.families.weights import Place, tensor_places

Numbers = NDArray[np.float32]

MOST = 16_384
"""Most places of a model that are looked at, about."""

MOST_SIDE = 256
"""Most rows, and most columns, of a matrix that is looked at closer."""

_LEAST = 64
_TYPES = {
    "float64": "<f8",
    "float32": "<f4",
    "float16": "<f2",
    "bfloat16": "<u2",
    "int8": "i1",
    "uint8": "u1",
}
_NF4 = ".quant_state.bitsandbytes__nf4"


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """What is looked at of a model.

    Attributes:
        name: name of the model.
        places: name of each tensor in its files -> where it is.
        structure: digest over names and shapes of its tensors; equal for a quantised copy.
        values: the values, `[n]`.
        parts: name of each tensor -> where its values are.
        dtypes: dtypes of its tensors.
        cells: name of each quantised tensor -> the least and the largest numbers that its values
            stand for.
    """

    name: str
    places: Mapping[str, Place]
    structure: str
    values: Numbers
    parts: Mapping[str, slice]
    dtypes: frozenset[str]
    cells: Mapping[str, tuple[Numbers, Numbers]]

    @property
    def quantised(self) -> bool:
        """Whether some tensors are integers or blocks of them."""
        return bool(self.cells)


def sample(name: str, paths: Sequence[Path]) -> Sample:
    """Look at the weights of a model.

    Args:
        name: name of the model.
        paths: its safetensors files.

    Raises:
        DataError: if a file cannot be read or is malformed, has no tensor of floats, values that
            are not finite, or quantised tensors that are not described as bitsandbytes does it.
    """
    try:
        return _sample(name, paths)
    except DataError:
        raise
    except (LookupError, TypeError, ValueError) as error:
        reason = one_line(f"{type(error).__name__} {error}", 200)
        raise DataError(
            f"Expected quantised tensors as bitsandbytes writes them in {name}, but got {reason}."
        ) from None


def _sample(name: str, paths: Sequence[Path]) -> Sample:
    places = {place.name: place for path in paths for place in tensor_places(path)}
    shapes = {one: shape for one in places if (shape := _shape(one, places)) is not None}
    total = sum(math.prod(shape) for shape in shapes.values())
    if not total:
        raise DataError(f"Expected tensors of floating-point values in {name}, but got none.")
    parts: dict[str, slice] = {}
    cells: dict[str, tuple[Numbers, Numbers]] = {}
    found: list[Numbers] = []
    at = 0
    for one, shape in sorted(shapes.items()):
        size = math.prod(shape)
        count = min(size, max(_LEAST, MOST * size // total))
        chosen = _spread(size, count)
        values = _values(one, places, chosen)
        if _quantised(one, places):
            cells[one] = _cells(one, places, chosen)
        if not np.isfinite(values).all():
            raise DataError(
                f"Expected finite values in {name}, but {shown(one)} has others. Such a model is "
                "like no other: leave it out, or take a version of before."
            )
        parts[one] = slice(at, at + count)
        found.append(values)
        at += count
    text = json.dumps([[one, list(shape)] for one, shape in sorted(shapes.items())])
    return Sample(
        name,
        places,
        hashlib.sha256(text.encode()).hexdigest(),
        np.concatenate(found),
        parts,
        frozenset(places[one].dtype for one in shapes),
        cells,
    )


def matrix(sampled: Sample, name: str) -> Numbers:
    """Return some rows of a tensor, at some columns, evenly spread.

    All of them, up to `MOST_SIDE` of each: what is looked at does not grow with the model.  A part
    of a matrix has at most its rank, and of a matrix of low rank mostly just that.  All dimensions
    after the first are columns, as in a convolution.

    Raises:
        DataError: if it has fewer than two dimensions.
    """
    places = sampled.places
    shape = _shape(name, places)
    if shape is None or len(shape) < 2:
        raise DataError(f"Expected a matrix, but got {name!r} with {shape}.")
    sides = shape[0], math.prod(shape[1:])
    rows, columns = (_spread(side, min(side, MOST_SIDE)) for side in sides)
    at = (rows[:, None] * sides[1] + columns).reshape(-1)
    return _values(name, places, at).reshape(len(rows), len(columns))


def _spread(size: int, count: int) -> NDArray[np.int64]:
    """Return so many places of a row of some size, evenly spread."""
    return np.arange(count, dtype=np.int64) * size // max(count, 1)


def _shape(name: str, places: Mapping[str, Place]) -> tuple[int, ...] | None:
    """Return the shape of a tensor of numbers; `None` for what describes a quantised one."""
    place = places[name]
    if f"{name}{_NF4}" in places:
        shape = _described(name, places).get("shape")
        if not isinstance(shape, list) or math.prod(shape) != 2 * math.prod(place.shape):
            raise DataError(
                f"Expected the shape of {name!r} in its description, but got {shape!r}."
            )
        return tuple(int(one) for one in shape)
    if _scales(name) in places and place.dtype == "int8":
        return place.shape
    parent = name.rpartition(".")[0]  # of what describes a quantised tensor
    if name.endswith(".SCB") or f"{parent}{_NF4}" in places:
        return None
    if place.dtype not in _TYPES or place.dtype in ("int8", "uint8"):
        return None
    return place.shape


def _quantised(name: str, places: Mapping[str, Place]) -> bool:
    return places[name].dtype in ("int8", "uint8")


def _scales(name: str) -> str:
    return f"{name.removesuffix('weight')}SCB"


def _values(name: str, places: Mapping[str, Place], at: NDArray[np.int64]) -> Numbers:
    """Return the values of a tensor at some places, counted in row-major order."""
    place = places[name]
    if place.dtype == "uint8":
        codes, levels, highest, _ = _blocks(name, places, at)
        return np.asarray(levels[codes] * highest, dtype=np.float32)
    values = _read(place)[at]
    if place.dtype == "int8":
        return np.asarray(values * _steps(name, places, at), dtype=np.float32)
    if place.dtype == "bfloat16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(values, dtype=np.float32)


def _cells(
    name: str, places: Mapping[str, Place], at: NDArray[np.int64]
) -> tuple[Numbers, Numbers]:
    """Return the least and the largest numbers that a quantised tensor's values stand for."""
    if places[name].dtype == "int8":
        values, halves = _read(places[name])[at], _steps(name, places, at) / 2
        middles = values * (2 * halves)
        return np.asarray(middles - halves), np.asarray(middles + halves)
    codes, levels, highest, error = _blocks(name, places, at)
    if (np.diff(levels) <= 0).any():
        raise ValueError(f"levels of {name!r} that do not rise")
    middles = (levels[1:] + levels[:-1]) / 2
    low = np.append(levels[0], middles)[codes]
    high = np.append(middles, levels[-1])[codes]
    return (
        np.asarray(low * highest - np.abs(low) * error),
        np.asarray(high * highest + np.abs(high) * error),
    )


def _steps(name: str, places: Mapping[str, Place], at: NDArray[np.int64]) -> Numbers:
    """Return what one stands for in a tensor of 8-bit integers: the scale of the row over 127."""
    place, rows = places[name], _read(places[_scales(name)])
    if not place.shape or len(rows) != place.shape[0]:
        raise ValueError(f"{len(rows)} scales of {name!r} with {list(place.shape)}")
    columns = math.prod(place.shape[1:])
    return np.asarray(rows[at // columns] / np.float32(127), dtype=np.float32)


def _blocks(
    name: str, places: Mapping[str, Place], at: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], Numbers, Numbers, Numbers]:
    """Return what values in blocks of 4 bits are made of.

    Returns:
        Their codes, what each code means, the largest value of the block of each, and the error of
        that, where it is quantised, too.
    """
    place = places[name]
    packed = _read(place)[at // 2]
    codes = np.where(at % 2 == 0, packed >> 4, packed & 15)
    levels, highest = _read(places[f"{name}.quant_map"]), _read(places[f"{name}.absmax"])
    block = at // (2 * math.prod(place.shape) // max(len(highest), 1))
    if highest.dtype != np.uint8:
        largest = np.asarray(highest[block], dtype=np.float32)
        return codes, levels, largest, np.zeros_like(largest)
    described = _described(name, places)
    outer = _read(places[f"{name}.nested_absmax"])[block // int(described["nested_blocksize"])]
    inner = np.asarray(_read(places[f"{name}.nested_quant_map"]), dtype=np.float32)
    largest = inner[highest[block]] * outer + np.float32(described["nested_offset"])
    return codes, levels, np.asarray(largest), np.asarray(outer * np.diff(inner).max() / 2)


def _described(name: str, places: Mapping[str, Place]) -> Mapping[str, Any]:
    """Return what bitsandbytes says of a tensor in blocks of 4 bits."""
    return table_of(json.loads(bytes(_read(places[f"{name}{_NF4}"]))))


def _read(place: Place) -> NDArray[Any]:
    """Return a tensor as it is in its file, flat; only what is used is read."""
    size = math.prod(place.shape)
    if not size:
        return np.zeros(0, _TYPES[place.dtype])
    return np.memmap(place.path, _TYPES[place.dtype], "r", place.offset, (size,))
