"""NegGrad+: down the loss on what is kept and up that on what is forgotten, at the same time."""

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

KEPT = (0.95, 0.99, 0.8)
"""Weights of the loss on what is kept."""


@dataclass(frozen=True)
class Descent:
    """How long and how fast to train, and how much keeping counts against forgetting."""

    schedule: Schedule
    kept: float


@dataclass(frozen=True)
class NegativeGradient:
    """NegGrad+ (Kurmanji et al. 2023, arXiv 2302.09880), tuned.

    Their loss, for each model with samples to forget: `kept` times the mean cross-entropy on
    retained samples minus `1 - kept` times that on the samples to forget, from the original
    weights.  A model without such samples gets the difference that this made at the roots above it:
    the samples stay with the roots' owners.

    Simplified: each step takes a batch of retained samples and as many of those to forget, if there
    are so many, in turn.  A model that retains nothing only climbs.
    """

    def __call__(self, case: MethodCase) -> Unlearned:
        """Train every model that has samples to forget, and hand the difference down."""
        candidates = [Descent(schedule, kept) for schedule, kept in product(schedules(), KEPT)]
        return trained_or_handed_down(case, Tuner(case, candidates), partial(descended, case))


def combined(kept: Tensor, forgotten: Tensor, weight: float) -> Tensor:
    """Return `weight * kept - (1 - weight) * forgotten`.

    Example:
        >>> combined(torch.tensor(2.0), torch.tensor(4.0), 0.75).item()
        0.5
    """
    return weight * kept - (1 - weight) * forgotten


def descended(case: MethodCase, subject: MethodSubject, choice: Descent) -> Weights:
    """Return what training a subject with samples to forget makes of it."""
    forget, retain = subject.forget, subject.retain
    order = torch.randperm(len(forget), generator=torch.Generator().manual_seed(case.seed))
    position = 0

    def climbed(network: nn.Module, chosen: Tensor) -> Tensor:
        return -F.cross_entropy(network(forget.inputs[chosen]), forget.targets[chosen])

    def loss(network: nn.Module, chosen: Tensor) -> Tensor:
        nonlocal position
        turn = order[(position + torch.arange(min(len(chosen), len(forget)))) % len(forget)]
        position += len(turn)
        both = Samples.joined([retain[chosen], forget[turn]])
        losses = F.cross_entropy(network(both.inputs), both.targets, reduction="none")
        kept, forgotten = losses.split([len(chosen), len(turn)])
        return combined(kept.mean(), forgotten.mean(), choice.kept)

    if not len(retain):
        return trained(case, subject, forget, climbed, choice.schedule)
    return trained(case, subject, retain, loss, choice.schedule)
