"""Selective synaptic dampening of every model with its own data to forget: no inheritance."""

from dataclasses import dataclass
from functools import partial
from itertools import product

from torch import Tensor

from disinherit.client.dampening.tuning import LAMBDAS
from disinherit.common.fisher.diagonal import fisher_diagonal
from disinherit.common.fiun.dampening import dampen
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
    """SSD (Foster et al. 2024, arXiv 2308.07707), with per-sample Fisher information.

    A model without samples of its own to forget is left as it is: it has nothing to take the Fisher
    information from, which is what inheriting it is for.

    Attributes:
        scope: parameters that may change.
        alpha: selection threshold; what it starts from, the authors' for ResNets.
        lam: dampening constant; likewise.
    """

    scope: str = "all"
    alpha: float = 10.0
    lam: float = 1.0

    def __call__(self, case: MethodCase) -> Unlearned:
        """Dampen every affected model."""
        tuner = Tuner(case, dampenings(self.alpha, self.lam))
        weights: dict[str, Weights] = {}
        for name, subject in case.subjects.items():
            if len(subject.forget) and len(subject.retain):
                forget = fisher(subject, subject.forget, self.scope)
                everything = Samples.joined([subject.forget, subject.retain])
                reference = fisher(subject, everything, self.scope)
                weights[name] = tuner.best(name, partial(dampened, subject, forget, reference))
        return Unlearned(weights, tune_seconds=tuner.seconds, chosen=tuner.record())


def fisher(subject: MethodSubject, samples: Samples, scope: str) -> dict[str, Tensor]:
    """Return the diagonal per-sample Fisher information of a subject's original weights."""
    network = subject.network(subject.original)
    return fisher_diagonal(network, samples.batches(_BATCH), scope=scope).values


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
