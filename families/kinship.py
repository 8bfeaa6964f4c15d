"""What the weights of two or three models say about descent: copies, averages, updates of low rank.

Each piece of evidence is a relation that hardly holds by chance, with the figure that shows it.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from disinherit.common.errors import DataError
from disinherit.families.sampling import Numbers, Sample, matrix

_EXACT = 1e-4  # of an average, relative to the distance of its parents
_ROUNDED = 0.3  # the same where it is rounded to a shorter dtype: no more, or nothing can be told
MORE_ZEROS = 0.02
"""Share of zeros that another model must have more, to say anything."""

_CAST = {"bfloat16": 2.0**-8, "float16": 2.0**-10}
"""Dtype -> largest error of a rounded value, relative to it."""

_ODD = 0.001  # of the values may be farther off
_TINY = 1e-7  # below which any error will do
_SCATTERED = 8  # different rows, and columns, at least
_LARGEST_RANK = 64
_LEFT = 1e-6  # of the energy of an update, outside its rank
_ABOVE_NOISE = 8  # times the energy of rounding, for the rank of an update to be told


def zeroed(child: Sample, parent: Sample) -> float:
    """Return the share of values that were set to zero in a model; 0 if others changed, too."""
    gone = (child.values == 0) & (parent.values != 0)
    same = child.values[~gone] == parent.values[~gone]
    share = float(gone.mean())
    return share if MORE_ZEROS < share < 1 and bool(same.all()) else 0.0


def is_scattered(child: Sample, parent: Sample) -> bool:
    """Whether what is zero in one model only is scattered over a tensor, as after pruning.

    Tensors, rows and columns that are zero as a whole, or blocks of them, may as well be what an
    initialisation left so, and the other model's were trained.
    """
    for name, part in child.parts.items():
        gone = (child.values[part] == 0) & (parent.values[part] != 0)
        if not gone.any():
            continue
        try:
            left, whole = matrix(child, name), matrix(parent, name)
        except DataError:  # no matrix
            continue
        zeros = (left == 0) & (whole != 0)
        if min(_patterns(zeros), _patterns(zeros.T)) >= _SCATTERED:
            return True
    return False


def _patterns(zeros: NDArray[np.bool_]) -> int:
    """Return the number of different rows that have zeros, but not only these."""
    mixed = zeros[zeros.any(1) & ~zeros.all(1)]
    return len(np.unique(np.packbits(mixed, axis=1), axis=0))


def unchanged(child: Sample, parent: Sample) -> float:
    """Return the share of tensors, by their size, that are equal in two models."""
    equal: int = sum(
        part.stop - part.start
        for part in child.parts.values()
        if np.array_equal(child.values[part], parent.values[part]) and child.values[part].any()
    )
    return equal / len(child.values)


def shares(child: Sample, others: Sequence[Sample]) -> tuple[tuple[Sample, float], ...]:
    """Return the two or three models that a model is the average of, with their shares.

    Args:
        child: the model.
        others: models that may be its parents, nearest first.

    Returns:
        Models and shares; nothing if it is no average of any of them.
    """
    error = _rounding(child)
    for count in (2, 3):
        for parents in combinations(others, count):
            last = parents[-1].values
            steps = np.stack([one.values - last for one in parents[:-1]], 1)
            wanted = child.values - last
            sizes = np.ones_like(last)
            if error is not None:  # the largest error of each value, by which it counts
                largest = np.max([np.abs(one.values) for one in (child, *parents)], axis=0)
                sizes = error * largest + np.float32(_TINY)
            found, *_ = np.linalg.lstsq(steps / sizes[:, None], wanted / sizes, rcond=None)
            weights = [*map(float, found), 1 - float(found.sum())]
            wrong = wanted - steps @ found
            if error is None:
                fits = _norm(wrong) <= _EXACT * min(_norm(step) for step in steps.T)
            else:
                nearest = min(_norm(child.values - one.values) for one in parents)
                few = float((np.abs(wrong) > sizes).mean()) < _ODD
                fits = few and _norm(wrong) <= _ROUNDED * nearest
            if min(weights) > 0.02 and fits:
                return tuple(zip(parents, weights, strict=True))
    return ()


def rank_of_update(child: Sample, parent: Sample) -> int:
    """Return the rank of what changed in the matrices that differ; 0 if it is not low.

    What rounding to the model's dtype adds does not count, and if that is much of what changed, no
    rank can be told.  Low is at most 64 and a quarter of the smaller side.  At most three matrices
    are looked at, and of a large one some rows and columns (`matrix`).
    """
    changed = [
        name
        for name, part in child.parts.items()
        if not np.array_equal(child.values[part], parent.values[part])
    ]
    ranks = []
    for name in changed[:3]:
        try:
            whole = matrix(child, name).astype(np.float64)
            update = whole - matrix(parent, name)
        except DataError:  # no matrix
            return 0
        if not np.isfinite(update).all() or not update.any():  # where the sample did not look
            return 0
        sizes = np.linalg.svd(update, compute_uv=False) ** 2
        # The error is even between minus and plus its largest, whose mean square is a third.
        noise = float((whole**2).sum()) * (_rounding(child) or 0.0) ** 2 / 3
        total = float(sizes.sum())
        left = total - np.cumsum(sizes)
        rank = int((left > max(_LEFT * total, noise)).sum()) + 1
        if total < _ABOVE_NOISE * noise or rank > min(_LARGEST_RANK, min(update.shape) // 4):
            return 0
        ranks.append(rank)
    return max(ranks, default=0)


def left_of_update(child: Sample, parent: Sample, start: Numbers) -> float:
    """Return how much of a model's update from a start is left in another: c of docs/method.md.

    It is 1 in a model that was fine-tuned from it, and about 0 in one that is only from the same
    start.
    """
    update = parent.values - start
    size = float(update @ update)
    return float((child.values - start) @ update) / size if size else 0.0


def _rounding(sampled: Sample) -> float | None:
    """Return the largest relative error of values in a model's dtype; `None` in a longer one."""
    return _CAST.get(next(iter(sampled.dtypes))) if len(sampled.dtypes) == 1 else None


def _norm(values: Numbers) -> float:
    return float(np.linalg.norm(values))
