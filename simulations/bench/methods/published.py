"""FIUn and MFIM as the authors' code has them (arXiv 2408.08493), for fidelity.

From their repository `Parallel-Unlearning-in-Inherited-Model-Networks`, as read: importance is the
squared gradient of a batch's mean loss, averaged over batches of 32; a root is dampened with its
own; everyone else with the element-wise maximum over *all* roots, divided by a constant that is set
per network where there are several roots; alpha, lambda and exponent are 1; the last layer changes.
Nothing is tuned.
"""

from dataclasses import dataclass

from torch import Tensor

from disinherit.common.fiun.merging import merge_fishers
from disinherit.simulations.bench.cases.subjects import MethodCase, Samples, Weights
from disinherit.simulations.bench.methods.campaign import broadcast
from disinherit.simulations.bench.methods.head_reset import aligned
from disinherit.simulations.bench.methods.method import Unlearned
from disinherit.simulations.bench.methods.ssd import Dampening, batched_importance, dampened


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
            root: batched_importance(case.subjects[root], samples, self.scope, self.batch)
            for root, samples in case.forget_at_root.items()
        }
        weights: dict[str, Weights] = {}
        for name, subject in case.subjects.items():
            everything = [part for part in (subject.forget, subject.retain) if len(part)]
            if everything:
                reference = batched_importance(
                    subject, Samples.joined(everything), self.scope, self.batch
                )
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
