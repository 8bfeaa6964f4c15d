"""Disjoint splits of a data set's pool, stratified and recorded by digest."""

import hashlib
import math
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from disinherit.common.errors import DataError
from disinherit.simulations.data.datasets import Dataset

SplitName = Literal["train", "tuning", "evaluation"]

_Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """What each sample of a pool is used for.

    Attributes:
        train: indices `[n]` of the samples models and Fisher summaries are made from.
        tuning: indices of the samples alpha, lambda and gauge are chosen on.
        evaluation: indices of the samples that figures are reported on.

    Raises:
        DataError: if the splits are not disjoint.
    """

    train: Tensor
    tuning: Tensor
    evaluation: Tensor

    def __post_init__(self) -> None:
        self.check_disjoint()

    def digest(self, split: SplitName) -> str:
        """Return the digest of one split; see `index_digest`."""
        indices: Tensor = getattr(self, split)
        return index_digest(indices)

    def check_disjoint(self) -> None:
        """Check that no sample occurs twice, in one split or in two.

        Raises:
            DataError: if one does.
        """
        sets: dict[str, set[int]] = {}
        for name in ("train", "tuning", "evaluation"):
            indices: Tensor = getattr(self, name)
            sets[name] = set(indices.tolist())
            if len(sets[name]) != len(indices):
                raise DataError(
                    f"Expected distinct indices in split {name!r}, but got "
                    f"{len(indices) - len(sets[name])} repeated."
                )
        for one, other in combinations(sets, 2):
            common = sets[one] & sets[other]
            if common:
                raise DataError(
                    f"Expected disjoint splits, but got {len(common)} samples in both {one!r} and "
                    f"{other!r}, such as {min(common)}."
                )


def index_digest(indices: Tensor) -> str:
    """Return the SHA-256 over sorted indices as little-endian int64, whatever their order.

    Example:
        >>> index_digest(torch.tensor([2, 1])) == index_digest(torch.tensor([1, 2]))
        True
    """
    ordered = indices.to("cpu", torch.int64).sort().values
    return hashlib.sha256(ordered.numpy().astype("<i8").tobytes()).hexdigest()


def make_splits(
    dataset: Dataset,
    seed: int,
    tuning: float = 0.1,
    evaluation: float = 0.2,
    limit: int | None = None,
) -> Splits:
    """Split a data set, class by class in the same proportions.

    Args:
        dataset: its official evaluation samples, where it has some, are the evaluation split.
        seed: same seed, same splits.
        tuning: share of each class for tuning; of what the official evaluation leaves.
        evaluation: share of each class for evaluation; unused where there is an official one.
        limit: most training samples per class, for quick demonstrations; `None` for all.

    Returns:
        Splits in shuffled order. Each class has at least one sample in each split that has a
        share, and is within one sample of the share.

    Raises:
        DataError: if a share is outside [0, 1), if they leave nothing to train on, or if a class
            has too few samples.
    """
    official = dataset.official_evaluation
    shares = {"tuning": tuning, "evaluation": 0.0 if official else evaluation}
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise DataError(f"Expected a {name} share in [0, 1), but got {share}.")
    if limit is not None and limit < 1:
        raise DataError(f"Expected a limit of at least 1 sample per class, but got {limit}.")
    generator = seeded_generator(seed)
    held = np.arange(official.start, official.stop) if official else np.empty(0, np.int64)
    free = np.ones(len(dataset.targets), dtype=bool)
    free[held] = False
    targets = dataset.targets.numpy()
    parts: dict[str, list[_Indices]] = {"train": [], "tuning": [], "evaluation": [held]}
    for target, name in enumerate(dataset.classes):
        samples = generator.permutation(np.flatnonzero((targets == target) & free))
        first, second = (
            max(1, math.floor(share * len(samples))) if share else 0 for share in shares.values()
        )
        if first + second >= len(samples):
            raise DataError(
                f"Expected enough samples of class {name!r} in data set {dataset.name!r} for "
                f"training besides {first} for tuning and {second} for evaluation, but got "
                f"{len(samples)}. Lower the shares or leave the class out."
            )
        parts["tuning"].append(samples[:first])
        parts["evaluation"].append(samples[first : first + second])
        parts["train"].append(samples[first + second :][:limit])
    return Splits(
        **{
            name: torch.from_numpy(generator.permutation(np.concatenate(part)))
            for name, part in parts.items()
        }
    )


def seeded_generator(seed: int) -> np.random.Generator:
    """Return a generator of its own for a seed.

    Raises:
        DataError: if the seed is negative.
    """
    if seed < 0:
        raise DataError(f"Expected a seed >= 0, but got {seed}.")
    return np.random.default_rng(seed)
