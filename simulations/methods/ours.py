"""Ours: Fisher inheritance unlearning as this package has it.

Classes are forgotten by a campaign of the deployment's own code.  Samples are forgotten by the same
steps of the same library (Fisher at the roots, merge over a model's own upstream roots, gauge,
dampen), as requests by samples do not travel yet; there is no row to restrict the selection to.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from disinherit.common.errors import ScopeError
from disinherit.common.fiun import MergeRule, merge_fishers, unlearn_parameters
from disinherit.common.scope import find_head
from disinherit.simulations.methods.campaign import run_campaign
from disinherit.simulations.methods.case_owner import trained_on
from disinherit.simulations.methods.method import Unlearned
from disinherit.simulations.methods.rows import aligned
from disinherit.simulations.methods.ssd import Dampening, dampenings, fisher
from disinherit.simulations.methods.traffic import broadcast
from disinherit.simulations.methods.tuning import Tuner
from disinherit.simulations.subjects import MethodCase, MethodSubject, Weights
from disinherit.v1 import unlearning_pb2 as pb


@dataclass(frozen=True)
class FisherInheritance:
    """Fisher inheritance unlearning.

    Attributes:
        scope: parameters that may change.
        reference: Fisher to compare with: `retain` or `all`.
        merge: how roots and classes are merged: `max`, `mean` or `sum`.
        row_scoped: whether to select in the head only in the forgotten classes' rows.
        alpha: selection threshold; `None` to have every owner tune it, among 6.
        lam: dampening constant; `None` to have every owner tune it, among 3.
        gauge: strength of the head's gauge shift.
    """

    scope: str = "head"
    reference: str = "retain"
    merge: MergeRule = "max"
    row_scoped: bool = True
    alpha: float | None = None
    lam: float | None = None
    gauge: float = 1.0

    def __call__(self, case: MethodCase) -> Unlearned:
        """Unlearn in all affected models."""
        return run_campaign(case, self._message()) if case.by_class else self._samples(case)

    def _message(self) -> pb.Method:
        return pb.Method(
            scope=self.scope,
            reference=self.reference,
            merge=self.merge,
            alpha=self.alpha,
            lam=self.lam,
            gauge=self.gauge,
            exponent=1.0,
            bound=1.0,
            row_scoped=self.row_scoped,
        )

    def _samples(self, case: MethodCase) -> Unlearned:
        packets = {
            root: fisher(case.subjects[root], samples, self.scope)
            for root, samples in case.forget_at_root.items()
        }
        tuner = Tuner(case, self._candidates())
        weights: dict[str, Weights] = {}
        for name, subject in case.subjects.items():
            samples = subject.retain if self.reference == "retain" else trained_on(subject)
            roots = case.upstream(name)
            placed = [aligned(packets[root], case.subjects[root], subject) for root in roots]
            if len(samples):
                forget = merge_fishers(placed, self.merge)
                reference = fisher(subject, samples, ",".join(forget))
                weights[name] = tuner.best(name, self._unlearned(subject, forget, reference))
        return Unlearned(
            weights,
            sent=broadcast(case, packets),
            tune_seconds=tuner.seconds,
            chosen=tuner.record(),
        )

    def _candidates(self) -> Sequence[Dampening]:
        return [
            choice
            for choice in dampenings(self.alpha or 1.0, self.lam or 1.0)
            if self.alpha in (None, choice.alpha) and self.lam in (None, choice.lam)
        ]

    def _unlearned(
        self, subject: MethodSubject, forget: dict[str, Tensor], reference: dict[str, Tensor]
    ) -> Callable[[Dampening], Weights]:
        try:
            found = find_head(subject.build())
            head = (found.weight, found.bias) if found.weight in forget else None
        except ScopeError:
            head = None

        def unlearned(choice: Dampening) -> Weights:
            new = unlearn_parameters(
                {name: subject.original[name] for name in forget},
                forget,
                reference,
                alpha=choice.alpha,
                lam=choice.lam,
                gauge=self.gauge,
                head=head,
            )
            return {**subject.original, **new.parameters}

        return unlearned
