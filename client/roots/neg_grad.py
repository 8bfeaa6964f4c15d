"""NegGrad+: the loss of samples to forget rises while that of retained ones falls.

After Kurmanji et al. 2023, arXiv 2302.09880, with a bound: no sample's loss is raised above that of
a model that never saw it, which would betray it as well.  That is the loss of the weights that the
root's training started from, if they are known, and of a guess, log C, if not: among classes, or
for a language model among tokens.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from disinherit.client.owner.choosing import ChosenSamples
from disinherit.client.roots.replay import start_of
from disinherit.client.roots.root_method import RootProblem, UnlearnedRoot
from disinherit.client.roots.training import (
    BATCH,
    Loss,
    RootTraining,
    refusal_to_train,
    train_root,
)
from disinherit.common.models.sequences import loss_of_guess

ALPHAS = (1.0, 0.3, 0.1)
"""Weights of the loss of samples to forget, from the strongest."""

LEARNING_RATE = 1e-3


@dataclass(frozen=True, slots=True)
class NegGrad:
    """Steps of Adam on `retained loss - alpha * min(loss to forget, bound)`."""

    name: str = "neggrad+"

    def refusal(self, problem: RootProblem) -> str:
        """Refuse roots without retained data or samples to forget."""
        return refusal_to_train(problem, forgets=True)

    def unlearn(self, problem: RootProblem) -> UnlearnedRoot:
        """Return the root after ascent; a strength is an alpha.

        Raises:
            DataError: as `train_root` does.
        """
        return train_root(problem, _losses, ALPHAS, lambda _: LEARNING_RATE)


def _losses(training: RootTraining) -> Callable[[float], Loss]:
    forget = training.forget()
    bounds = _bounds(training, forget)

    def of(alpha: float) -> Loss:
        turns = cycle(len(forget), training.seed)

        def loss(chosen: Tensor) -> Tensor:
            some = next(turns)
            each = F.cross_entropy(*training.logits(forget, some), reduction="none")
            raised = torch.minimum(each, bounds[some].to(each)).mean()
            return training.cross_entropy(chosen) - alpha * raised

        return loss

    return of


def _bounds(training: RootTraining, forget: ChosenSamples) -> Tensor:
    """Return the largest loss of each sample to forget."""
    start, classes = start_of(training.problem), len(training.problem.record.labels)
    if start is None:
        return torch.full((len(forget),), loss_of_guess(training.network, classes))
    training.network.load_state_dict(start)
    return F.cross_entropy(training.all_logits(forget), forget.targets, reduction="none")


def cycle(count: int, seed: int) -> Iterator[Tensor]:
    """Yield positions of at most a batch of samples, shuffled anew whenever all were used.

    Args:
        count: number of samples.
        seed: of their order.
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=generator).split(BATCH)
