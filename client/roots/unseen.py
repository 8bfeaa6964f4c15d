"""What the owner of a root sees of samples to forget: the attack on losses, on its tuning split.

The attack asks how often a sample to forget is more confident than an unseen one; 0.5 is a guess.
Samples with wrong labels are less confident than any, seen or unseen.  So if a root names samples
to forget by their labels more seldom than unseen ones, they are compared with unseen samples that
have wrong labels as well, in the share in which they are named otherwise.  A root that has fitted
wrong labels entirely hides them; they show once some of what it remembers is gone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disinherit.client.owner.batches import ShrinkingBatches
from disinherit.client.owner.owner import Batches, Owner, load_network
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.inputs import as_arguments, to_device
from disinherit.common.models.membership import area_under_curve, auc_margin, confidence

MOST_RISE = 0.05
"""Most that the mean cross-entropy on the tuning split may rise, in nats."""

WRONG_LABELS = 9
"""Most wrong labels of an unseen sample that samples to forget are compared with."""

Outputs = tuple[Tensor, Tensor]
"""Logits `[n, C]` in float32 or wider, and targets `[n]`, on the CPU."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Outputs of one model on samples to forget and on unseen ones.

    Attributes:
        known: on samples to forget.
        unseen: on unseen ones.
    """

    known: Outputs
    unseen: Outputs

    @cached_property
    def loss(self) -> float:
        """The mean cross-entropy of unseen samples."""
        return F.cross_entropy(*self.unseen).item()

    @cached_property
    def odd(self) -> float:
        """The share of samples to forget that the model would name by its labels, and does not."""
        return 1 - min(1.0, _accuracy(self.known) / max(_accuracy(self.unseen), 1e-9))

    @cached_property
    def tells_odd(self) -> bool:
        """Whether that share is beyond chance: so their labels are odd."""
        right, expected = _accuracy(self.known), _accuracy(self.unseen)
        counts = len(self.known[1]), len(self.unseen[1])
        error = math.sqrt(expected * (1 - expected) * (1 / counts[0] + 1 / counts[1]))
        return right < expected - 3 * error

    @property
    def margin(self) -> float:
        """How far from 0.5 chance may take the attack."""
        return auc_margin(len(self.known[1]), len(self.unseen[1]))

    def attack(self, odd: float) -> float:
        """Return how well the attack on losses tells samples to forget from unseen ones.

        Args:
            odd: share of the samples to forget with odd labels.
        """
        scores = confidence(*self.known)
        logits, targets = self.unseen
        right = area_under_curve(scores, confidence(logits, targets))
        if not odd:
            return right
        classes = logits.shape[1]
        others = [(targets + k) % classes for k in range(1, min(classes, WRONG_LABELS + 1))]
        wrong = area_under_curve(scores, torch.cat([confidence(logits, one) for one in others]))
        return (1 - odd) * right + odd * wrong


def look(
    owner: Owner,
    record: ModelRecord,
    weights: Mapping[str, Tensor],
    forget: Batches,
    tuning: Batches,
) -> Seen:
    """Return what a model with given weights makes of samples to forget and of unseen ones.

    Args:
        owner: the owner of the model.
        record: its version.
        weights: its weights.
        forget: the samples to forget.
        tuning: the unseen ones.

    Raises:
        CheckpointError: if the weights do not fit the owner's network.
    """
    network = load_network(owner, record, weights)
    return Seen(outputs(network, forget), outputs(network, tuning))


def outputs(network: nn.Module, batches: Batches) -> Outputs:
    """Return what a network in eval mode makes of samples.

    Args:
        network: on the device of the computation.
        batches: inputs and targets.
    """
    return ShrinkingBatches(batches).run(lambda fitting: _outputs(network, fitting))


def widened(logits: Tensor) -> Tensor:
    """Return logits in float32, or in float64 if they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@torch.no_grad()
def _outputs(network: nn.Module, batches: Batches) -> Outputs:
    device = next(network.parameters()).device
    logits, targets = [], []
    for inputs, classes in batches:
        logits.append(widened(network(*to_device(as_arguments(inputs), device))).cpu())
        targets.append(classes.cpu())
    return torch.cat(logits), torch.cat(targets)


def _accuracy(found: Outputs) -> float:
    logits, targets = found
    return (logits.argmax(dim=1) == targets).double().mean().item()
