"""The tug-of-war score: how close to retraining on all three kinds of samples at once."""

from disinherit.simulations.bench.panel.accuracies import split_accuracy
from disinherit.simulations.bench.panel.exam import EvaluationContext, ModelUnderTest


def tug_of_war(exam: EvaluationContext, candidate: ModelUnderTest) -> dict[str, float]:
    """ToW of Zhao et al. 2024 (arXiv 2406.01257), in [0, 1]; 1 for retraining itself.

    The product of `1 - |accuracy - accuracy of the retrained|` over the samples to forget, the
    retained training samples and the held-out samples that are to be kept.
    """
    score = 1.0
    for split in ("forget", "retain", "test_retain"):
        mine = split_accuracy(exam, candidate, split)
        theirs = split_accuracy(exam, exam.retrained, split)
        score *= 1.0 - abs(mine - theirs) / 100.0
    return {"tug_of_war": score}
