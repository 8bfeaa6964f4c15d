"""Selective synaptic dampening of every model with its own data to forget: no inheritance."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disinherit.client.dampening.tuning import LAMBDAS
from disinherit.common.fisher.diagonal import fisher_diagonal
from disinherit.common.fiun.dampening import dampen
from disinherit.common.models.scope import resolve_scope
from disinherit.common.models.scope_text import is_head_scope
from disinherit.simulations.bench.cases.subjects import MethodCase, MethodSubject, Samples, Weights
from disinherit.simulations.bench.methods.method import Unlearned
from disinherit.simulations.bench.methods.tuning import Tuner

_BATCH = 256

ALPHAS = (0.3, 0.5, 1.0, 2.0, 5.0, 10.0)
"""As far as it selects anything: with F over all data as reference, F_forget / F_ref is at most one
over the share of what is to be forgotten."""


@dataclass(frozen=True)
class Dampening:
    """How strongly to dampen."""

    alpha: float
    lam: float


def dampenings(alpha: float, lam: float) -> list[Dampening]:
    """Return the candidates of methods that dampen, the default first."""
    grid = [Dampening(*values) for values in product(ALPHAS, LAMBDAS)]
    return sorted(grid, key=lambda one: (one.alpha, one.lam) != (alpha, lam))


@dataclass(frozen=True)
class SelectiveDampening:
    """SSD (Foster et al. 2024, arXiv 2308.07707), with per-sample Fisher information or batches.

    A model without samples of its own to forget is left as it is: it has nothing to take the Fisher
    information from, which is what inheriting it is for.

    Attributes:
        scope: parameters that may change.
        alpha: selection threshold; what it starts from, the authors' for ResNets.
        lam: dampening constant; likewise.
        batch: samples whose mean gradient is squared: 1 for the Fisher information of the paper's
            equation, more for what the authors' code has in its place.
    """

    scope: str = "all"
    alpha: float = 10.0
    lam: float = 1.0
    batch: int = 1

    def __call__(self, case: MethodCase) -> Unlearned:
        """Dampen every affected model."""
        tuner = Tuner(case, dampenings(self.alpha, self.lam))
        weights: dict[str, Weights] = {}
        for name, subject in case.subjects.items():
            if len(subject.forget) and len(subject.retain):
                everything = Samples.joined([subject.forget, subject.retain])
                forget, reference = (
                    self._importance(subject, samples) for samples in (subject.forget, everything)
                )
                weights[name] = tuner.best(name, partial(dampened, subject, forget, reference))
        return Unlearned(weights, tune_seconds=tuner.seconds, chosen=tuner.record())

    def _importance(self, subject: MethodSubject, samples: Samples) -> dict[str, Tensor]:
        if self.batch == 1:
            return fisher(subject, samples, self.scope)
        return batched_importance(subject, samples, self.scope, self.batch)


def fisher(subject: MethodSubject, samples: Samples, scope: str) -> dict[str, Tensor]:
    """Return the diagonal per-sample Fisher information of a subject's original weights."""
    network = subject.network(subject.original)
    return dict(fisher_diagonal(network, samples.batches(_BATCH), scope=scope).values)


def batched_importance(
    subject: MethodSubject, samples: Samples, scope: str, batch: int
) -> dict[str, Tensor]:
    """Return the batch importance of a subject's original weights, of the parameters in scope."""
    network = subject.network(subject.original)
    names = resolve_scope(network, scope, subject.head() if is_head_scope(scope) else None)
    return batch_importance(network, samples, names, batch)


def batch_importance(
    network: nn.Module, samples: Samples, names: Sequence[str], batch: int
) -> dict[str, Tensor]:
    """Return the mean over batches of the squared gradient of the batch's mean loss.

    Args:
        network: in eval mode.
        samples: one or more.
        names: parameters to look at.
        batch: samples in a batch.

    Returns:
        Name -> importance, of the parameter's shape.
    """
    parameters = [network.get_parameter(name) for name in names]
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    batches = 0
    for inputs, targets in samples.batches(batch):
        loss = F.cross_entropy(network(inputs), targets)
        gradients = torch.autograd.grad(loss, parameters)
        for total, gradient in zip(sums, gradients, strict=True):
            total += gradient.detach() ** 2
        batches += 1
    return {name: total / batches for name, total in zip(names, sums, strict=True)}


def dampened(
    subject: MethodSubject,
    forget: dict[str, Tensor],
    reference: dict[str, Tensor],
    choice: Dampening,
) -> Weights:
    """Return a subject's weights with the parameters in scope dampened."""
    parameters = {name: subject.original[name] for name in forget}
    new = dampen(parameters, forget, reference, choice.alpha, choice.lam)
    return {**subject.original, **new.parameters}
