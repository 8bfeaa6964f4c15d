"""Margins of references that were retrained with other seeds, and how far from them a model is.

After KLOM, the KL divergence of margins (Georgiev et al. 2025, arXiv 2410.23232, appendix E.1): the
margins that many unlearned models give a sample are compared with those of many retrained ones.  A
method is run once on a case, so both are taken as normal here with the variance of the references.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from disinherit.common.errors import NotMeasuredError
from disinherit.common.models.membership import confidence
from disinherit.simulations.bench.cases.subjects import Case, Weights
from disinherit.simulations.bench.panel.exam import EvaluationContext, ModelUnderTest

SPLITS = {"forget": "forget", "test_retain": "held_out"}
"""Splits whose margins are compared -> what the figure is called after."""

MOST = 100.0
"""Divergence of a sample that counts at most, as for the authors."""


def train_references(case: Case, root: str, count: int) -> list[Weights]:
    """Return a root retrained without what it must forget, with several other seeds.

    Each starts where the root did, and sees its retained samples in another order.  There is none
    for a root without retained samples, nor for one below another root: its own start remembers.

    Args:
        case: the case.
        root: one of its roots.
        count: how many.
    """
    if not len(case.subjects[root].retain) or case.upstream(root) != (root,):
        return []
    generator = torch.Generator().manual_seed(case.seed)
    seeds = [int(torch.randint(2**31, (), generator=generator)) for _ in range(count)]
    return [case.refit(root, case.subjects[root].retain, seed) for seed in seeds]


def margins_of(exam: EvaluationContext, models: Sequence[Weights]) -> dict[str, Tensor]:
    """Return the margins `[K, n]` of some models on each split that has samples."""
    tested = [exam.candidate(weights) for weights in models]
    return {
        split: torch.stack([_margins(exam, one, split) for one in tested])
        for split in SPLITS
        if len(exam.splits[split])
    }


def margin_divergences(exam: EvaluationContext, candidate: ModelUnderTest) -> dict[str, float]:
    """Mean divergence of margins from the references', on forgotten and on held-out samples."""
    if not exam.references:
        asked = exam.settings.reference_seeds
        raise NotMeasuredError(
            "only roots that retain samples, below no other root, are retrained with other seeds"
            if asked
            else "no reference was retrained with other seeds"
        )
    return {
        f"margin_divergence_{SPLITS[split]}": divergence(_margins(exam, candidate, split), known)
        for split, known in exam.references.items()
    }


def divergence(margins: Tensor, references: Tensor) -> float:
    """Return the mean KL divergence of normal margins with one variance, in nats.

    `(m - mean)^2 / (2 v)` of each sample, at most `MOST`; `v` is the variance of the references,
    pooled over samples.  Another reference is at about `(1 + 1 / K) / 2`.

    Args:
        margins: of a model `[n]`.
        references: of retrained models `[K, n]`, K > 1.

    Example:
        >>> references = torch.tensor([[0.0, 4.0], [2.0, 6.0]])
        >>> divergence(torch.tensor([3.0, 5.0]), references)
        0.5
    """
    wide = references.double()
    means, variance = wide.mean(dim=0), wide.var(dim=0).mean().clamp(min=1e-12)
    apart = (margins.double() - means).square() / (2 * variance)
    return apart.clamp(max=MOST).mean().item()


def without(references: Mapping[str, Tensor], position: int) -> dict[str, Tensor]:
    """Return the margins of all references but one."""
    return {
        split: torch.cat([known[:position], known[position + 1 :]])
        for split, known in references.items()
    }


def _margins(exam: EvaluationContext, candidate: ModelUnderTest, split: str) -> Tensor:
    return confidence(candidate.logits(split), exam.splits[split].targets)
