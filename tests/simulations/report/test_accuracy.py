"""Accuracies against a count over single samples."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from disinherit.simulations.report.build import accuracy, evaluation

CLASSES = 4
answers = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)))
some_classes = st.sets(st.integers(0, CLASSES - 1))


def confusion_of(pairs: list[tuple[int, int]]) -> list[list[int]]:
    counts = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    for true, predicted in pairs:
        counts[true, predicted] += 1
    rows: list[list[int]] = counts.tolist()
    return rows


def counted(pairs: list[tuple[int, int]], classes: set[int]) -> float | None:
    right = [true == predicted for true, predicted in pairs if true in classes]
    return 100 * sum(right) / len(right) if right else None


@given(answers, some_classes)
def test_accuracy_is_the_share_of_right_answers(
    pairs: list[tuple[int, int]], classes: set[int]
) -> None:
    assert accuracy(confusion_of(pairs), classes) == pytest.approx(counted(pairs, classes))


@given(answers, some_classes, some_classes)
def test_forgotten_classes_are_not_retained_and_unknown_ones_count_nowhere(
    pairs: list[tuple[int, int]], forgotten: set[int], known: set[int]
) -> None:
    found = evaluation(confusion_of(pairs), forgotten, known)
    assert found["forget_accuracy"] == pytest.approx(counted(pairs, forgotten))
    assert found["retain_accuracy"] == pytest.approx(counted(pairs, known - forgotten))
    assert found["confusion"] == confusion_of(pairs)
