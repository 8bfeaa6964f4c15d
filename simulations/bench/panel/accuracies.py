"""Accuracies in percent: of the forgotten, of the retained, of each class."""

import torch

from disinherit.common.errors import NotMeasuredError
from disinherit.simulations.bench.panel.exam import EvaluationContext, ModelUnderTest


def forget_accuracy(exam: EvaluationContext, candidate: ModelUnderTest) -> dict[str, float]:
    """On held-out samples of what is forgotten where there are some, or on the very samples."""
    return {"forget_accuracy": split_accuracy(exam, candidate, exam.forget_split)}


def retain_accuracy(exam: EvaluationContext, candidate: ModelUnderTest) -> dict[str, float]:
    """On held-out samples of the other classes, or on the other training samples."""
    split = "test_retain" if exam.case.by_class else "retain"
    return {"retain_accuracy": split_accuracy(exam, candidate, split)}


def test_accuracy(exam: EvaluationContext, candidate: ModelUnderTest) -> dict[str, float]:
    """On all held-out samples."""
    right = [
        candidate.correct(split)
        for split in ("test_forget", "test_retain")
        if len(exam.splits[split])
    ]
    if not right:
        raise NotMeasuredError(f"model {exam.subject.id} has no held-out samples")
    return {"test_accuracy": 100.0 * torch.cat(right).double().mean().item()}


def class_accuracy(exam: EvaluationContext, candidate: ModelUnderTest) -> dict[str, float]:
    """On the held-out samples of each class."""
    found = {}
    for split in ("test_forget", "test_retain"):
        samples = exam.splits[split]
        if len(samples):
            right = candidate.correct(split)
            for index in samples.targets.unique().tolist():
                share = right[samples.targets == index].double().mean().item()
                found[f"class_accuracy/{exam.subject.labels[index]}"] = 100.0 * share
    if not found:
        raise NotMeasuredError(f"model {exam.subject.id} has no held-out samples")
    return found


def split_accuracy(exam: EvaluationContext, candidate: ModelUnderTest, split: str) -> float:
    """Return the share of right answers on a split, in percent.

    Raises:
        NotMeasuredError: if it has no samples.
    """
    exam.need(split)
    return 100.0 * candidate.correct(split).double().mean().item()
