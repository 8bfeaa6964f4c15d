"""The two ends of every comparison: doing nothing, and retraining exactly."""

from dataclasses import dataclass

from disinherit.simulations.bench.cases.subjects import MethodCase
from disinherit.simulations.bench.methods.campaign import replayed
from disinherit.simulations.bench.methods.method import Unlearned


@dataclass(frozen=True)
class NoOperation:
    """Leaves every model as it is."""

    def __call__(self, case: MethodCase) -> Unlearned:
        """Return the original weights."""
        return Unlearned({name: subject.original for name, subject in case.subjects.items()})


@dataclass(frozen=True)
class Retraining:
    """Replays the derivation of every affected model without the data to forget."""

    def __call__(self, case: MethodCase) -> Unlearned:
        """Return the weights of exact retraining."""
        return Unlearned(case.replay(), sent=replayed(case))
