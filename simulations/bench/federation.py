"""A small federation on Fashion-MNIST: clients, steps of the server, and what the rounds made."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from disinherit.simulations.bench.cases.subjects import Samples, Weights
from disinherit.simulations.data.datasets import load_dataset
from disinherit.simulations.data.partitions import partition

CLIENTS = 5
SAMPLES = 150
"""Training samples of a client, on average."""

STEPS, BATCH, RATE = 10, 32, 0.1
"""Of a client's plain gradient descent in a round."""

HIDDEN = 64
PARTITIONS: Mapping[str, tuple[str, float]] = {
    "equal": ("iid", 1.0),
    "skewed": ("dirichlet", 0.1),
}
"""Name -> kind of partition, and concentration."""


@dataclass(frozen=True, slots=True, eq=False)
class Clients:
    """The clients of a federation.

    Attributes:
        samples: the training samples of each.
        test: unseen samples.
        leaves: the client that leaves, that of the most usual size.
        seed: of data, initialisation and order.
    """

    samples: Sequence[Samples]
    test: Samples
    leaves: int
    seed: int

    @classmethod
    def made(cls, kind: str, seed: int) -> "Clients":
        """Return clients with samples of Fashion-MNIST in shares of a kind of `PARTITIONS`."""
        dataset = load_dataset("fashion-mnist")
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(dataset.targets), generator=generator)
        everything = Samples(dataset.inputs.flatten(1), dataset.targets)
        trained = everything[order[: CLIENTS * SAMPLES]]
        how, concentration = PARTITIONS[kind]
        parts = partition(trained.targets, CLIENTS, how, seed, concentration, minimum=SAMPLES // 3)
        samples = [trained[part] for part in parts]
        leaves = min(range(CLIENTS), key=lambda one: abs(len(samples[one]) - SAMPLES))
        return cls(samples, everything[order[CLIENTS * SAMPLES :][: 20 * SAMPLES]], leaves, seed)

    @property
    def all(self) -> list[int]:
        """All clients."""
        return list(range(len(self.samples)))

    @property
    def others(self) -> list[int]:
        """The clients that stay."""
        return [client for client in self.all if client != self.leaves]

    def shares(self, members: Iterable[int]) -> dict[int, float]:
        """Return the share of each member in an average."""
        sizes = {client: len(self.samples[client]) for client in members}
        return {client: size / sum(sizes.values()) for client, size in sizes.items()}

    def start(self) -> Weights:
        """Return the initial weights."""
        generator = torch.Generator().manual_seed(self.seed)
        inputs, classes = self.test.inputs.shape[1], int(self.test.targets.max()) + 1
        return {
            "w1": torch.randn(inputs, HIDDEN, generator=generator) / inputs**0.5,
            "b1": torch.zeros(1, HIDDEN),
            "w2": torch.randn(HIDDEN, classes, generator=generator) / HIDDEN**0.5,
            "b2": torch.zeros(1, classes),
        }

    def train(self, start: Weights, members: Sequence[int], number: int) -> dict[int, Weights]:
        """Return each member's update in a round; the networks are trained side by side."""
        stack = {
            name: value.expand(len(members), *value.shape).clone().requires_grad_()
            for name, value in start.items()
        }
        batches = [self._batches(client, number) for client in members]
        for step in range(STEPS):
            chosen = [self.samples[c][one[step]] for c, one in zip(members, batches, strict=True)]
            logits = forward(stack, torch.stack([one.inputs for one in chosen]))
            targets = torch.cat([one.targets for one in chosen])
            loss = F.cross_entropy(logits.flatten(0, 1), targets, reduction="sum") / BATCH
            slopes = torch.autograd.grad(loss, list(stack.values()))
            with torch.no_grad():
                for value, slope in zip(stack.values(), slopes, strict=True):
                    value.sub_(slope, alpha=RATE)
        return {
            client: {name: value[place].detach() for name, value in stack.items()}
            for place, client in enumerate(members)
        }

    def _batches(self, client: int, number: int) -> Tensor:
        """Return the positions `[STEPS, BATCH]` of a client's samples in a round."""
        seed = (self.seed * CLIENTS + client) * 100_003 + number
        generator = torch.Generator().manual_seed(seed)
        count, needed = len(self.samples[client]), STEPS * BATCH
        orders = [torch.randperm(count, generator=generator) for _ in range(-(-needed // count))]
        return torch.cat(orders)[:needed].view(STEPS, BATCH)


def forward(weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Return logits of one network `[n, C]`, or of networks side by side `[m, n, C]`."""
    hidden = (inputs @ weights["w1"] + weights["b1"]).relu()
    return hidden @ weights["w2"] + weights["b2"]


Server = Callable[[Weights, Weights], Weights]
"""The server's step: from the global model and the average of its updates to the next one."""


def fed_avg(model: Weights, average: Weights) -> Weights:
    """Take the average."""
    return average


@dataclass(slots=True, eq=False)
class FedAdam:
    """Adam with the average's distance as its gradient (Reddi et al. 2021), as Flower has it.

    Attributes:
        eta: the server's learning rate; the other values are Flower's defaults.
        rounds: how many steps were taken.
    """

    eta: float = 0.01
    rounds: int = 0
    _first: Weights = field(default_factory=dict)
    _second: Weights = field(default_factory=dict)

    def __call__(self, model: Weights, average: Weights) -> Weights:
        """Return the next global model."""
        self.rounds += 1
        power = self.rounds + 1  # as in Flower
        rate = self.eta * (1 - 0.99**power) ** 0.5 / (1 - 0.9**power)
        new = {}
        for name, value in model.items():
            change = average[name] - value
            first = 0.9 * self._first.get(name, torch.zeros_like(value)) + 0.1 * change
            second = 0.99 * self._second.get(name, torch.zeros_like(value)) + 0.01 * change**2
            self._first[name], self._second[name] = first, second
            new[name] = value + rate * first / (second.sqrt() + 1e-3)
        return new


STRATEGIES: Mapping[str, Callable[[], Server]] = {"FedAvg": lambda: fed_avg, "FedAdam": FedAdam}


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """What a federation made in its rounds.

    Attributes:
        models: the global models, the start first.
        averages: the average of each round.
        updates: the update of the client that leaves, in each round that it took part in.
    """

    models: list[Weights]
    averages: list[Weights]
    updates: list[Weights]


def federate(
    clients: Clients,
    members: Sequence[int],
    server: Server,
    rounds: int,
    start: Weights,
    first: int = 1,
) -> History:
    """Run a federation.

    Args:
        clients: the clients.
        members: those of them that take part.
        server: the server's step.
        rounds: so many.
        start: the first global model.
        first: number of the first round, for the order of the samples.
    """
    history = History([start], [], [])
    shares = clients.shares(members)
    for number in range(first, first + rounds):
        made = clients.train(history.models[-1], members, number)
        history.averages.append(weighted_sum((shares[client], made[client]) for client in members))
        history.models.append(server(history.models[-1], history.averages[-1]))
        if clients.leaves in made:
            history.updates.append(made[clients.leaves])
    return history


def weighted_sum(terms: Iterable[tuple[float, Weights]]) -> Weights:
    """Return a weighted sum of weights."""
    listed = list(terms)
    return {
        name: sum((f * one[name] for f, one in listed), torch.zeros(())) for name in listed[0][1]
    }
