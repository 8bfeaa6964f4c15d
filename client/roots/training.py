"""Training of a root that unlearns by training on: schedule, early stop, and strength.

Dropout is active, as in training.  Normalisation layers keep their statistics, which are those of
the whole training: a few batches, let alone batches of samples to forget, would bring their own.

An attempt ends early when its loss has stopped falling.  The strongest attempt is taken whose loss
on the owner's tuning split rises by at most `MOST_RISE`; without such a split, the strength in the
middle, and if all cost more, the weakest, with a note.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disinherit.client.owner.choosing import ChosenSamples, choose_samples, request_seed
from disinherit.client.owner.owner import load_network
from disinherit.client.privacy.remaining import tuning_data
from disinherit.client.roots.root_method import RootProblem, UnlearnedRoot
from disinherit.client.roots.unseen import MOST_RISE, widened
from disinherit.common.errors import DataError
from disinherit.common.fisher.gradients import right_norm_gradients
from disinherit.common.models.descent import minimise, steps_of
from disinherit.common.models.inputs import as_arguments, to_device

BATCH = 64
"""Most samples of a step."""

EPOCHS = 10
"""Most passes over the retained samples."""

LEAST_STEPS = 200
"""Steps of an attempt on few retained samples, of which an epoch is a step or two."""

MOST_STEPS = 1000
"""Most steps of an attempt."""

WINDOW = 50
"""Steps whose mean loss is compared with that of the steps before."""

LEAST_GAIN = 0.002
"""Fall of the mean loss of a window, in nats, below which training ends."""

TRAINABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, slots=True, eq=False)
class RootTraining:
    """What a loss is made of.

    Attributes:
        problem: the root.
        network: its module on the owner's device, in eval mode with the root's weights.
        retain: retained samples.
        seed: of random choices.
    """

    problem: RootProblem
    network: nn.Module
    retain: ChosenSamples
    seed: int

    def forget(self) -> ChosenSamples:
        """Return the samples to forget."""
        assert self.problem.forget is not None
        generator = torch.Generator().manual_seed(self.seed)
        return choose_samples(
            self.problem.forget, MOST_STEPS * BATCH, generator, purpose="samples to forget"
        )

    def logits(self, samples: ChosenSamples, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return the network's logits in float32 or wider, and the targets."""
        arguments, targets = samples.at(chosen, self.problem.owner.device)
        return widened(self.network(*arguments)), targets

    def all_logits(self, samples: ChosenSamples) -> Tensor:
        """Return the network's logits `[n, C]` of all samples, in eval mode, on the CPU."""
        self.network.eval()
        with torch.no_grad():
            parts = torch.arange(len(samples)).split(4 * BATCH)
            return torch.cat([self.logits(samples, part)[0].cpu() for part in parts])

    def cross_entropy(self, chosen: Tensor) -> Tensor:
        """Return the mean cross-entropy of retained samples."""
        return F.cross_entropy(*self.logits(self.retain, chosen))


Loss = Callable[[Tensor], Tensor]
"""The loss of a step, from the positions of its retained samples."""


def refusal_to_train(problem: RootProblem, *, forgets: bool) -> str:
    """Return why a root cannot be trained on; `""` if it can.

    Args:
        problem: the root.
        forgets: whether the samples to forget are needed.
    """
    record = problem.record
    if problem.samples is None:
        return f"Nothing that model {record.id!r} was trained on directly is retained."
    if problem.retain is None or next(iter(problem.retain), None) is None:
        return f"The retained data of model {record.id!r} is gone."
    if forgets and (problem.forget is None or next(iter(problem.forget), None) is None):
        return f"The samples that model {record.id!r} has to forget are gone."
    for name in problem.names:
        dtype = problem.weights[name].dtype
        if dtype not in TRAINABLE:
            return f"Parameter {name!r} of model {record.id!r} is {dtype}, which cannot be trained."
    return ""


def train_root(
    problem: RootProblem,
    losses: Callable[[RootTraining], Callable[[float], Loss]],
    strengths: Sequence[float],
    learning_rate: Callable[[float], float],
) -> UnlearnedRoot:
    """Train a root on and return the strongest attempt that keeps what it is to keep.

    Beyond the root's weights there is one copy of them, and what Adam needs.

    Args:
        problem: the root.
        losses: prepares the training, and returns the loss of a strength.
        strengths: from the strongest to the weakest.
        learning_rate: of a strength.

    Raises:
        DataError: if there are no samples, or all attempts diverge.
    """
    owner, record = problem.owner, problem.record
    assert problem.retain is not None
    seed = request_seed(problem.request_id, record.id)
    network = load_network(owner, record, problem.weights)
    trained = _limit(network, problem.names)
    generator = torch.Generator().manual_seed(seed)
    purpose = "retained samples to train on"
    retain = choose_samples(problem.retain, MOST_STEPS * BATCH, generator, purpose=purpose)
    loss_of = losses(RootTraining(problem, network, retain, seed))
    network.load_state_dict(problem.weights)
    tuning = tuning_data(owner, record)
    before = _mean_loss(network, tuning, owner.device) if tuning is not None else math.nan
    tried = strengths if tuning is not None else strengths[len(strengths) // 2 :][:1]
    steps, note = 0, ""
    for strength in tried:
        network.load_state_dict(problem.weights)
        loss, rate = loss_of(strength), learning_rate(strength)
        steps = _descend(network, loss, len(retain), rate, seed, owner.device)
        finite = all(bool(p.isfinite().all()) for p in network.parameters())
        after = _mean_loss(network, tuning, owner.device) if tuning is not None else math.nan
        note = f"strength {strength:g}, {steps} steps"
        if tuning is not None:
            note += f", loss on the tuning split {before:.3f} to {after:.3f}"
        if finite and (tuning is None or after <= before + MOST_RISE):
            break
        if strength == tried[-1]:
            if not finite:
                raise DataError(
                    f"Expected training of root {record.id!r} to end in finite weights, but it "
                    "diverged. Choose another root method."
                )
            note += f", more than the {MOST_RISE:g} that it should rise at most"
    weights = dict(problem.weights)
    for name, value in network.state_dict(keep_vars=True).items():
        if id(value) in trained:
            weights[name] = value.detach().cpu()
    return UnlearnedRoot(weights, steps=steps, note=note)


@dataclass(slots=True)
class _Plateau:
    """Whether a loss has stopped falling.

    Attributes:
        losses: of the steps of the present window.
        best: lowest mean of a window.
    """

    losses: list[float] = field(default_factory=list)
    best: float = math.inf

    def __call__(self) -> bool:
        if len(self.losses) < WINDOW:
            return False
        mean = sum(self.losses) / len(self.losses)
        self.losses.clear()
        if mean > self.best - LEAST_GAIN or not math.isfinite(mean):
            return True
        self.best = mean
        return False


def _descend(
    network: nn.Module,
    loss: Loss,
    count: int,
    learning_rate: float,
    seed: int,
    device: torch.device,
) -> int:
    """Train a network in place, and return the number of steps."""
    plateau = _Plateau()

    def recorded(chosen: Tensor) -> Tensor:
        value = loss(chosen)
        plateau.losses.append(value.item())
        return value

    accelerators = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=accelerators),
        torch.enable_grad(),
        right_norm_gradients(network),
    ):
        torch.manual_seed(seed)  # of dropout
        return minimise(
            network,
            recorded,
            count,
            steps=min(MOST_STEPS, max(LEAST_STEPS, steps_of(count, EPOCHS, BATCH))),
            learning_rate=learning_rate,
            seed=seed,
            batch_size=BATCH,
            enough=plateau,
            training=_train_but_norms,
        )


def _train_but_norms(network: nn.Module) -> None:
    """Put a network into training mode, but its normalisation layers into eval mode."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()


def _limit(network: nn.Module, names: Iterable[str]) -> set[int]:
    """Let only some parameters be trained; return their identities.

    What is frozen was not trained on any sample, so it stays, unless nothing else is in scope.
    """
    wanted = set(names)
    chosen = {n for n, p in network.named_parameters() if n in wanted and p.requires_grad} or wanted
    trained = set()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in chosen)
        if name in chosen:
            trained.add(id(parameter))
    return trained


@torch.no_grad()
def _mean_loss(
    network: nn.Module, batches: Iterable[tuple[object, Tensor]], device: torch.device
) -> float:
    """Return the mean cross-entropy of samples, in eval mode."""
    network.eval()
    total, count = 0.0, 0
    for inputs, targets in batches:
        logits = widened(network(*to_device(as_arguments(inputs), device)))
        total += F.cross_entropy(logits, targets.to(device), reduction="sum").item()
        count += len(targets)
    return total / max(count, 1)
