"""MSA: minus what the data to forget would have done to the model that had not seen it yet."""

from dataclasses import dataclass
from functools import cache, partial
from itertools import product

from torch import Tensor, nn
from torch.nn import functional as F

from disinherit.common.models.descent import minimise, steps_of
from disinherit.simulations.bench.cases.subjects import MethodCase, MethodSubject, Weights
from disinherit.simulations.bench.methods.handing_down import trained_or_handed_down
from disinherit.simulations.bench.methods.method import Unlearned
from disinherit.simulations.bench.methods.training import Schedule
from disinherit.simulations.bench.methods.tuning import Tuner

STRENGTHS = (1.0, 0.5, 0.25, 0.1, 0.05, 2.0)
SCHEDULES = (Schedule(1e-3, 3.0), Schedule(1e-3, 1.0), Schedule(1e-3, 10.0))


@dataclass(frozen=True)
class Subtraction:
    """How the forget vector is found, and how much of it is taken away."""

    schedule: Schedule
    strength: float


@dataclass(frozen=True)
class StateArithmetic:
    """MSA, model state arithmetic (Rezaei et al. 2025, arXiv 2506.20941).

    Their rule, for each model with samples to forget: a checkpoint from before the model saw them
    is fine-tuned on them alone; `strength` times what it moved by, the forget vector, is taken from
    the model.  The checkpoint is what the model was derived from: the average of its parents, or
    the initialisation.  A model without such samples loses the vectors of the roots above it.

    Simplified: no retain vector is added (`beta = 0` in their rule, which they allow where retained
    data is not at hand), and parents count alike.  Parameters that no parent has in the model's
    shape, as a head with other classes, are those of a fresh network.
    """

    def __call__(self, case: MethodCase) -> Unlearned:
        """Take the forget vector from every model with samples to forget, and hand it down."""
        candidates = [Subtraction(*values) for values in product(SCHEDULES, STRENGTHS)]
        vector = cache(partial(forget_vector, case))

        def subtracted(subject: MethodSubject, choice: Subtraction) -> Weights:
            moved = vector(subject.id, choice.schedule)
            return {
                name: value - choice.strength * moved[name] if name in moved else value
                for name, value in subject.original.items()
            }

        return trained_or_handed_down(case, Tuner(case, candidates), subtracted)


def checkpoint_before(case: MethodCase, model: str) -> Weights:
    """Return what a model was before it was trained: its parents' average, or a fresh network."""
    subject = case.subjects[model]
    parents = [
        case.subjects[parent].original if parent in case.subjects else case.unaffected[parent]
        for parent in subject.parents
    ]
    start = {name: value.detach().clone() for name, value in subject.build().state_dict().items()}
    for name, value in start.items():
        known = [p[name] for p in parents if name in p and p[name].shape == value.shape]
        if known and value.is_floating_point():
            start[name] = sum(known[1:], known[0]) / len(known)
    return start


def forget_vector(case: MethodCase, model: str, schedule: Schedule) -> Weights:
    """Return what a model's checkpoint moves by when it learns the samples to forget alone."""
    subject = case.subjects[model]
    start = checkpoint_before(case, model)
    network, data = subject.network(start), subject.forget

    def loss(chosen: Tensor) -> Tensor:
        return F.cross_entropy(network(data.inputs[chosen]), data.targets[chosen])

    minimise(
        network,
        loss,
        len(data),
        steps=steps_of(len(data), schedule.epochs),
        learning_rate=schedule.learning_rate,
        seed=case.seed,
    )
    return _moved(network, start)


def _moved(network: nn.Module, start: Weights) -> Weights:
    return {
        name: value.detach() - start[name]
        for name, value in network.state_dict().items()
        if value.is_floating_point()
    }
