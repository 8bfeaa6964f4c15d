"""What a method changed at the roots, added to models that have nothing of their own to forget."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import torch

from disinherit.client.dampening.repair import repair
from disinherit.common.deltas.changes import add
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.server.planning.coefficients import find_coefficients
from disinherit.simulations.bench.cases.subjects import MethodCase, MethodSubject, Weights
from disinherit.simulations.bench.methods.campaign import broadcast
from disinherit.simulations.bench.methods.case_owner import graph_of
from disinherit.simulations.bench.methods.head_reset import aligned
from disinherit.simulations.bench.methods.method import Unlearned
from disinherit.simulations.bench.methods.tuning import Tuner

T = TypeVar("T")


def difference(subject: MethodSubject, new: Weights) -> Weights:
    """Return what new weights of a subject differ by from its original ones, without counters."""
    return {
        name: value - subject.original[name]
        for name, value in new.items()
        if value.is_floating_point()
    }


def with_differences(
    case: MethodCase, model: str, differences: Mapping[str, Weights], scale: float = 1.0
) -> Weights:
    """Return a model's original weights with the differences of all roots above it added.

    Args:
        case: the case.
        model: id of a subject.
        differences: root -> what it differs by.
        scale: of a difference that is not the model's own.
    """
    subject = case.subjects[model]
    weights = dict(subject.original)
    for root in case.upstream(model):
        factor = 1.0 if root == model else scale
        for name, change in aligned(differences[root], case.subjects[root], subject).items():
            weights[name] = weights[name] + factor * change
    return weights


def coefficients_of(case: MethodCase) -> dict[str, dict[str, float]]:
    """Return model -> root -> its coefficient, as a coordinator finds them."""
    graph = InheritanceGraph()
    for record, edges in graph_of(case):
        graph.add(record, edges)
    found = find_coefficients(graph, list(case.roots), list(case.subjects))
    return {model: dict(shares) for model, shares in found.items()}


def hand_down(
    case: MethodCase,
    before: Mapping[str, Weights],
    changes: Mapping[str, Weights],
    factors: Mapping[str, Mapping[str, float]],
    *,
    head: bool = True,
) -> dict[str, Weights]:
    """Return every model's weights with the changes of its roots; a root has its own in full.

    Args:
        case: the case.
        before: model -> its weights.
        changes: root -> its change.
        factors: model -> root -> what to multiply the root's change by.
        head: whether to change heads of descendants, too.
    """
    made = {}
    for model, subject in case.subjects.items():
        weights = {name: value.clone() for name, value in before[model].items()}
        shares = []
        for root, factor in factors[model].items():
            change = aligned(changes[root], case.subjects[root], subject)
            if not head and model != root:
                change = {n: v for n, v in change.items() if n not in subject.head().parameters}
            shares.append((change, 1.0 if root == model else factor))
        add(weights, shares)
        made[model] = weights
    return made


def repaired(case: MethodCase, weights: Mapping[str, Weights], steps: int) -> dict[str, Weights]:
    """Return weights after steps of repair on each descendant's own data; roots stay.

    Args:
        case: the case.
        weights: model -> weights to start from.
        steps: how many, > 0.
    """
    made = dict(weights)
    for model, subject in case.subjects.items():
        if model not in case.roots and len(subject.retain):
            network = subject.network(weights[model])
            made[model] = weights[model] | repair(
                network,
                dict(network.named_parameters()),
                subject.retain.batches(256),
                (),
                steps=steps,
                seed=case.seed,
                device=torch.device("cpu"),
            )
    return made


def trained_or_handed_down(
    case: MethodCase, tuner: Tuner[T], trained: Callable[[MethodSubject, T], Weights]
) -> Unlearned:
    """Return what a method makes that needs the samples to forget, which descendants do not have.

    A model with samples of its own to forget is trained with the candidate that is best on its
    tuning split.  Every other one gets the differences that this made at the roots above it.

    Args:
        case: the case.
        tuner: with the candidates.
        trained: what a candidate makes of a subject with samples to forget.
    """
    weights = {
        name: tuner.best(name, partial(trained, subject))
        for name, subject in case.subjects.items()
        if len(subject.forget)
    }
    differences = {root: difference(case.subjects[root], weights[root]) for root in case.roots}
    for name in case.subjects:
        if name not in weights:
            weights[name] = with_differences(case, name, differences)
    return Unlearned(
        weights,
        sent=broadcast(case, differences),
        tune_seconds=tuner.seconds,
        chosen=tuner.record(),
    )
