"""Start of a model's training: its parents' average, head rows placed by class."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from disinherit.common.fiun.alignment import align_rows
from disinherit.simulations.networks.networks import Classifier
from disinherit.simulations.scenario.label_spaces import LabelSpaces
from disinherit.simulations.scenario.topology import Derivation

Weights = dict[str, Tensor]


def starting_weights(
    derivation: Derivation,
    spaces: LabelSpaces,
    weights: Mapping[str, Weights],
    fresh: Callable[[int], Classifier],
) -> Weights | None:
    """Return the weights that a model's training starts from.

    All but the head is the average of the parents.  A row of the head is the average over the
    parents that know its class; one that no parent knows, and every row of a new head, is that of
    a fresh network.

    Args:
        derivation: the model.
        spaces: label spaces of all models.
        weights: of its parents, at least.
        fresh: builds the network that a model with so many classes would start from.

    Returns:
        The weights, or `None` for a model without parents.
    """
    if not derivation.links:
        return None
    shares = derivation.shares
    parents = [weights[parent] for parent in shares]
    labels = classes_of(spaces, derivation.id)
    known = [classes_of(spaces, parent) for parent in shares]
    if not derivation.new_head and all(classes == labels for classes in known):
        return average(parents, list(shares.values()))
    network = fresh(len(labels))
    head = network.known_head().parameters
    rest = [{name: w[name] for name in w if name not in head} for w in parents]
    start = average(rest, list(shares.values()))
    for name in head:
        start[name] = network.get_parameter(name).detach().clone()
        if not derivation.new_head:
            rows = _rows(labels, known, [w[name] for w in parents], list(shares.values()))
            for row, value in rows.items():
                start[name][row] = value
    return {name: start[name] for name in network.state_dict()}


def average(parents: Sequence[Weights], shares: Sequence[float]) -> Weights:
    """Return the weighted average of the parents' weights.

    Integer buffers (counters) cannot be averaged and are the first parent's.

    Args:
        parents: one or more, with the same names and shapes.
        shares: of the parents; they sum to 1.
    """
    return {
        name: _mean([weights[name] for weights in parents], shares)
        if value.is_floating_point()
        else value
        for name, value in parents[0].items()
    }


def classes_of(spaces: LabelSpaces, model: str) -> list[str]:
    """Return the data set's classes in the order of a model's labels."""
    return [spaces.class_of(label) for label in spaces.labels[model]]


def _mean(values: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    if len(set(shares)) == 1:  # a plain mean rounds once less than products do
        return torch.stack(list(values)).mean(dim=0)
    scaled = [value * share for value, share in zip(values, shares, strict=True)]
    return torch.stack(scaled).sum(dim=0)


def _rows(
    labels: Sequence[str],
    known: Sequence[Sequence[str]],
    values: Sequence[Tensor],
    shares: Sequence[float],
) -> dict[int, Tensor]:
    """Return the rows of a head that some parent knows: row -> average over those parents."""
    aligned = [align_rows(v, k, labels) for v, k in zip(values, known, strict=True)]
    rows = {}
    for row, name in enumerate(labels):
        holders = [i for i, classes in enumerate(known) if name in classes]
        if holders:
            total = sum(shares[i] for i in holders)
            own = [shares[i] / total for i in holders]
            rows[row] = _mean([aligned[i][row] for i in holders], own)
    return rows
