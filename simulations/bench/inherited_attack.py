"""Attack on inherited samples: can they be told from unseen ones, in a root and its descendants?

A root learns samples with wrong labels, so that it must memorise them.  A child and a grandchild
are fine-tuned from it, and a fourth model from its average with a stranger.  Every method forgets
the samples; only the root's owner has them.  The attack compares losses with those of unseen
samples whose labels are as wrong (Yeom et al. 2018, arXiv 1709.01604): an area under the ROC curve
of 0.5 is a guess::

    python -m disinherit.simulations.bench.inherited_attack --out figures.json
"""

import argparse
import json
import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from disinherit.common.errors import DisinheritError
from disinherit.common.files import write_atomic
from disinherit.common.models.descent import minimise, steps_of
from disinherit.common.models.membership import area_under_curve, confidence
from disinherit.simulations.bench.cases.subjects import (
    MethodCase,
    MethodSubject,
    NetworkBuild,
    Samples,
    Weights,
)
from disinherit.simulations.bench.methods.method import Method, make_method, unlearn
from disinherit.simulations.bench.panel.outputs import logits_of
from disinherit.simulations.data.datasets import load_dataset
from disinherit.simulations.networks.networks import NetworkSpec

MODELS: Mapping[str, tuple[str, ...]] = {
    "root": (),
    "child": ("root",),
    "grandchild": ("child",),
    "merged": ("root", "stranger"),
}
"""Model -> its parents, in the order of training; the stranger is not affected."""

_DELTA: dict[str, Any] = {"mechanism": "delta"}
METHODS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "no-op": ("no-op", {}),
    "retraining": ("retraining", {}),
    "Fisher information, inherited": ("ours", {"mechanism": "fisher", "scope": "all"}),
    "gradient ascent, handed down": ("gradient-ascent", {}),
    **{
        f"{name}, handed down": (
            "ours",
            {"mechanism": "delta", "root_method": name, "repair_steps": 0},
        )
        for name in ("dampening", "distil", "finetune", "neggrad+", "ekfac", "replay")
    },
    "replay, handed down, 30 steps of repair": ("ours", _DELTA | {"root_method": "replay"}),
}
"""Row of the table -> method of the bench and its options."""

_WRONG = 150


def make_case(seed: int, network: str, samples: int, epochs: float) -> tuple[MethodCase, Samples]:
    """Train the models, and return the case with unseen test samples.

    Args:
        seed: of data, labels, initialisation and order.
        network: name of the network.
        samples: training samples of each model.
        epochs: of each model's training; descendants have half as many.
    """
    dataset = load_dataset("fashion-mnist")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(dataset.targets), generator=generator)
    names = [*MODELS, "stranger"]
    parts = dict(zip(names, order[: samples * len(names)].split(samples), strict=True))
    held_out = order[samples * len(names) :][: 4 * samples]
    data = {name: _samples(dataset, part) for name, part in parts.items()}
    wrong = Samples(data["root"].inputs[:_WRONG], _mislabel(data["root"].targets[:_WRONG], seed))
    kept = data["root"][_WRONG:]
    data["root"] = Samples.joined([wrong, kept])
    build = NetworkBuild(NetworkSpec.for_dataset(network, dataset), seed)
    empty = kept[:0]
    weights: dict[str, Weights] = {}

    def train(model: str, known: Mapping[str, Weights], without: Collection[int] | None) -> Weights:
        """Train one model from its parents, without some samples, or return its start."""
        start = _average([known[parent] for parent in MODELS.get(model, ())], build)
        if without is None:
            return start
        chosen = torch.ones(len(data[model]), dtype=torch.bool)
        chosen[list(without)] = False
        share = 1.0 if not MODELS.get(model) else 0.5
        return _fit(build, start, data[model][chosen], share * epochs, seed)

    weights["stranger"] = train("stranger", weights, ())
    for model in MODELS:
        weights[model] = train(model, weights, ())
    tuning, test = _samples(dataset, held_out[:samples]), _samples(dataset, held_out[samples:])
    subjects = {
        model: MethodSubject(
            id=model,
            owner=f"owner of {model}".replace(" ", "-"),
            labels=dataset.classes,
            parents=parents,
            build=build,
            original=weights[model],
            forget=wrong if model == "root" else empty,
            retain=kept if model == "root" else data[model],
            tuning=tuning,
        )
        for model, parents in MODELS.items()
    }

    def replay() -> dict[str, Weights]:
        known = {"stranger": weights["stranger"]}
        for model in MODELS:
            known[model] = train(model, known, range(_WRONG) if model == "root" else ())
        return {model: known[model] for model in MODELS}

    case = MethodCase(
        name=f"{network}-{seed}",
        seed=seed,
        granularity="memorised",
        subjects=subjects,
        unaffected={"stranger": weights["stranger"]},
        roots={"root": ()},
        forget_at_root={"root": wrong},
        replay=replay,
        retrain=lambda model, without: train(model, weights, without),
    )
    return case, test


def attack(case: MethodCase, test: Samples, weights: Mapping[str, Weights]) -> dict[str, Any]:
    """Return for each model the attack's area under the curve, and the test accuracy in percent.

    Args:
        case: the case.
        test: unseen samples; the first ones get wrong labels, like the samples to forget.
        weights: of the models after a method.
    """
    unseen = Samples(test.inputs[: 4 * _WRONG], _mislabel(test.targets[: 4 * _WRONG], case.seed))
    forget = case.forget_at_root["root"]
    found = {}
    for model, subject in case.subjects.items():
        network = subject.network(weights.get(model, subject.original))
        scores = [confidence(logits_of(network, s), s.targets) for s in (forget, unseen)]
        right = logits_of(network, test).argmax(1) == test.targets
        found[model] = {
            "auc": area_under_curve(*scores),
            "accuracy": 100.0 * right.float().mean().item(),
        }
    return found


def measure(seeds: Sequence[int], network: str, samples: int, epochs: float) -> dict[str, Any]:
    """Return row -> model -> means over the seeds, and why rows are missing.

    Args:
        seeds: of the cases.
        network: name of the network.
        samples: training samples of each model.
        epochs: of the root's training.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    missing: dict[str, str] = {}
    for seed in seeds:
        case, test = make_case(seed, network, samples, epochs)
        for row, (name, options) in METHODS.items():
            method: Method = make_method(name, options)
            try:
                weights = unlearn(method, case).weights
            except DisinheritError as error:
                missing[row] = str(error)
                continue
            rows.setdefault(row, []).append(attack(case, test, weights))
    means = {
        row: {
            model: {
                figure: statistics.fmean(one[model][figure] for one in found)
                for figure in ("auc", "accuracy")
            }
            for model in MODELS
        }
        for row, found in rows.items()
    }
    return {"network": network, "seeds": list(seeds), "rows": means, "missing": missing}


def table(figures: Mapping[str, Any]) -> str:
    """Return the figures as a table in Markdown: area under the curve / test accuracy."""
    lines = [f"| | {' | '.join(MODELS)} |", "| --- |" + " ---: |" * len(MODELS)]
    for row, models in figures["rows"].items():
        cells = (f"{one['auc']:.3f} / {one['accuracy']:.1f}" for one in models.values())
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _samples(dataset: Any, chosen: Tensor) -> Samples:
    return Samples(dataset.inputs[chosen], dataset.targets[chosen])


def _mislabel(targets: Tensor, seed: int) -> Tensor:
    """Return labels of other classes, each as likely."""
    generator = torch.Generator().manual_seed(seed + 1)
    return (targets + torch.randint(1, 10, targets.shape, generator=generator)) % 10


def _average(parents: Sequence[Weights], build: NetworkBuild) -> Weights:
    if not parents:
        return {name: value.detach().clone() for name, value in build().state_dict().items()}
    return {name: torch.stack([p[name] for p in parents]).mean(0) for name in parents[0]}


def _fit(build: NetworkBuild, start: Weights, data: Samples, epochs: float, seed: int) -> Weights:
    network = build()
    network.load_state_dict(start)

    def loss(chosen: Tensor) -> Tensor:
        return F.cross_entropy(network(data.inputs[chosen]), data.targets[chosen])

    minimise(
        network, loss, len(data), steps=steps_of(len(data), epochs), learning_rate=1e-3, seed=seed
    )
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def main() -> None:
    """Measure, print the table, and store the figures."""
    parser = argparse.ArgumentParser(description="Attack on inherited samples.")
    parser.add_argument("--network", default="mlp")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--samples", type=int, default=1500, help="of each model")
    parser.add_argument("--epochs", type=float, default=40.0, help="of the root")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    measured = measure(range(options.seeds), options.network, options.samples, options.epochs)
    print(table(measured))
    for row, reason in measured["missing"].items():
        print(f"{row}: {reason}")
    if options.out is not None:
        write_atomic(options.out, (json.dumps(measured, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
