"""Ways to add the change of a replayed root to its descendants, with and without repair.

Whole; with the strength that the descendant's own tuning split bears; attenuated in the
descendant's own curvature; and, as chosen, attenuated where the tuning split gains by it.  Models
and attack are those of `inherited_attack`::

    python -m disinherit.simulations.bench.adding_ways --out figures.json
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from disinherit.client.dampening.repair import repair
from disinherit.common.curvature.attenuation import DAMPING, attenuated
from disinherit.common.curvature.ekfac import measure as measure_curvature
from disinherit.simulations.bench.cases.subjects import MethodCase, MethodSubject, Weights
from disinherit.simulations.bench.inherited_attack import attack, make_case, run_program
from disinherit.simulations.bench.panel.outputs import logits_of

SHARES: Mapping[str, float] = {"child": 1.0, "grandchild": 1.0, "merged": 0.5}
STRENGTHS = (1.0, 0.85, 0.7, 0.5, 0.35, 0.25)
DAMPINGS = (3.0, 10.0, 30.0, 100.0)
MOST_RISE = 0.05
_STEPS = 30
_CPU = torch.device("cpu")


def added(subject: MethodSubject, change: Mapping[str, Tensor], share: float) -> Weights:
    """Return a model's weights with a share of a change."""
    return {name: value + share * change[name] for name, value in subject.original.items()}


def repaired(subject: MethodSubject, weights: Weights, seed: int) -> Weights:
    """Return weights after steps of repair on the model's own data."""
    network = subject.network(weights)
    parameters = dict(network.named_parameters())
    kept = subject.retain.batches(256)
    return weights | repair(network, parameters, kept, (), steps=_STEPS, seed=seed, device=_CPU)


def ways(case: MethodCase, model: str, change: Mapping[str, Tensor]) -> dict[str, Weights]:
    """Return way -> weights of a descendant.

    Args:
        case: the case.
        model: the descendant.
        change: of the root.
    """
    subject, share = case.subjects[model], SHARES[model]
    network = subject.network(subject.original)
    names = [name for name, _ in network.named_parameters()]
    curvature = measure_curvature(network, names, subject.retain.batches(256), _CPU)

    def loss(weights: Weights) -> float:
        logits = logits_of(subject.network(weights), subject.tuning)
        return F.cross_entropy(logits, subject.tuning.targets).item()

    by_strength = {s: added(subject, change, s * share) for s in STRENGTHS}
    bearable = loss(subject.original) + MOST_RISE
    tuned = next((s for s in STRENGTHS if loss(by_strength[s]) <= bearable), STRENGTHS[-1])
    after = {s: repaired(subject, by_strength[s], case.seed) for s in STRENGTHS}
    best = min(STRENGTHS, key=lambda s: loss(after[s]))
    found = {
        "no-op": subject.original,
        "whole": by_strength[1.0],
        "whole, repair": after[1.0],
        "strength tuned": by_strength[tuned],
        "strength tuned after repair": after[best],
    }
    for damping in DAMPINGS:
        weights = added(subject, attenuated(change, curvature, damping), share)
        found[f"attenuated, {damping:g}"] = weights
        found[f"attenuated, {damping:g}, repair"] = repaired(subject, weights, case.seed)
    gentle = f"attenuated, {DAMPING:g}"
    chosen = gentle if loss(found[gentle]) < loss(found["whole"]) else "whole"
    return found | {"chosen": found[chosen], "chosen, repair": found[f"{chosen}, repair"]}


def measure(seeds: Sequence[int], network: str, samples: int, epochs: float) -> dict[str, Any]:
    """Return way -> model -> means of the attack's area and of the test accuracy.

    Args:
        seeds: of the cases.
        network: name of the network.
        samples: training samples of each model.
        epochs: of the root's training.
    """
    rows: dict[str, dict[str, list[dict[str, float]]]] = {}
    for seed in seeds:
        case, test = make_case(seed, network, samples, epochs)
        (root,) = case.roots
        new = case.retrain(root, range(len(case.forget_at_root[root])))
        change = {name: new[name] - old for name, old in case.subjects[root].original.items()}
        exact = case.replay()
        for model in SHARES:
            for way, weights in ({"retraining": exact[model]} | ways(case, model, change)).items():
                figures = attack(case, test, {model: weights})[model]
                rows.setdefault(way, {}).setdefault(model, []).append(figures)
    means = {
        way: {
            model: {key: statistics.fmean(one[key] for one in of) for key in ("auc", "accuracy")}
            for model, of in models.items()
        }
        for way, models in rows.items()
    }
    return {"network": network, "seeds": list(seeds), "rows": means}


def main() -> None:
    """Run the program."""
    run_program("Ways to add a root's change.", 6, measure)


if __name__ == "__main__":
    main()
