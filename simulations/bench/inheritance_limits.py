"""Where handing down the change of a root ends, and whether that can be told beforehand.

Roots learn samples with wrong labels, are retrained without them, and hand their change down: over
long chains, to averages of many, after strong fine-tuning, from several roots, ten times in a row,
over other label spaces, and to a twin that is registered as a child but is none.  Beside the attack
and the accuracy stands c, what is left of the root's update in a model, which needs no data::

    python -m disinherit.simulations.bench.inheritance_limits --out figures.json
"""

import argparse
import itertools
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from disinherit.common.deltas.changes import left_in
from disinherit.common.files import write_atomic
from disinherit.common.method import Method
from disinherit.simulations.bench.cases.derivations import DerivedModel, derived_case
from disinherit.simulations.bench.cases.subjects import MethodCase, Samples, Weights
from disinherit.simulations.bench.inherited_attack import attack
from disinherit.simulations.bench.methods.campaign import run_campaign
from disinherit.simulations.bench.methods.handing_down import (
    coefficients_of,
    difference,
    hand_down,
    repaired,
)

WRONG = 150
REPAIR_STEPS = 30
REQUESTS = 10
_ROOT = {"root": DerivedModel(wrong=WRONG)}


def _chain(depths: Iterable[int]) -> dict[str, DerivedModel]:
    """Return a chain of fine-tunes as long as the greatest depth."""
    names = ["root", *(f"depth-{depth}" for depth in range(1, max(depths) + 1))]
    return _ROOT | {
        name: DerivedModel(parents=(parent,)) for parent, name in itertools.pairwise(names)
    }


def _averages(sizes: Sequence[int]) -> dict[str, DerivedModel]:
    """Return averages of the root with strangers that started as it did."""
    strangers = {f"stranger-{at}": DerivedModel() for at in range(1, max(sizes))}
    averages = {
        f"average-of-{size}": DerivedModel(parents=("root", *list(strangers)[: size - 1]))
        for size in sizes
    }
    return strangers | _ROOT | averages


def _several(count: int) -> dict[str, DerivedModel]:
    """Return so many roots, their average, and a child of that."""
    roots = {f"root-{at}": DerivedModel(wrong=WRONG) for at in range(1, count + 1)}
    merged = f"average-of-{count}-roots"
    return roots | {
        merged: DerivedModel(parents=tuple(roots)),
        f"child-of-{count}-roots": DerivedModel(parents=(merged,)),
    }


DEPTHS = (1, 2, 5, 10, 20, 50)

STUDIES: Mapping[str, Mapping[str, DerivedModel]] = {
    "twins": _ROOT
    | {
        "child": DerivedModel(parents=("root",)),
        "twin-same-start": DerivedModel(recorded=("root",)),
        "twin-other-start": DerivedModel(recorded=("root",), initialisation=1000),
    },
    "averages": _averages((2, 4, 10)),
    "learning rates": _ROOT
    | {
        f"learning-rate-{rate:g}": DerivedModel(parents=("root",), learning_rate=rate)
        for rate in (1e-3, 3e-3, 1e-2, 3e-2)
    },
    "2 roots": _several(2),
    "5 roots": _several(5),
    "label spaces": {
        "root": DerivedModel(wrong=WRONG, classes=8),
        "same-8-classes": DerivedModel(parents=("root",), classes=8),
        "3-classes-fewer": DerivedModel(parents=("root",), classes=5),
        "2-classes-more": DerivedModel(parents=("root",)),
        "new-head": DerivedModel(parents=("root",), classes=8, new_head=True, initialisation=1000),
    },
    "depth": _chain(DEPTHS),
}
"""Study -> its models."""

SHOWN = {"depth": ("root", *(f"depth-{depth}" for depth in DEPTHS))}
"""Study -> the models that its table has; all of them where it is not named."""


def compare(case: MethodCase, test: Samples) -> dict[str, Any]:
    """Return what handing down makes of every model, beside c and retraining.

    Args:
        case: the case.
        test: unseen samples, as for `attack`.
    """
    coefficients = coefficients_of(case)
    left = {model: left_of(case, model) for model in case.subjects}
    new = {root: case.retrain(root, range(len(case.forget_at_root[root]))) for root in case.roots}
    changes = {root: difference(case.subjects[root], new[root]) for root in case.roots}
    at_most = {
        model: {root: min(share, max(left[model][root], 0.0)) for root, share in shares.items()}
        for model, shares in coefficients.items()
    }
    originals = {model: subject.original for model, subject in case.subjects.items()}
    handed = hand_down(case, originals, changes, coefficients)
    at_most_left = hand_down(case, originals, changes, at_most)
    rows: dict[str, Mapping[str, Weights]] = {
        "no-op": originals,
        "retrained": case.replay(),
        "handed down": handed,
        "handed down, repair": repaired(case, handed, REPAIR_STEPS),
        "at most c": at_most_left,
        "at most c, repair": repaired(case, at_most_left, REPAIR_STEPS),
        "head left as it is": hand_down(case, originals, changes, coefficients, head=False),
        "repair alone": repaired(case, originals, REPAIR_STEPS),
    }
    found = {row: attack(case, test, weights) for row, weights in rows.items()}
    return {
        model: {
            "coefficient": statistics.fmean(coefficients[model].values()),
            "left": statistics.fmean(left[model].values()),
            "rows": {row: models[model] for row, models in found.items()},
        }
        for model in case.subjects
    }


def left_of(case: MethodCase, model: str) -> dict[str, float]:
    """Return root -> how much of its update is left in a model."""
    found = {}
    for root in case.upstream(model):
        start = case.retrain(root, None)
        original = case.subjects[root].original
        found[root] = left_in(case.subjects[model].original, start, original, start)
    return found


def in_a_row(case: MethodCase, test: Samples, requests: int) -> dict[str, Any]:
    """Return what many requests at one root make of every model, after each of them.

    Args:
        case: a case with one root.
        test: unseen samples.
        requests: so many, each for as many of the root's samples.

    Returns:
        Request -> row -> model -> area under the curve over all that is forgotten so far, and test
        accuracy.
    """
    (root,) = case.roots
    each = len(case.forget_at_root[root]) // requests
    coefficients = coefficients_of(case)
    originals = {model: subject.original for model, subject in case.subjects.items()}
    handed, mended, before = originals, originals, originals[root]
    found: dict[str, Any] = {}
    for request in range(1, requests + 1):
        after = case.retrain(root, range(request * each))
        change = {root: {name: after[name] - value for name, value in before.items()}}
        handed = hand_down(case, handed, change, coefficients)
        mended = repaired(case, hand_down(case, mended, change, coefficients), REPAIR_STEPS)
        rows = {"no-op": originals, "handed down": handed, "handed down, repair": mended}
        if request == requests:
            rows["retrained"] = case.replay()
        found[str(request)] = {
            row: attack(case, test, weights, request * each) for row, weights in rows.items()
        }
        before = after
    return found


def outcomes(case: MethodCase) -> dict[str, Any]:
    """Return what owners say of each model in a campaign by the change of a replayed root."""
    method = Method(scope="all", mechanism="delta", root_method="replay", repair_steps=0)
    return dict(run_campaign(case, method).chosen)


def means(found: Sequence[Any]) -> Any:
    """Return figures of several seeds as their means, as nested as they are."""
    first = found[0]
    if isinstance(first, Mapping):
        return {key: means([one[key] for one in found]) for key in first}
    return statistics.fmean(found)


def measure(
    studies: Sequence[str], seeds: Sequence[int], network: str, samples: int, epochs: float
) -> dict[str, Any]:
    """Return study -> model -> its figures, as means over the seeds.

    Args:
        studies: names of `STUDIES`, or "requests".
        seeds: of the cases.
        network: name of the network.
        samples: training samples of each model.
        epochs: of a root's training.
    """
    size = (network, samples, epochs)
    found: dict[str, Any] = {}
    for study in studies:
        if study == "requests":
            line = _chain([2])
            found[study] = means(
                [in_a_row(*derived_case(line, seed, *size), REQUESTS) for seed in seeds]
            )
            continue
        models = STUDIES[study]
        found[study] = means([compare(*derived_case(models, seed, *size)) for seed in seeds])
    if "twins" in studies:
        models = STUDIES["twins"]
        one = {name: replace(how, owner="one-owner") for name, how in models.items()}
        found["outcomes"] = {
            "an owner that holds the root": outcomes(derived_case(one, seeds[0], *size)[0]),
            "owners that do not": outcomes(derived_case(models, seeds[0], *size)[0]),
        }
    return {"network": network, "samples": samples, "seeds": list(seeds), "studies": found}


def tables(figures: Mapping[str, Any]) -> str:
    """Return the figures as tables in Markdown: area under the curve / test accuracy."""
    texts = []
    for study, found in figures["studies"].items():
        if study == "outcomes":
            texts.append(f"{study}\n\n```\n{json.dumps(found, indent=1)}\n```")
        elif study == "requests":
            rows = list(found[str(REQUESTS)])
            models = list(found[str(REQUESTS)][rows[0]])
            heads = [f"{row}: {model}" for row in rows for model in models]
            lines = [
                [request, *(_cell(one.get(row, {}).get(m)) for row in rows for m in models)]
                for request, one in found.items()
            ]
            texts.append(_table(study, ["request", *heads], lines))
        else:
            shown = [m for m in SHOWN.get(study, found) if m in found]
            rows = list(found[shown[0]]["rows"])
            lines = [
                [
                    model,
                    f"{found[model]['coefficient']:.2f}",
                    f"{found[model]['left']:.2f}",
                    *(_cell(found[model]["rows"][row]) for row in rows),
                ]
                for model in shown
            ]
            texts.append(_table(study, ["model", "coefficient", "c", *rows], lines))
    return "\n\n".join(texts)


def _cell(one: Mapping[str, float] | None) -> str:
    return "" if one is None else f"{one['auc']:.3f} / {one['accuracy']:.1f}"


def _table(title: str, heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    bars = [heads, ["---", *["---:"] * (len(heads) - 1)], *lines]
    return f"{title}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in bars)


def main() -> None:
    """Measure, print the tables, and store the figures."""
    everything = [*STUDIES, "requests"]
    parser = argparse.ArgumentParser(description="Where handing down changes ends.")
    parser.add_argument("--network", default="mlp")
    parser.add_argument("--studies", nargs="+", choices=everything, default=everything)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--samples", type=int, default=1000, help="of each model")
    parser.add_argument("--epochs", type=float, default=40.0, help="of a root")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    measured = measure(
        options.studies, range(options.seeds), options.network, options.samples, options.epochs
    )
    print(tables(measured))
    if options.out is not None:
        write_atomic(options.out, (json.dumps(measured, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
