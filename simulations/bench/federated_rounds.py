"""A client leaves a federation after some rounds: what is left of it, and where taking it out ends.

Five clients train a small network on Fashion-MNIST for 50 rounds, with FedAvg or FedAdam, with
equal data or with skewed (Dirichlet 0.1).  After 1, 5, 10, 20 and 50 rounds one of them leaves.
What is made of the global model stands beside the federation that never had that client, before and
after rounds of calibration, with the attack on the client's samples: how often their loss is
smaller than that of unseen ones of their class.  Nobody but the server computes anything::

    python -m disinherit.simulations.bench.federated_rounds --out figures.json
"""

import argparse
import json
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from disinherit.common.deltas.changes import left_in, length
from disinherit.common.files import write_atomic
from disinherit.common.models.membership import area_under_curve, confidence
from disinherit.server.planning.coefficients import KEPT_OF_CLIENT
from disinherit.simulations.bench.cases.subjects import Samples, Weights
from disinherit.simulations.data.datasets import load_dataset
from disinherit.simulations.data.partitions import partition

ROUNDS = (1, 5, 10, 20, 50)
CALIBRATION = (0, 1, 3)
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
        history.averages.append(_sum((shares[client], made[client]) for client in members))
        history.models.append(server(history.models[-1], history.averages[-1]))
        if clients.leaves in made:
            history.updates.append(made[clients.leaves])
    return history


def taken_out(history: History, share: float, kept: float) -> list[Weights]:
    """Return every round's average without a client, as the owner of the global models makes it.

    Args:
        history: of plain averages.
        share: of the client in each.
        kept: what is left of a change after a round of training, T.
    """
    return server_again(history, share, kept, fed_avg)


def server_again(history: History, share: float, kept: float, server: Server) -> list[Weights]:
    """Return global models of the server's steps again, on averages without a client.

    It takes the average of each round, which nobody keeps.  Arguments as for `taken_out`.
    """
    made = [history.models[0]]
    factor = share / (1 - share)
    for number, (average, update) in enumerate(zip(history.averages, history.updates, strict=True)):
        start = history.models[number]
        terms = [(1 + factor, average), (-factor, update), (kept, made[-1]), (-kept, start)]
        made.append(server(made[-1], _sum(terms)))
    return made[1:]


def by_shares(history: History, share: float, kept: float) -> list[Weights]:
    """Return global models with their shares of the client's changes, as all descendants get them.

    Arguments as for `taken_out`.
    """
    made = []
    change = _sum([(0.0, history.models[0])])
    for number, update in enumerate(history.updates):
        start = history.models[number]
        # An aggregate whose computation is not known counts as trained on.
        change = _sum([(kept * share, start), (-kept * share, update), (kept, change)])
        made.append(_sum([(1.0, history.models[number + 1]), (1.0, change)]))
    return made


def attack(clients: Clients, weights: Weights) -> dict[str, float]:
    """Return the attack's area under the curve, and accuracies in percent.

    Samples of the client are compared with unseen ones of their class.

    Args:
        clients: the clients, one of which left.
        weights: a global model.
    """
    own, test = clients.samples[clients.leaves], clients.test
    logits, unseen = forward(weights, own.inputs), forward(weights, test.inputs)
    scores, others = confidence(logits, own.targets), confidence(unseen, test.targets)
    areas = [
        len(scores[own.targets == label])
        * area_under_curve(scores[own.targets == label], others[test.targets == label])
        for label in own.targets.unique()
    ]
    return {
        "auc": sum(areas) / len(own),
        "forget": _accuracy(logits, own),
        "accuracy": _accuracy(unseen, test),
    }


def measure_one(kind: str, strategy: str, seed: int, rounds: Sequence[int]) -> dict[str, Any]:
    """Return round -> what can be told beforehand, and row -> calibration -> figures.

    Args:
        kind: of `PARTITIONS`.
        strategy: of `STRATEGIES`.
        seed: of everything.
        rounds: after which the client leaves, each by itself.
    """
    clients = Clients.made(kind, seed)
    share = clients.shares(clients.all)[clients.leaves]
    make, start, most = STRATEGIES[strategy], clients.start(), max(rounds)
    both = federate(clients, clients.all, make(), most, start)
    without = federate(clients, clients.others, make(), most, start)
    way = taken_out if strategy == "FedAvg" else by_shares
    made = {
        "untouched": both.models[1:],
        "retrained": without.models[1:],
        "T = 0.9": way(both, share, KEPT_OF_CLIENT),  # as requests do it
        "T = 1": way(both, share, 1.0),  # where they name rounds of calibration
    }
    if strategy != "FedAvg":
        for kept in (KEPT_OF_CLIENT, 1.0):
            made[f"server again, T = {kept:g}"] = server_again(both, share, kept, make())
    found: dict[str, Any] = {}
    for number in rounds:
        rows = {}
        for row, models in made.items():
            # FedAvg, whatever it was before: Adam without momenta begins with large steps.
            after = federate(
                clients, clients.others, fed_avg, max(CALIBRATION), models[number - 1], 10_000
            ).models
            rows[row] = {str(more): attack(clients, after[more]) for more in CALIBRATION}
        told = _beforehand(both, made["T = 0.9"], number) | {"share": share}
        found[str(number)] = {"beforehand": told, "rows": rows}
    return found


def _beforehand(history: History, made: Sequence[Weights], number: int) -> dict[str, float]:
    """Return what is left of the client's first and last update, and how long the change is."""
    model, first = history.models[number], history.models[0]
    change = _sum([(1.0, made[number - 1]), (-1.0, model)])
    progress = _sum([(1.0, model), (-1.0, first)])
    found = {
        name: left_in(model, history.models[at], history.updates[at], history.models[at])
        for name, at in (("first", 0), ("last", number - 1))
    }
    return found | {"length": length(change.values()) / length(progress.values())}


def measure(seeds: Sequence[int], rounds: Sequence[int]) -> dict[str, Any]:
    """Return strategy -> partition -> round -> figures, each as mean and spread over the seeds.

    Args:
        seeds: of the federations.
        rounds: after which a client leaves.
    """
    return {
        strategy: {
            kind: spread([measure_one(kind, strategy, seed, rounds) for seed in seeds])
            for kind in PARTITIONS
        }
        for strategy in STRATEGIES
    }


def spread(found: Sequence[Any]) -> Any:
    """Return figures of several seeds as means and standard deviations, as nested as they are."""
    first = found[0]
    if isinstance(first, Mapping):
        return {key: spread([one[key] for one in found]) for key in first}
    return {"mean": statistics.fmean(found), "spread": statistics.pstdev(found)}


def tables(figures: Mapping[str, Any]) -> str:
    """Return the figures as tables in Markdown: AUC / forget accuracy / test accuracy."""
    texts = []
    for strategy, kinds in figures.items():
        for kind, found in kinds.items():
            rows = list(next(iter(found.values()))["rows"])
            heads = ["rounds", "calibration", *rows, "c first", "c last", "share", "length"]
            lines = [heads, ["---:"] * len(heads)]
            for number, one in found.items():
                for more in CALIBRATION:
                    cells = [_cell(one["rows"][row][str(more)]) for row in rows]
                    told = [
                        f"{one['beforehand'][name]['mean']:.2f}"
                        for name in ("first", "last", "share", "length")
                    ]
                    lines.append([number, str(more), *cells, *(told if not more else [""] * 4)])
            shown = "\n".join(f"| {' | '.join(line)} |" for line in lines)
            texts.append(f"{strategy}, {kind} data\n\n{shown}")
    return "\n\n".join(texts)


def _cell(one: Mapping[str, Mapping[str, float]]) -> str:
    auc, forget, accuracy = (one[name]["mean"] for name in ("auc", "forget", "accuracy"))
    return f"{auc:.3f} / {forget:.1f} / {accuracy:.1f}"


def _accuracy(logits: Tensor, samples: Samples) -> float:
    return 100.0 * (logits.argmax(1) == samples.targets).float().mean().item()


def _sum(terms: Iterable[tuple[float, Weights]]) -> Weights:
    """Return a weighted sum of weights."""
    listed = list(terms)
    return {
        name: sum((f * one[name] for f, one in listed), torch.zeros(())) for name in listed[0][1]
    }


def main() -> None:
    """Measure, print the tables, and store the figures."""
    parser = argparse.ArgumentParser(description="A client leaves a federation after some rounds.")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(range(options.seeds), ROUNDS)
    print(tables(found))
    if options.out is not None:
        environment = {
            "data": "fashion-mnist",
            "seeds": options.seeds,
            "clients": CLIENTS,
            "samples": SAMPLES,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "machine": platform.machine(),
        }
        content = {"environment": environment, "figures": found}
        write_atomic(options.out, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
