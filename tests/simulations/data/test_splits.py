import hashlib
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from disinherit.common.errors import DataError
from disinherit.simulations.data.datasets import Dataset
from disinherit.simulations.data.splits import Splits, index_digest, make_splits


def pool(targets: list[int], classes: int, official: range | None = None) -> Dataset:
    return Dataset(
        "pool",
        torch.zeros(len(targets), 1, 1, 1),
        torch.tensor(targets),
        tuple(f"class {index}" for index in range(classes)),
        official_evaluation=official,
    )


@st.composite
def pools(draw: st.DrawFn) -> Dataset:
    counts = draw(st.lists(st.integers(5, 40), min_size=2, max_size=5))
    targets = [target for target, count in enumerate(counts) for _ in range(count)]
    official = draw(st.integers(0, 5))
    surplus = draw(st.lists(st.integers(0, len(counts) - 1), min_size=official, max_size=official))
    held = range(len(targets), len(targets) + official) if official else None
    return pool(draw(st.permutations(targets)) + surplus, len(counts), held)


@settings(max_examples=50, deadline=None)
@given(pools(), st.integers(0, 2**40), st.floats(0.01, 0.4), st.floats(0.01, 0.4))
def test_splits_are_disjoint_covering_stratified_and_deterministic(
    dataset: Dataset, seed: int, tuning: float, evaluation: float
) -> None:
    splits = make_splits(dataset, seed, tuning, evaluation)
    again = make_splits(dataset, seed, tuning, evaluation)

    together = torch.cat((splits.train, splits.tuning, splits.evaluation))
    assert together.sort().values.tolist() == list(range(len(dataset.targets)))
    assert torch.equal(splits.train, again.train)
    assert torch.equal(splits.tuning, again.tuning)
    assert torch.equal(splits.evaluation, again.evaluation)

    official = dataset.official_evaluation
    free = dataset.targets[: official.start] if official else dataset.targets
    classes = len(dataset.classes)
    counts = free.bincount(minlength=classes)
    assert (dataset.targets[splits.train].bincount(minlength=classes) > 0).all()
    tuned = dataset.targets[splits.tuning].bincount(minlength=classes)
    assert ((tuned - tuning * counts).abs() <= 1).all()
    assert (tuned > 0).all()
    if official:
        assert sorted(splits.evaluation.tolist()) == list(official)
    else:
        evaluated = dataset.targets[splits.evaluation].bincount(minlength=classes)
        assert ((evaluated - evaluation * counts).abs() <= 1).all()
        assert (evaluated > 0).all()


def test_another_seed_gives_other_splits() -> None:
    dataset = pool([0, 1] * 50, 2)

    one, other = make_splits(dataset, seed=1), make_splits(dataset, seed=2)

    assert one.digest("train") != other.digest("train")
    assert one.digest("evaluation") != other.digest("evaluation")


def test_sorted_pool_is_shuffled() -> None:
    dataset = pool([0] * 50 + [1] * 50, 2)

    targets = dataset.targets[make_splits(dataset, seed=0).train]

    assert 1 in targets[:20]
    assert 0 in targets[-20:]


def test_limit_applies_to_training_samples_of_each_class() -> None:
    dataset = pool([0] * 50 + [1] * 20, 2)

    full, limited = make_splits(dataset, seed=0), make_splits(dataset, seed=0, limit=15)

    assert dataset.targets[limited.train].bincount().tolist() == [15, 14]
    assert set(limited.train.tolist()) < set(full.train.tolist())
    assert limited.digest("evaluation") == full.digest("evaluation")
    assert limited.digest("tuning") == full.digest("tuning")


def test_tuning_can_be_left_out() -> None:
    splits = make_splits(pool([0, 1] * 10, 2), seed=0, tuning=0)

    assert (len(splits.tuning), len(splits.train)) == (0, 16)
    assert splits.tuning.dtype == torch.int64


@pytest.mark.parametrize(
    ("tuning", "evaluation", "message"),
    [
        (-0.1, 0.2, "tuning share"),
        (0.1, 1.0, "evaluation share"),
        (float("nan"), 0.2, "tuning share"),
        (0.5, 0.5, "class 'class 0'"),
    ],
)
def test_shares_out_of_range_are_refused(tuning: float, evaluation: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_splits(pool([0, 1] * 10, 2), 0, tuning, evaluation)


def test_class_with_too_few_samples_is_refused() -> None:
    with pytest.raises(DataError, match=r"class 'class 1'.*but got 2"):
        make_splits(pool([0] * 10 + [1] * 2, 2), seed=0)


def test_class_that_is_only_in_the_official_evaluation_is_refused() -> None:
    with pytest.raises(DataError, match=r"class 'class 1'.*but got 0"):
        make_splits(pool([0] * 10 + [1] * 10, 2, range(10, 20)), seed=0)


def test_official_evaluation_makes_its_share_irrelevant() -> None:
    dataset = pool([0, 1] * 10 + [0, 1], 2, range(20, 22))

    assert make_splits(dataset, 0, evaluation=7.0).digest("evaluation") == index_digest(
        torch.tensor([20, 21])
    )


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(DataError, match="limit"):
        make_splits(pool([0, 1] * 10, 2), 0, limit=limit)


def test_negative_seed_is_refused() -> None:
    with pytest.raises(DataError, match="seed"):
        make_splits(pool([0, 1] * 10, 2), seed=-1)


@pytest.mark.parametrize(
    ("train", "tuning", "evaluation", "message"),
    [
        ([0, 1, 2], [2, 3], [4], "1 samples in both 'train' and 'tuning', such as 2"),
        ([0, 1], [2], [0, 1], "2 samples in both 'train' and 'evaluation', such as 0"),
        ([0], [1, 2], [2], "both 'tuning' and 'evaluation'"),
        ([0, 0], [1], [2], "split 'train', but got 1 repeated"),
    ],
)
def test_overlap_is_refused(
    train: list[int], tuning: list[int], evaluation: list[int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Splits(torch.tensor(train), torch.tensor(tuning), torch.tensor(evaluation))


@given(st.lists(st.integers(0, 2**40), unique=True, max_size=20), st.randoms())
def test_digest_is_of_the_set_whatever_the_order(indices: list[int], random: object) -> None:
    shuffled = list(indices)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    naive = hashlib.sha256(b"".join(struct.pack("<q", index) for index in sorted(indices)))

    assert index_digest(torch.tensor(shuffled, dtype=torch.int64)) == naive.hexdigest()
    assert index_digest(torch.tensor([*indices, 2**41])) != naive.hexdigest()
