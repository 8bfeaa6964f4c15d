"""What the weights of two or three models say about descent: copies, averages, updates of low rank.

Each piece of evidence is a relation that hardly holds by chance, with the figure that shows it.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from disinherit.common.errors import DataError
from disinherit.families.sampling import Numbers, Sample, matrix

SMALL_ERROR = 0.15
"""Largest error of a quantised copy, relative to its original; 4 bits make 0.07 to 0.1."""

_EXACT = 1e-4  # of an average, relative to the distance of its parents
_CAST = {"bfloat16": 2.0**-8, "float16": 2.0**-10}
_MORE_ZEROS = 0.02
_LARGEST_RANK = 64
_ENERGY = 1 - 1e-6


def is_cast(child: Sample, parent: Sample) -> bool:
    """Whether a model has the values of another, rounded to a shorter dtype."""
    if child.dtypes == parent.dtypes or len(child.dtypes) != 1:
        return False
    error = _CAST.get(next(iter(child.dtypes)))
    if error is None or child.quantised or parent.quantised:
        return False
    near = np.abs(child.values - parent.values) <= error * np.abs(parent.values) + 1e-7
    return bool(near.mean() > 0.999 and np.any(child.values != parent.values))


def zeroed(child: Sample, parent: Sample) -> float:
    """Return the share of values that were set to zero in a model; 0 if others changed, too."""
    gone = (child.values == 0) & (parent.values != 0)
    same = child.values[~gone] == parent.values[~gone]
    share = float(gone.mean())
    return share if share > _MORE_ZEROS and bool(same.all()) else 0.0


def unchanged(child: Sample, parent: Sample) -> float:
    """Return the share of tensors, by their size, that are equal in two models."""
    equal: int = sum(
        part.stop - part.start
        for part in child.parts.values()
        if np.array_equal(child.values[part], parent.values[part]) and child.values[part].any()
    )
    return equal / len(child.values)


def shares(child: Sample, others: Sequence[Sample]) -> tuple[tuple[str, float], ...]:
    """Return the two or three models that a model is the average of, with their shares.

    Args:
        child: the model.
        others: models that may be its parents, nearest first.

    Returns:
        Names and shares; nothing if it is no average of any of them.
    """
    for count in (2, 3):
        for parents in combinations(others, count):
            last = parents[-1].values
            steps = np.stack([one.values - last for one in parents[:-1]], 1)
            wanted = child.values - last
            found, *_ = np.linalg.lstsq(steps, wanted, rcond=None)
            weights = [*map(float, found), 1 - float(found.sum())]
            error = _norm(wanted - steps @ found)
            scale = min(_norm(step) for step in steps.T)
            if min(weights) > 0.02 and error <= _EXACT * scale:
                return tuple((one.name, w) for one, w in zip(parents, weights, strict=True))
    return ()


def rank_of_update(child: Sample, parent: Sample) -> int:
    """Return the rank of what changed in the matrices that differ; 0 if it is not low.

    Low is at most 64 and a quarter of the smaller side.  At most three matrices are looked at.
    """
    changed = [
        name
        for name, part in child.parts.items()
        if not np.array_equal(child.values[part], parent.values[part])
    ]
    ranks = []
    for name in changed[:3]:
        try:
            update = matrix(child, name).astype(np.float64) - matrix(parent, name)
        except DataError:  # no matrix
            return 0
        sizes = np.linalg.svd(update, compute_uv=False) ** 2
        total = sizes.sum()
        rank = int((np.cumsum(sizes) < _ENERGY * total).sum()) + 1
        if rank > min(_LARGEST_RANK, min(update.shape) // 4):
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


def _norm(values: Numbers) -> float:
    return float(np.linalg.norm(values))
