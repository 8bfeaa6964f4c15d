"""Methods that train on: fine-tuning on what is kept, and distillation with a bad teacher."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count, product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disinherit.common.models.descent import minimise, steps_of
from disinherit.simulations.bench.cases.subjects import MethodCase, MethodSubject, Samples, Weights
from disinherit.simulations.bench.methods.method import Unlearned
from disinherit.simulations.bench.methods.tuning import Tuner
from disinherit.simulations.bench.panel.outputs import logits_of

RATES = (1e-3, 3e-4, 3e-3)
EPOCHS = (1.0, 3.0)
PENALTIES = (1e-4, 1e-5, 1e-3)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train."""

    learning_rate: float
    epochs: float


def schedules() -> list[Schedule]:
    """Return the candidates of methods that train, the default first."""
    return [Schedule(rate, epochs) for epochs, rate in product(EPOCHS, RATES)]


@dataclass(frozen=True)
class FineTuning:
    """Trains every affected model on with its own retained data, hoping that the rest fades."""

    def __call__(self, case: MethodCase) -> Unlearned:
        """Fine-tune all affected models, in parallel as far as owners are concerned."""
        tuner = Tuner(case, schedules())
        weights = {
            name: tuner.best(name, partial(_fine_tuned, case, subject))
            for name, subject in case.subjects.items()
            if len(subject.retain)
        }
        return Unlearned(weights, tune_seconds=tuner.seconds, chosen=tuner.record())


@dataclass(frozen=True)
class SparseSchedule:
    """How long and how fast to train, and how strongly to pull weights to zero at first."""

    schedule: Schedule
    penalty: float


@dataclass(frozen=True)
class SparseFineTuning:
    """Fine-tuning with an L1 penalty, l1-sparse MU (Jia et al. 2023, arXiv 2304.04934), per model.

    Their equation of sparsity-aware unlearning: the cross-entropy on the retained samples plus
    `penalty * |weights|_1`, from the original weights.  As in their code, the penalty falls
    linearly to zero.

    Simplified: the penalty falls with every step, not every epoch, and Adam minimises both terms
    by gradient, so that small weights come near zero without being exactly there.
    """

    def __call__(self, case: MethodCase) -> Unlearned:
        """Fine-tune all affected models, each with its own retained data."""
        candidates = [
            SparseSchedule(schedule, penalty)
            for schedule, penalty in product(schedules(), PENALTIES)
        ]
        tuner = Tuner(case, candidates)
        weights = {
            name: tuner.best(name, partial(sparsely_tuned, case, subject))
            for name, subject in case.subjects.items()
            if len(subject.retain)
        }
        return Unlearned(weights, tune_seconds=tuner.seconds, chosen=tuner.record())


@dataclass(frozen=True)
class Distillation:
    """Bad-teacher distillation (Chundawat et al. 2023, arXiv 2205.08096), per model.

    The student starts as the original.  On retained samples it follows the original, on its own
    samples to forget a network that was never trained.  A model without such samples follows the
    original only, and forgets nothing.
    """

    def __call__(self, case: MethodCase) -> Unlearned:
        """Distil all affected models."""
        tuner = Tuner(case, schedules())
        weights = {
            name: tuner.best(name, partial(_distilled, case, subject))
            for name, subject in case.subjects.items()
            if len(subject.retain)
        }
        return Unlearned(weights, tune_seconds=tuner.seconds, chosen=tuner.record())


def _fine_tuned(case: MethodCase, subject: MethodSubject, schedule: Schedule) -> Weights:
    data = subject.retain

    def loss(network: nn.Module, chosen: Tensor) -> Tensor:
        return F.cross_entropy(network(data.inputs[chosen]), data.targets[chosen])

    return trained(case, subject, data, loss, schedule)


def sparsely_tuned(case: MethodCase, subject: MethodSubject, choice: SparseSchedule) -> Weights:
    """Return what fine-tuning with a penalty makes of a subject with retained samples."""
    data = subject.retain
    steps = steps_of(len(data), choice.schedule.epochs)
    taken = count()

    def loss(network: nn.Module, chosen: Tensor) -> Tensor:
        penalty = choice.penalty * (1 - next(taken) / steps)
        size = sum(value.abs().sum() for value in network.parameters())
        return F.cross_entropy(network(data.inputs[chosen]), data.targets[chosen]) + penalty * size

    return trained(case, subject, data, loss, choice.schedule)


def _distilled(case: MethodCase, subject: MethodSubject, schedule: Schedule) -> Weights:
    data = Samples.joined([part for part in (subject.retain, subject.forget) if len(part)])
    good = logits_of(subject.network(subject.original), subject.retain)
    parts = [good]
    if len(subject.forget):
        parts.append(logits_of(subject.build().eval(), subject.forget))
    teacher = torch.cat(parts).log_softmax(dim=1)

    def loss(network: nn.Module, chosen: Tensor) -> Tensor:
        student = network(data.inputs[chosen]).log_softmax(dim=1)
        return F.kl_div(student, teacher[chosen], reduction="batchmean", log_target=True)

    return trained(case, subject, data, loss, schedule)


def trained(
    case: MethodCase,
    subject: MethodSubject,
    data: Samples,
    loss: Callable[[nn.Module, Tensor], Tensor],
    schedule: Schedule,
) -> Weights:
    """Return what training on makes of a subject.

    Args:
        case: for the seed.
        subject: whose original weights training starts from.
        data: what is trained on.
        loss: of a network on a mini-batch, from the positions of its samples.
        schedule: how long and how fast.
    """
    network = subject.network(subject.original)
    minimise(
        network,
        lambda chosen: loss(network, chosen),
        len(data),
        steps=steps_of(len(data), schedule.epochs),
        learning_rate=schedule.learning_rate,
        seed=case.seed,
    )
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
