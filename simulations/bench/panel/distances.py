"""Distances of outputs from those of the exact retraining."""

import math

import torch
from torch import Tensor

from disinherit.common.errors import NotMeasuredError
from disinherit.simulations.bench.panel.exam import EvaluationContext, ModelUnderTest


def output_distances(exam: EvaluationContext, candidate: ModelUnderTest) -> dict[str, float]:
    """Mean Jensen-Shannon divergence and mean logit distance, where forgotten and where kept."""
    found = {}
    for name, split in (("forget", exam.forget_split), ("retain", "test_retain")):
        if len(exam.splits[split]):
            mine, theirs = candidate.logits(split), exam.retrained.logits(split)
            found[f"js_divergence_{name}"] = js_divergence(mine, theirs).mean().item()
            found[f"logit_distance_{name}"] = logit_distance(mine, theirs).mean().item()
    if not found:
        raise NotMeasuredError(f"model {exam.subject.id} has no samples to compare outputs on")
    return found


def neighbour_leakage(exam: EvaluationContext, candidate: ModelUnderTest) -> dict[str, float]:
    """Where held-out samples of the forgotten classes go, against where retraining sends them.

    `neighbour_leakage` is the total variation distance of the two distributions over predicted
    classes; `goes_to/<class>` is the share of each in percent.
    """
    if not exam.case.by_class:
        raise NotMeasuredError("samples are forgotten, no class")
    exam.need("test_forget")
    classes = len(exam.subject.labels)
    mine = shares(candidate.logits("test_forget"), classes)
    theirs = shares(exam.retrained.logits("test_forget"), classes)
    found = {"neighbour_leakage": 0.5 * (mine - theirs).abs().sum().item()}
    for name, share in zip(exam.subject.labels, mine.tolist(), strict=True):
        found[f"goes_to/{name}"] = 100.0 * share
    return found


def js_divergence(one: Tensor, other: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence `[n]` between the softmax of two logits `[n, C]`.

    In bits; it is symmetric and in [0, 1].

    Example:
        >>> js_divergence(torch.tensor([[0.0, 99.0]]), torch.tensor([[99.0, 0.0]])).item()
        1.0
    """
    p, q = one.double().log_softmax(dim=1), other.double().log_softmax(dim=1)
    middle = torch.logaddexp(p, q) - math.log(2)
    divergence = (p.exp() * (p - middle) + q.exp() * (q - middle)).sum(dim=1) / 2
    return (divergence / math.log(2)).clamp(0, 1)


def logit_distance(one: Tensor, other: Tensor) -> Tensor:
    """Return the Euclidean distance `[n]` between logits `[n, C]` that are centred on 0.

    A number added to all logits of a sample changes no output, so it must not count here.

    Example:
        >>> logit_distance(torch.tensor([[1.0, 1.0]]), torch.tensor([[7.0, 7.0]])).item()
        0.0
    """
    difference = one.double() - other.double()
    centred = difference - difference.mean(dim=1, keepdim=True)
    return centred.square().sum(dim=1).sqrt()


def shares(logits: Tensor, classes: int) -> Tensor:
    """Return the share `[C]` of samples for which each class is predicted."""
    counts: Tensor = torch.bincount(logits.argmax(dim=1), minlength=classes)
    return counts.double() / len(logits)
