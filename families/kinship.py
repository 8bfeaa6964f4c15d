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
_LEAST_SHARE = 0.02
_FEW, _LOOSE = 512, 5  # places that are looked at first, and how much more may be left there
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
    most = _EXACT if error is None else _ROUNDED
    rows = np.stack([one.values for one in (child, *others)])
    few = rows[:, :: max(1, rows.shape[1] // _FEW)]
    for count in (2, 3):
        for places in combinations(range(1, len(rows)), count):
            chosen = [0, *places]
            if _fit(few[chosen], error)[1] > _LOOSE * most:  # as almost all are
                continue
            weights, left, odd = _fit(rows[chosen], error)
            if min(weights) > _LEAST_SHARE and left <= most and odd < _ODD:
                parents = [others[place - 1] for place in places]
                return tuple(zip(parents, weights, strict=True))
    return ()


def _fit(rows: Numbers, error: float | None) -> tuple[list[float], float, float]:
    """Return the weights by which the first row is most nearly the sum of the others.

    Args:
        rows: the child, and its parents.
        error: the largest relative error of a value of the child; `None` if it is not rounded.

    Returns:
        The weights; what is left of the child, relative to the least distance of a parent to the
        last, or to the child if it is rounded; and the share of values with more than their error.
    """
    child, last = rows[0], rows[-1]
    steps = (rows[1:-1] - last).T
    wanted = child - last
    sizes = np.ones_like(last)
    if error is not None:  # the largest error of each value, by which it counts
        sizes = error * np.abs(rows).max(axis=0) + np.float32(_TINY)
    found, *_ = np.linalg.lstsq(steps / sizes[:, None], wanted / sizes, rcond=None)
    weights = [*map(float, found), 1 - float(found.sum())]
    wrong = wanted - steps @ found
    near = rows[1:-1] - last if error is None else rows[1:] - child
    left = _norm(wrong) / max(float(np.finfo(np.float32).tiny), min(_norm(one) for one in near))
    odd = 0.0 if error is None else float((np.abs(wrong) > sizes).mean())
    return weights, left, odd


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
