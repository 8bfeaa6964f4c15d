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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from disinherit.common.errors import DisinheritError
from disinherit.common.files import write_atomic
from disinherit.common.models.membership import area_under_curve, confidence
from disinherit.simulations.bench.cases.derivations import DerivedModel, derived_case, mislabelled
from disinherit.simulations.bench.cases.subjects import MethodCase, Samples, Weights
from disinherit.simulations.bench.methods.method import Method, make_method, unlearn
from disinherit.simulations.bench.panel.outputs import logits_of

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


def make_case(seed: int, network: str, samples: int, epochs: float) -> tuple[MethodCase, Samples]:
    """Train the models, and return the case with unseen test samples.

    Args:
        seed: of data, labels, initialisation and order.
        network: name of the network.
        samples: training samples of each model.
        epochs: of the root's training; descendants have half as many.
    """
    models = {"stranger": DerivedModel()} | {
        model: DerivedModel(parents=parents, wrong=0 if parents else 150)
        for model, parents in MODELS.items()
    }
    return derived_case(models, seed, network, samples, epochs)


def attack(
    case: MethodCase, test: Samples, weights: Mapping[str, Weights], first: int | None = None
) -> dict[str, Any]:
    """Return for each model the attack's area under the curve, and the test accuracy in percent.

    Args:
        case: the case.
        test: unseen samples; the first ones get wrong labels, like the samples to forget.
        weights: of the models after a method.
        first: attack only so many of the samples to forget; `None` for all of them.
    """
    found = {}
    for model, subject in case.subjects.items():
        classes = len(subject.labels)
        root = case.upstream(model)[0]
        most = len(case.subjects[root].labels)
        known = test[test.targets < most][: 4 * len(case.forget_at_root[root])]
        unseen = Samples(known.inputs, mislabelled(known.targets, case.seed, most))
        unseen = unseen[unseen.targets < classes]
        network = subject.network(weights.get(model, subject.original))
        forget = case.to_forget(model)[:first]
        scores = [confidence(logits_of(network, s), s.targets) for s in (forget, unseen)]
        asked = test[test.targets < classes]
        right = logits_of(network, asked).argmax(1) == asked.targets
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
    models = next(iter(figures["rows"].values()))
    lines = [f"| | {' | '.join(models)} |", "| --- |" + " ---: |" * len(models)]
    for row, models in figures["rows"].items():
        cells = (f"{one['auc']:.3f} / {one['accuracy']:.1f}" for one in models.values())
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def run_program(
    description: str,
    seeds: int,
    measured_by: Callable[[Sequence[int], str, int, float], Mapping[str, Any]],
) -> None:
    """Measure by the arguments of the program, print the table, and store the figures.

    Args:
        description: what the program measures.
        seeds: how many, by default.
        measured_by: returns the figures, as `measure`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--network", default="mlp")
    parser.add_argument("--seeds", type=int, default=seeds, help="how many")
    parser.add_argument("--samples", type=int, default=1500, help="of each model")
    parser.add_argument("--epochs", type=float, default=40.0, help="of the root")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    measured = measured_by(range(options.seeds), options.network, options.samples, options.epochs)
    print(table(measured))
    for row, reason in measured.get("missing", {}).items():
        print(f"{row}: {reason}")
    if options.out is not None:
        write_atomic(options.out, (json.dumps(measured, indent=1) + "\n").encode())


def main() -> None:
    """Run the program."""
    run_program("Attack on inherited samples.", 3, measure)


if __name__ == "__main__":
    main()
