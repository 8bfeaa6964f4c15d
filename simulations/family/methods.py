"""Methods that make a family forget samples of its base.

Methods of others are applied to the base and to each fine-tune in turn, as is done today; changes
are computed at the base alone and handed down.  Members that are computed from others are computed
again for all methods alike, and adapters stay as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from disinherit.common.deltas.changes import add, difference
from disinherit.common.fiun.unlearning import unlearn_parameters
from disinherit.simulations.family.campaign import step_root
from disinherit.simulations.family.language_model import (
    Weights,
    batches,
    each_loss,
    load,
    mean_loss,
    sequence_losses,
    state,
    train,
)
from disinherit.simulations.family.members import TRAINED, Family, data_of, derive
from disinherit.simulations.family.problem import FamilyProblem

_ROUNDS = 12
"""Most passes over the samples to forget."""

_RATE = 5e-4
_BETA = 0.1  # of NPO
_REPAIR_STEPS, _REPAIR_RATE = 30, 2e-4
_THRESHOLDS = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)


Method = Callable[[FamilyProblem], Family]


def untouched(problem: FamilyProblem) -> Family:
    """Return the family as it is."""
    return problem.family


def one_by_one(
    problem: FamilyProblem, unlearn: Callable[[FamilyProblem, str, nn.Module], None]
) -> Family:
    """Unlearn in the base and each fine-tune, one after the other."""
    weights = dict(problem.family.weights)
    for member in TRAINED:
        network = load(problem.family.network(), weights[member])
        unlearn(problem, member, network)
        weights[member] = state(network)
    return derive(replace(problem.family, weights=weights))


def ascend(
    problem: FamilyProblem,
    member: str,
    network: nn.Module,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    keeps: bool,
) -> None:
    """Train away from the samples to forget until they are as surprising as unseen ones, in place.

    Args:
        problem: what is to be forgotten.
        member: the member of the family.
        network: the network of the member.
        loss: loss of samples to forget, of their losses now and before, `[n]`.
        keeps: whether to train on retained samples of the base at the same time.
    """
    losses = sequence_losses(network, list(problem.forget.values()))
    before = dict(zip(problem.forget, losses, strict=True))
    retained = iter(batches(problem.retain, 10_000, problem.seed))
    for turn in range(_ROUNDS):
        if problem.forgotten_in(network):
            return

        def value(one: nn.Module, ids: list[str]) -> Tensor:
            now = each_loss(one, [problem.forget[id] for id in ids])
            total = loss(now, torch.stack([before[id] for id in ids]))
            return total + mean_loss(one, problem.retain, next(retained)) if keeps else total

        train(network, problem.forget, epochs=1, rate=_RATE, seed=turn, loss=value, warm=False)


def ascent(now: Tensor, before: Tensor) -> Tensor:
    """Return the loss of gradient ascent (Jang et al., arXiv 2210.01504)."""
    return -now.mean()


def negative_preference(now: Tensor, before: Tensor) -> Tensor:
    """Return the loss of NPO (Zhang et al., arXiv 2404.05868), per token instead of per text."""
    return -2 / _BETA * nn.functional.logsigmoid(_BETA * (now - before)).mean()


def subtract_task(problem: FamilyProblem, member: str, network: nn.Module) -> None:
    """Subtract what training on the samples to forget adds (Ilharco et al., arXiv 2212.04089)."""
    _subtract(problem, network, state(network))


def subtract_state(problem: FamilyProblem, member: str, network: nn.Module) -> None:
    """Subtract what it adds to an earlier state of the base (MSA, arXiv 2506.20941)."""
    _subtract(problem, network, problem.family.halfway)


def _subtract(problem: FamilyProblem, network: nn.Module, start: Weights) -> None:
    weights = state(network)
    other = load(problem.family.network(), start)
    train(other, problem.forget, epochs=_ROUNDS, rate=_RATE, seed=problem.seed, warm=False)
    task = difference(start, state(other))
    for strength in (0.5, 1.0, 2.0, 4.0):
        less = {name: value.clone() for name, value in weights.items()}
        add(less, [(task, -strength)])
        load(network, less)
        if problem.forgotten_in(network):
            return


def dampened(problem: FamilyProblem) -> Family:
    """Hand down importance: Fisher information of the samples at the base (FIUn, selected alone).

    The threshold is the highest, of a few, at which the base finds the samples as surprising as
    unseen ones; descendants have it from there.
    """
    family = problem.family
    base = load(family.network(), family.weights["base"])
    wanted = _squares(base, problem.forget)
    chosen = _THRESHOLDS[-1]
    everything = _squares(base, {**problem.forget, **problem.retain})
    for threshold in _THRESHOLDS:
        found = unlearn_parameters(family.weights["base"], wanted, everything, alpha=threshold)
        if problem.forgotten_in(load(base, found.parameters)):
            chosen = threshold
            break
    weights = dict(family.weights)
    for member in TRAINED:
        network = load(base, weights[member])
        own = everything if member == "base" else _squares(network, data_of(problem.corpus, member))
        weights[member] = unlearn_parameters(weights[member], wanted, own, alpha=chosen).parameters
    return derive(replace(family, weights=weights))


def _squares(network: nn.Module, sequences: Mapping[str, Sequence[int]]) -> Weights:
    """Return the mean squared gradient of sequences, the diagonal Fisher information."""
    total = {name: torch.zeros_like(value) for name, value in network.named_parameters()}
    for id in sequences:
        network.zero_grad()
        mean_loss(network, sequences, [id]).backward()
        for name, value in network.named_parameters():
            if value.grad is not None:
                total[name] += value.grad**2
    network.zero_grad()
    return {name: value / len(sequences) for name, value in total.items()}


def handed_down(
    problem: FamilyProblem, root: Callable[[FamilyProblem], Weights], *, repairs: bool = False
) -> Family:
    """Change the base alone, and add its change to its fine-tunes.

    Args:
        problem: what is to be forgotten.
        root: returns the new weights of the base.
        repairs: whether each fine-tune takes a few steps on its own data after it.
    """
    family = problem.family
    weights = dict(family.weights)
    weights["base"] = root(problem)
    change = difference(family.weights["base"], weights["base"])
    for member in TRAINED[1:]:
        weights[member] = {name: value.clone() for name, value in weights[member].items()}
        add(weights[member], [(change, 1.0)])
        if repairs:
            network = load(family.network(), weights[member])
            train(
                network,
                data_of(problem.corpus, member),
                epochs=_REPAIR_STEPS,
                rate=_REPAIR_RATE,
                seed=problem.seed,
                steps=_REPAIR_STEPS,
            )
            weights[member] = state(network)
    return derive(replace(family, weights=weights))


def replayed_root(problem: FamilyProblem) -> Weights:
    """Return the base, trained again without the samples."""
    return problem.replayed


def descended_root(problem: FamilyProblem) -> Weights:
    """Return the base after training away from the samples while it keeps the others."""
    network = load(problem.family.network(), problem.family.weights["base"])
    ascend(problem, "base", network, loss=ascent, keeps=True)
    return state(network)


EKFAC = "change: EK-FAC"
"""The method that needs the curvature of the base."""

METHODS: Mapping[str, Method] = {
    "no-op": untouched,
    "gradient ascent": partial(one_by_one, unlearn=partial(ascend, loss=ascent, keeps=False)),
    "gradient difference": partial(one_by_one, unlearn=partial(ascend, loss=ascent, keeps=True)),
    "NPO": partial(one_by_one, unlearn=partial(ascend, loss=negative_preference, keeps=True)),
    "task vector": partial(one_by_one, unlearn=subtract_task),
    "MSA": partial(one_by_one, unlearn=subtract_state),
    "Fisher information, inherited": dampened,
    "change: gradient difference": partial(handed_down, root=descended_root),
    EKFAC: partial(handed_down, root=step_root),
    "change: replay": partial(handed_down, root=replayed_root),
    "change: replay, repair": partial(handed_down, root=replayed_root, repairs=True),
}
"""Name of a method -> what it makes of a family."""
