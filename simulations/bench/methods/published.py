"""FIUn and MFIM as the authors' code has them (arXiv 2408.08493), for fidelity.

From their repository `Parallel-Unlearning-in-Inherited-Model-Networks`, as read: importance is the
squared gradient of a batch's mean loss, averaged over batches of 32; a root is dampened with its
own; everyone else with the element-wise maximum over *all* roots, divided by a constant that is set
per network where there are several roots; alpha, lambda and exponent are 1; the last layer changes.
Nothing is tuned.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disinherit.common.fiun.merging import merge_fishers
from disinherit.common.models.scope import resolve_scope
from disinherit.common.models.scope_text import is_head_scope
from disinherit.simulations.bench.cases.subjects import MethodCase, MethodSubject, Samples, Weights
from disinherit.simulations.bench.methods.campaign import broadcast
from disinherit.simulations.bench.methods.head_reset import aligned
from disinherit.simulations.bench.methods.method import Unlearned
from disinherit.simulations.bench.methods.ssd import Dampening, dampened


@dataclass(frozen=True)
class PublishedFiun:
    """Fisher inheritance unlearning as published.

    Attributes:
        alpha: selection threshold; 1 in their code, 3 for single samples.
        lam: dampening constant.
        scaling: what the merged information is divided by where there are several roots: 1, 5 or 50
            in their code, by network.
        batch: samples whose mean gradient is squared.
        scope: parameters that may change.
    """

    alpha: float = 1.0
    lam: float = 1.0
    scaling: float = 1.0
    batch: int = 32
    scope: str = "head"

    def __call__(self, case: MethodCase) -> Unlearned:
        """Dampen the roots with their own importance and all others with the merged one."""
        packets = {
            root: self._importance(case.subjects[root], samples)
            for root, samples in case.forget_at_root.items()
        }
        weights: dict[str, Weights] = {}
        for name, subject in case.subjects.items():
            everything = [part for part in (subject.forget, subject.retain) if len(part)]
            if everything:
                reference = self._importance(subject, Samples.joined(everything))
                forget = packets[name] if name in packets else self._merged(case, name, packets)
                shared = {key: reference[key] for key in forget if key in reference}
                forget = {key: forget[key] for key in shared}
                weights[name] = dampened(subject, forget, shared, Dampening(self.alpha, self.lam))
        return Unlearned(weights, sent=broadcast(case, packets))

    def _merged(
        self, case: MethodCase, model: str, packets: dict[str, dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        subject = case.subjects[model]
        placed = [aligned(packet, case.subjects[r], subject) for r, packet in packets.items()]
        merged = merge_fishers(placed, "max")
        scaling = self.scaling if len(packets) > 1 else 1.0
        return {name: value / scaling for name, value in merged.items()}

    def _importance(self, subject: MethodSubject, samples: Samples) -> dict[str, Tensor]:
        network = subject.network(subject.original)
        names = resolve_scope(
            network, self.scope, subject.head() if is_head_scope(self.scope) else None
        )
        return batch_importance(network, samples, names, self.batch)


def batch_importance(
    network: nn.Module, samples: Samples, names: Sequence[str], batch: int
) -> dict[str, Tensor]:
    """Return the mean over batches of the squared gradient of the batch's mean loss.

    Args:
        network: in eval mode.
        samples: one or more.
        names: parameters to look at.
        batch: samples in a batch.

    Returns:
        Name -> importance, of the parameter's shape.
    """
    parameters = [network.get_parameter(name) for name in names]
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    batches = 0
    for inputs, targets in samples.batches(batch):
        loss = F.cross_entropy(network(inputs), targets)
        gradients = torch.autograd.grad(loss, parameters)
        for total, gradient in zip(sums, gradients, strict=True):
            total += gradient.detach() ** 2
        batches += 1
    return {name: total / batches for name, total in zip(names, sums, strict=True)}
