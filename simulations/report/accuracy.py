"""Accuracies in percent from confusion counts."""

from collections.abc import Collection, Sequence

from disinherit.simulations.report.schema import Evaluation


def accuracy(confusion: Sequence[Sequence[int]], classes: Collection[int]) -> float | None:
    """Return the share of right answers on the samples of some classes.

    Args:
        confusion: counts `[C, C]`; row = true class, column = predicted class.
        classes: true classes to look at.

    Returns:
        Percent, 0 to 100; `None` if there is no sample of these classes.

    Example:
        >>> accuracy([[3, 1], [0, 4]], [0])
        75.0
    """
    samples = sum(sum(confusion[c]) for c in classes)
    return 100.0 * sum(confusion[c][c] for c in classes) / samples if samples else None


def evaluation(
    confusion: list[list[int]], forgotten: Collection[int], known: Collection[int]
) -> Evaluation:
    """Return forget and retain accuracy with the counts they come from.

    Args:
        confusion: counts `[C, C]`.
        forgotten: classes that the model is to forget.
        known: classes that the model or its ancestors were trained on; classes it never met count
            neither as forgotten nor as retained.
    """
    return {
        "forget_accuracy": accuracy(confusion, forgotten),
        "retain_accuracy": accuracy(confusion, [c for c in known if c not in forgotten]),
        "confusion": confusion,
    }
