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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from disinherit.common.deltas.changes import left_in, length
from disinherit.common.files import write_atomic
from disinherit.common.models.membership import area_under_curve, confidence
from disinherit.server.planning.coefficients import KEPT_OF_CLIENT
from disinherit.simulations.bench.cases.subjects import Samples, Weights
from disinherit.simulations.bench.federation import (
    CLIENTS,
    PARTITIONS,
    SAMPLES,
    STRATEGIES,
    Clients,
    History,
    Server,
    fed_avg,
    federate,
    forward,
    weighted_sum,
)

ROUNDS = (1, 5, 10, 20, 50)
CALIBRATION = (0, 1, 3)


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
        made.append(server(made[-1], weighted_sum(terms)))
    return made[1:]


def by_shares(history: History, share: float, kept: float) -> list[Weights]:
    """Return global models with their shares of the client's changes, as all descendants get them.

    Arguments as for `taken_out`.
    """
    made = []
    change = weighted_sum([(0.0, history.models[0])])
    for number, update in enumerate(history.updates):
        start = history.models[number]
        # An aggregate whose computation is not known counts as trained on.
        change = weighted_sum([(kept * share, start), (-kept * share, update), (kept, change)])
        made.append(weighted_sum([(1.0, history.models[number + 1]), (1.0, change)]))
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
    change = weighted_sum([(1.0, made[number - 1]), (-1.0, model)])
    progress = weighted_sum([(1.0, model), (-1.0, first)])
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
