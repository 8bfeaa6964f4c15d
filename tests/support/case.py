"""A small real case in seconds: digits, a two-layer network, four models that inherit.

    base (unaffected) -> r1 (root) -> r2
    base, r2 -> r3

Everything follows from the seed, so that a replay gives the same weights bit for bit.
"""

import functools
import time
from collections.abc import Collection

import torch
from torch import Tensor

from disinherit.simulations.bench.cases.subjects import (
    Case,
    Granularity,
    NetworkBuild,
    Samples,
    Subject,
    Weights,
)
from disinherit.simulations.data.datasets import load_dataset
from disinherit.simulations.networks.networks import NetworkSpec
from disinherit.simulations.run.fitting import fit_batches
from disinherit.simulations.scenario.inheriting import average
from disinherit.simulations.scenario.settings import Settings
from disinherit.simulations.scenario.topology import model_seed

PARENTS = {"base": (), "r1": ("base",), "r2": ("r1",), "r3": ("base", "r2")}
FORGOTTEN = 3
_SETTINGS = Settings(dataset="digits", forget={}, network="mlp", epochs=30, learning_rate=3e-3)


@functools.cache
def digits_case(seed: int = 0, granularity: Granularity = "class") -> Case:
    """The case of forgetting, at `r1`, the digit 3, or 25 of its samples with a wrong label."""
    torch.set_num_threads(1)  # sums are split alike everywhere, and small ones are faster
    dataset = load_dataset("digits")
    targets = dataset.targets.clone()
    spec = NetworkSpec.for_dataset("mlp", dataset)
    build = NetworkBuild(spec, seed)
    order = torch.randperm(len(dataset.targets), generator=torch.Generator().manual_seed(seed))
    held = order.split([300, 300, 300, 300, 200, len(order) - 1400])
    shares = dict(zip(PARENTS, held, strict=False))
    tuning, test = held[4], held[5]
    by_class = granularity == "class"

    if not by_class:
        targets[shares["r1"][:25]] = (targets[shares["r1"][:25]] + 1) % 10

    def to_forget(model: str, indices: Tensor) -> Tensor:
        if by_class:
            return targets[indices] == FORGOTTEN
        mask = torch.zeros(len(indices), dtype=torch.bool)
        mask[:25] = model == "r1"
        return mask

    def samples(indices: Tensor) -> Samples:
        return Samples(dataset.inputs[indices], targets[indices])

    def fit(models: Collection[str], known: dict[str, Weights], *, replay: bool) -> None:
        for model in models:
            share = shares[model]
            left_out = to_forget(model, share)
            if not replay and model != "base":
                left_out = torch.zeros_like(left_out)
            known[model] = derived(model, known, samples(share[~left_out]), model_seed(seed, model))

    def derived(model: str, known: dict[str, Weights], own: Samples, seed: int) -> Weights:
        parents = [known[parent] for parent in PARENTS[model]]
        start = average(parents, [1 / len(parents)] * len(parents)) if parents else None
        device = torch.device("cpu")
        return fit_batches(
            _SETTINGS, spec.build(build.seed), own.batches(64), start, "all", seed, device
        )

    affected = ("r1", "r2", "r3")
    original: dict[str, Weights] = {}
    started = time.perf_counter()
    fit(list(PARENTS), original, replay=False)
    train_seconds = time.perf_counter() - started

    def replay() -> dict[str, Weights]:
        known = {"base": original["base"]}
        fit(affected, known, replay=True)
        return {model: known[model] for model in affected}

    def retrain(model: str, without: Collection[int] | None) -> Weights:
        if without is None:
            parents = [original[parent] for parent in PARENTS[model]]
            return average(parents, [1 / len(parents)] * len(parents))
        mask = to_forget(model, shares[model])
        own = torch.cat([shares[model][mask], shares[model][~mask]])
        left = ~torch.isin(shares[model], own[sorted(without)])
        seed_of_model = model_seed(seed, model)
        return derived(model, original, samples(shares[model][left]), seed_of_model)

    started = time.perf_counter()
    retrained = replay()
    retrain_seconds = time.perf_counter() - started

    def subject(model: str) -> Subject:
        mask = to_forget(model, shares[model])
        tested = samples(test)
        known = tested.targets == FORGOTTEN if by_class else torch.zeros(len(test)).bool()
        return Subject(
            id=model,
            owner=f"owner-{model}",
            labels=dataset.classes,
            parents=PARENTS[model],
            build=build,
            original=original[model],
            forget=samples(shares[model][mask]),
            retain=samples(shares[model][~mask]),
            tuning=samples(tuning),
            retrained=retrained[model],
            test_forget=tested[known],
            test_retain=tested[~known],
        )

    subjects = {model: subject(model) for model in affected}
    return Case(
        name="digits-diamond",
        seed=seed,
        granularity=granularity,
        subjects=subjects,
        unaffected={"base": original["base"]},
        roots={"r1": (str(FORGOTTEN),) if by_class else ()},
        forget_at_root={"r1": subjects["r1"].forget},
        replay=replay,
        retrain=retrain,
        train_seconds=train_seconds,
        retrain_seconds=retrain_seconds,
        refit=lambda root, own, seed: derived(root, original, own, seed),
    )
