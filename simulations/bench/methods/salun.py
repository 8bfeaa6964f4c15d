"""SalUn: random labels for what is forgotten, learnt by the weights that it moves most."""

from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disinherit.simulations.bench.cases.subjects import MethodCase, MethodSubject, Samples, Weights
from disinherit.simulations.bench.methods.handing_down import trained_or_handed_down
from disinherit.simulations.bench.methods.method import Unlearned
from disinherit.simulations.bench.methods.training import Schedule, schedules, trained
from disinherit.simulations.bench.methods.tuning import Tuner

SHARES = (0.5, 0.2, 0.8)
"""Shares of the weights that may change; a half is the authors' default."""

_BATCH = 256


@dataclass(frozen=True)
class Relabelling:
    """How long and how fast to train, and which share of the weights."""

    schedule: Schedule
    share: float


@dataclass(frozen=True)
class SaliencyUnlearning:
    """SalUn (Fan et al. 2024, arXiv 2310.12508).

    Their equations 3 to 5, for each model with samples to forget: only weights whose gradient of
    the loss on these samples is among the largest may change; they learn the samples with random
    other labels, together with the retained samples as they are.  A model without such samples gets
    the difference that this made at the roots above it.

    Simplified: labels are drawn once, not anew for every epoch; the two losses are weighed by the
    numbers of samples, as in the authors' code.
    """

    def __call__(self, case: MethodCase) -> Unlearned:
        """Train every model that has samples to forget, and hand the difference down."""
        candidates = [
            Relabelling(schedule, share) for schedule, share in product(schedules(), SHARES)
        ]
        return trained_or_handed_down(case, Tuner(case, candidates), partial(relabelled, case))


def saliency(network: nn.Module, samples: Samples, share: float) -> dict[str, Tensor]:
    """Return which parameters have the largest gradients of the samples' mean loss.

    Args:
        network: in eval mode.
        samples: one or more.
        share: of all single weights that are chosen, in [0, 1].

    Returns:
        Name -> mask of the parameter's shape.
    """
    names, parameters = zip(*network.named_parameters(), strict=True)
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for inputs, targets in samples.batches(_BATCH):
        loss = F.cross_entropy(network(inputs), targets, reduction="sum")
        for total, gradient in zip(sums, torch.autograd.grad(loss, parameters), strict=True):
            total += gradient
    sizes = torch.cat([total.abs().flatten() for total in sums])
    chosen = torch.zeros(len(sizes), dtype=torch.bool)
    chosen[sizes.argsort(descending=True, stable=True)[: round(share * len(sizes))]] = True
    parts = chosen.split([total.numel() for total in sums])
    return {
        name: part.reshape(total.shape)
        for name, total, part in zip(names, sums, parts, strict=True)
    }


def other_labels(targets: Tensor, classes: int, seed: int) -> Tensor:
    """Return for every sample a class other than its own, drawn uniformly.

    Args:
        targets: class indices `[n]`.
        classes: how many there are, > 1.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    return (targets + torch.randint(1, classes, (len(targets),), generator=generator)) % classes


def relabelled(case: MethodCase, subject: MethodSubject, choice: Relabelling) -> Weights:
    """Return what learning random labels makes of a subject with samples to forget."""
    masks = saliency(subject.network(subject.original), subject.forget, choice.share)
    wrong = other_labels(subject.forget.targets, len(subject.labels), case.seed)
    forget = Samples(subject.forget.inputs, wrong)
    data = Samples.joined([part for part in (forget, subject.retain) if len(part)])

    def loss(network: nn.Module, chosen: Tensor) -> Tensor:
        # Adam leaves a weight alone, to the bit, whose gradient was zero in every step.
        kept = {
            name: value.where(masks[name], value.detach())
            for name, value in network.named_parameters()
        }
        logits = torch.func.functional_call(network, kept, (data.inputs[chosen],))
        return F.cross_entropy(logits, data.targets[chosen])

    return trained(case, subject, data, loss, choice.schedule)
