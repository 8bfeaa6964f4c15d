"""Inheritance unlearning as this package has it: by Fisher information, or by changes of roots.

A campaign of the deployment's own code: what is measured is the product.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from disinherit.client.privacy.policy import read_policy
from disinherit.common.errors import NotApplicableError
from disinherit.common.method import (
    AUTO,
    REPLAY,
    DeltaCode,
    Mechanism,
    MergeRule,
    Method,
    Reference,
)
from disinherit.simulations.bench.cases.subjects import MethodCase
from disinherit.simulations.bench.methods.campaign import run_campaign
from disinherit.simulations.bench.methods.method import Unlearned


@dataclass(frozen=True)
class InheritanceUnlearning:
    """Inheritance unlearning.

    Attributes:
        scope: parameters that may change.
        reference: Fisher to compare with: `retain` or `all`.
        merge: how roots and classes are merged: `max`, `mean` or `sum`.
        row_scoped: whether to select in the head only in the forgotten classes' rows.
        alpha: selection threshold; `None` to have every owner tune it.
        lam: dampening constant; `None` to have every owner tune it.
        gauge: strength of the head's gauge shift where classes are forgotten; `None` to have every
            owner tune it too, with six times the candidates that other methods have.
        repair_steps: steps of training on retained samples; `None` for the mechanism's default.
        min_inheritance: models whose own Fisher is less like the roots' stay as they are.
        rescale: whether Fishers are compared whatever their scale.
        all_roots: whether every descendant gets the Fisher of all roots, as published, and not only
            that of those it comes from.
        mechanism: what descendants inherit: `fisher`, `delta`, or `auto`.
        root_method: how roots are unlearned with `delta`.
        delta_encoding: how changes travel.
        delta_rank: rank of matrices in changes; 0 for full.
        release: owners' conditions on what they let out: fields of `client.release.ReleasePolicy`.
    """

    scope: str = "head"
    reference: Reference = "retain"
    merge: MergeRule = "max"
    row_scoped: bool = True
    alpha: float | None = None
    lam: float | None = None
    gauge: float | None = 1.0
    repair_steps: int | None = None
    min_inheritance: float = 0.0
    rescale: bool = True
    all_roots: bool = False
    mechanism: Mechanism = "auto"
    root_method: str = "auto"
    delta_encoding: DeltaCode = "full"
    delta_rank: int = 0
    release: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the conditions."""
        read_policy(self.release, "release")

    def __call__(self, case: MethodCase) -> Unlearned:
        """Unlearn in all affected models.

        Raises:
            NotApplicableError: if a client leaves, and its roots are to be trained on with what is
                retained: nothing is.
        """
        leaves = case.granularity == "client" and self.mechanism != "fisher"
        if leaves and self.root_method not in (AUTO, REPLAY):
            raise NotApplicableError("nothing that a leaving client's root was trained on is kept")
        return run_campaign(
            case,
            self._method(case),
            all_roots=self.all_roots,
            release=read_policy(self.release, "release"),
        )

    def _method(self, case: MethodCase) -> Method:
        return Method(
            scope=self.scope,
            reference=self.reference,
            merge=self.merge,
            alpha=self.alpha,
            lam=self.lam,
            gauge=self.gauge if case.by_class else None,
            row_scoped=self.row_scoped,
            repair_steps=self.repair_steps,
            min_inheritance=self.min_inheritance,
            rescale=self.rescale,
            mechanism=self.mechanism,
            root_method=self.root_method,
            delta_encoding=self.delta_encoding,
            delta_rank=self.delta_rank,
        )
