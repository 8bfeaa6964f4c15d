"""Gradient ascent at the roots; descendants get the difference that it made."""

from dataclasses import dataclass
from functools import partial
from itertools import product

from torch import Tensor
from torch.nn import functional as F

from disinherit.common.models.descent import minimise
from disinherit.simulations.bench.cases.subjects import MethodCase, MethodSubject, Weights
from disinherit.simulations.bench.methods.campaign import broadcast
from disinherit.simulations.bench.methods.handing_down import difference, with_differences
from disinherit.simulations.bench.methods.method import Unlearned
from disinherit.simulations.bench.methods.tuning import Tuner

RATES = (3e-4, 1e-4, 1e-3)
STEPS = (10, 3, 30, 100)


@dataclass(frozen=True)
class Climb:
    """How far to climb, and how fast."""

    learning_rate: float
    steps: int


@dataclass(frozen=True)
class GradientAscent:
    """Raises the loss on the samples to forget at each root, and adds the change everywhere.

    Attributes:
        scale: of the difference when it is added to a descendant.
    """

    scale: float = 1.0

    def __call__(self, case: MethodCase) -> Unlearned:
        """Climb at the roots, then propagate."""
        tuner = Tuner(case, [Climb(rate, steps) for steps, rate in product(STEPS, RATES)])
        changes: dict[str, Weights] = {}
        for root in case.roots:
            subject = case.subjects[root]
            changes[root] = difference(subject, tuner.best(root, partial(_climbed, case, subject)))
        weights = {
            name: with_differences(case, name, changes, self.scale) for name in case.subjects
        }
        return Unlearned(
            weights,
            sent=broadcast(case, changes),
            tune_seconds=tuner.seconds,
            chosen=tuner.record(),
        )


def _climbed(case: MethodCase, subject: MethodSubject, climb: Climb) -> Weights:
    data = case.forget_at_root[subject.id]
    network = subject.network(subject.original)

    def loss(chosen: Tensor) -> Tensor:
        return -F.cross_entropy(network(data.inputs[chosen]), data.targets[chosen])

    minimise(
        network,
        loss,
        len(data),
        steps=climb.steps,
        learning_rate=climb.learning_rate,
        seed=case.seed,
    )
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
