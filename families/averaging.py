"""Which of models that lie on one line, or in one plane, was computed from the others.

If a model is the average of two others, each of these is as well a sum of the other two: a model
moved twice as far lies on a line with its base and the model that was moved once.  Rounding tells
them apart: what was computed can be computed again, value for value, and what it was computed from
cannot, as the error of rounding is in the result only.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import permutations
from math import lcm

import numpy as np
from numpy.typing import NDArray

from disinherit.families.rounding import LEAST, rounded
from disinherit.families.sampling import Numbers, Sample

_AGAIN = 0.999  # of the values are equal if it was computed so
_NOT_SO = 0.9  # of the values are equal at most if it was not
_NEAR = {"float32": 1e-6, "bfloat16": 1e-3, "float16": 2e-4}
"""Dtype -> how far a weight may be from a plain one, as people choose, that it is taken for."""

_PLAIN = 100
_SUMS = tuple(Fraction(tenths, 10) for tenths in range(1, 31) if tenths != 10)
_FACTORS = (1, 3, 5, 7)  # that numbers of samples may have in common; two changes no value
_SAMPLES, _EXACTLY = 100_000, 3e-8
"""Of clients of a federation together, at most; and how near their shares are in float32."""


def was_computed(child: Sample, parents: Sequence[Sample], given: Sequence[bool]) -> bool:
    """Whether an average was computed from its parents, and none of these from the others.

    Args:
        child: the model between the others.
        parents: the others.
        given: for each parent, whether a person says that it was computed from none.
    """
    if all(given):
        return True
    points = (child, *parents)
    if any(one.quantised or len(one.dtypes) > 1 for one in points):
        return False
    rows = np.stack([one.values for one in points])
    moved = rows[:, (rows != rows[0]).any(0)]
    if moved.shape[1] < LEAST:
        return False
    kinds = [_kind(one) for one in moved]
    weights = _weights(moved[0], moved[1:], _NEAR[kinds[0]])
    if _equal(moved[0], moved[1:], weights, kinds[0]) < _AGAIN:
        return False
    for at, known in enumerate(given):
        # Had a parent been rounded to a shorter dtype, the child would not be equal in its own.
        if not known and not _NEAR[kinds[at + 1]] > _NEAR[kinds[0]]:
            others = [0, *(place for place in range(1, len(rows)) if place != at + 1)]
            back = [1 / weights[at], *(-weights[one - 1] / weights[at] for one in others[1:])]
            if _equal(moved[at + 1], moved[others], back, kinds[at + 1]) > _NOT_SO:
                return False
    return True


def _kind(values: Numbers) -> str:
    """Return the shortest dtype that holds values as they are."""
    short = ("bfloat16", "float16")
    return next((one for one in short if np.array_equal(rounded(values, one), values)), "float32")


def _weights(child: Numbers, parents: NDArray[np.float32], near: float) -> list[Fraction]:
    """Return the weights of parents, plain ones where they are so near that people chose them."""
    wide = parents.astype(np.float64)
    steps = (wide[:-1] - wide[-1]).T
    found, *_ = np.linalg.lstsq(steps, child - wide[-1], rcond=None)
    exact = [float(one) for one in found]
    exact.append(1 - sum(exact))
    for most, off in ((_PLAIN, near), (_SAMPLES, min(near, _EXACTLY))):
        wholes = np.arange(1, most + 1)
        counts = np.outer(exact, wholes)
        fits = (np.abs(counts - counts.round()) <= off * wholes).all(0)
        fits &= counts.round().sum(0) == wholes
        if fits.any():
            at = int(fits.argmax())
            return [Fraction(int(one), at + 1) for one in counts[:, at].round()]
    return [Fraction(one) for one in exact]


def _equal(
    wanted: Numbers, others: NDArray[np.float32], weights: Sequence[Fraction], dtype: str
) -> float:
    """Return the share of values that are equal if a model is computed, in the best way of all."""
    return max(
        float((rounded(made, dtype) == wanted).mean()) for made in _ways(others, weights, dtype)
    )


def _ways(
    others: NDArray[np.float32], weights: Sequence[Fraction], dtype: str
) -> Iterator[Numbers]:
    """Yield a sum of models, in each way in which programs compute it."""
    numbers = [float(one) for one in weights]
    exact = sum(
        number * one for number, one in zip(numbers, others.astype(np.float64), strict=True)
    )
    yield np.asarray(exact, dtype=np.float32)
    short = [np.float32(number) for number in numbers]
    whole = lcm(*(one.denominator for one in weights))
    loaded = rounded(others, dtype)
    written = list(_written(weights))
    for order in permutations(range(len(others))):
        yield _sum(others, short, order, "float32")
        for factor in _FACTORS:
            counts = [np.float32(int(one * whole) * factor) for one in weights]
            yield _sum(others, counts, order, "float32") / np.float32(whole * factor)
        for listed in written:
            total = np.float32(0)
            for one in order:
                total += listed[one]
            yield _sum(others, listed, order, "float32") / total
        if dtype != "float32":
            yield _sum(loaded, short, order, "float32")
            yield _sum(loaded, short, order, dtype)
    if len(others) == 2:
        for one, other in ((0, 1), (1, 0)):
            step = others[other] - others[one]
            for weight in (short[other], np.float32(1) - short[one]):
                yield others[one] + weight * step
                fused = others[one] + np.float64(weight) * step.astype(np.float64)  # rounded once
                yield np.asarray(fused, dtype=np.float32)


def _written(weights: Sequence[Fraction]) -> Iterator[list[np.float32]]:
    """Yield weights as people may have written them, to be divided by their sum."""
    for total in _SUMS:
        listed = [one * total for one in weights]
        if all(20 % one.denominator == 0 for one in listed):
            yield [np.float32(float(one)) for one in listed]


def _sum(
    others: NDArray[np.float32], weights: Sequence[np.float32], order: Sequence[int], dtype: str
) -> Numbers:
    total = rounded(weights[order[0]] * others[order[0]], dtype)
    for one in order[1:]:
        total = rounded(total + rounded(weights[one] * others[one], dtype), dtype)
    return total
