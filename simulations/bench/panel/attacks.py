"""Membership inference: can an attacker tell the samples to forget from samples never seen?

Members are the training samples to forget, non-members held-out samples of the same kind.  After
perfect unlearning nobody can tell them apart better than in the retrained model.
"""

import torch

from disinherit.common.errors import NotMeasuredError
from disinherit.common.models.membership import (
    area_under_curve,
    confidence,
    true_positive_rate,
)
from disinherit.simulations.bench.panel.exam import EvaluationContext, ModelUnderTest
from disinherit.simulations.bench.panel.outputs import logits_of

FALSE_POSITIVES = 0.01
"""At this false positive rate the per-example attack is reported."""


def loss_attack(exam: EvaluationContext, candidate: ModelUnderTest) -> dict[str, float]:
    """Area under the ROC curve of the attack that calls low losses members (Yeom et al. 2018).

    arXiv 1709.01604. 0.5 is a guess. Samples are ordered by log p - log(1 - p), as by their losses;
    but losses are rounded to 0 for all that are fitted well, so that these would tie.
    """
    scores = []
    for split in ("forget", "unseen"):
        samples = exam.need(split)
        scores.append(confidence(candidate.logits(split), samples.targets))
    return {"loss_attack_auc": area_under_curve(*scores)}


def lira(exam: EvaluationContext, candidate: ModelUnderTest) -> dict[str, float]:
    """The likelihood ratio attack of Carlini et al. 2022 (arXiv 2112.03570), online.

    True positive rate at 1% false positives, in percent, and the area under the curve.
    """
    if not exam.shadows:
        raise NotMeasuredError("no shadow models of a root with the same labels")
    inside, outside = [], []
    for shadows in exam.shadows.values():
        observed = confidence(
            logits_of(candidate.network, shadows.samples), shadows.samples.targets
        )
        scores = shadows.likelihood_ratio(observed)
        inside.append(scores[: shadows.members])
        outside.append(scores[shadows.members :])
    members, others = torch.cat(inside), torch.cat(outside)
    return {
        "lira_tpr": 100.0 * true_positive_rate(members, others, FALSE_POSITIVES),
        "lira_auc": area_under_curve(members, others),
    }
