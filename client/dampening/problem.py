"""The dampening problem: a request for models of one architecture and label space."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from disinherit.client.dampening.comparison import Comparison, Own, own_fisher
from disinherit.client.dampening.tuning import DampeningStrength, FixedStrength
from disinherit.common.errors import FisherError
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.fiun.unlearning import is_lowest, rows_end_at_bottom
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import MergeRule, Reference
from disinherit.common.tensors.lazy import mapped, select_names
from disinherit.v1 import unlearning_pb2 as pb


@dataclass(frozen=True, slots=True, eq=False)
class DampeningProblem:
    """Parameters, Fisher information and strength of a dampening.

    Attributes:
        names: parameters in scope, in the network's order.
        aliases: parameter -> all its names in the weights.
        out_of_scope: parameters of the packet that the network does not have.
        not_covered: parameters of the network in the request's scope that the packet does not have.
        tied: names outside of the request's scope of tied parameters in `names`.
        comparison: merged Fisher of the forget set, on the owner's device, and the Fisher for
            comparison with the model's own.
        forgotten: indices of the forgotten classes in the model.
        heads: names of weight and bias of each layer of the head; empty if the packet has none.
        rows: rows of the head that can be selected; `None` for all.
        only_rows: whether only these rows can be selected.
        taken_out: whether these rows are taken out of the head, independent of their Fisher.
        pinned: strengths fixed by the method, and defaults of the others.
        merge: merge rule of the roots' Fishers.
        kind: classes of the reference: `retain`, or `all`.
        least: least inheritance score, from 0 to 1.
        sources: roots of the Fisher `forget`.  If unlearning made the model from a root, the model
            itself replaces it, since it is that root without the forgotten data.
        clipped: whether `forget` is of clipped gradients.
        rescale: whether Fishers are rescaled before they are compared.
        gauge_free: whether the logits are linear in the rows of the head alone.
    """

    names: tuple[str, ...]
    aliases: Mapping[str, Sequence[str]]
    out_of_scope: tuple[str, ...]
    not_covered: tuple[str, ...]
    tied: tuple[str, ...]
    comparison: Comparison
    forgotten: tuple[int, ...]
    heads: tuple[tuple[str, str | None], ...]
    rows: tuple[int, ...] | None
    only_rows: bool
    taken_out: bool
    pinned: FixedStrength
    merge: MergeRule
    kind: Reference
    least: float
    sources: tuple[str, ...]
    clipped: bool
    rescale: bool
    gauge_free: bool

    @property
    def forget(self) -> Mapping[str, Tensor]:
        """Parameter name -> merged Fisher of the forget set."""
        return self.comparison.forget.values

    @property
    def tunable(self) -> bool:
        """Whether a strength is open, and forgetting can be measured."""
        return self.dampens and not self.pinned.complete and bool(self.forgotten)

    @property
    def dampens(self) -> bool:
        """Whether parameters are dampened by comparing Fishers, so that the strength matters."""
        return not (self.only_rows and self.taken_out)

    @property
    def whole_rows(self) -> bool:
        """Whether Fishers of single classes are compared in rows of other classes."""
        return bool(self.forgotten) and self._own_rows is None

    @property
    def _own_rows(self) -> tuple[int, ...] | None:
        """Rows of the head that are compared for their own class only; `None` for all.

        The values of rows that are taken out of the head do not matter.
        """
        return self.rows if len(self.forgotten) < 2 or self.taken_out else None

    def reference(
        self,
        record: ModelRecord,
        fishers: ClassFishers,
        parameters: Mapping[str, Tensor],
        device: torch.device,
    ) -> Mapping[str, Tensor]:
        """Return F_ref: over the retained classes, or over all own training data (the paper's).

        Args:
            record: the model.
            fishers: its Fisher sums.
            parameters: its parameters in scope.
            device: where to compare.

        Raises:
            FisherError: if the reference would be empty.
        """
        left_out = set(self.forgotten) if self.kind == "retain" else set()
        classes = [c for c in range(len(record.labels)) if c not in left_out]
        if not fishers.counts[classes].sum():
            # No retained samples: for F_ref -> 0 dampening clears the selected values.  That is
            # right for rows of forgotten classes, and destroys other parameters.
            if self.only_rows:
                return {name: torch.zeros_like(value) for name, value in parameters.items()}
            raise FisherError(
                f"Expected model {record.id!r} to have samples of retained classes as reference, "
                f"but all its {int(fishers.counts.sum())} samples are of forgotten classes. Select "
                "only in the head's rows of these classes, or take reference 'all'."
            )
        fisher = fishers.excluding(left_out, self._own_rows) if left_out else fishers.total()
        chosen = select_names(fisher.values, parameters)
        return mapped(chosen, lambda value: value.to(device))

    def is_root(self, line: Collection[str]) -> bool:
        """Whether a model is the root itself, or a version that unlearning made from it.

        Args:
            line: as in `scale`.
        """
        return set(self.sources) <= set(line)

    def scale(
        self,
        line: Collection[str],
        own: Own | None,
        reference: Mapping[str, Tensor],
        *,
        tuned: bool = False,
    ) -> float:
        """Return the factor of the model's own Fisher in comparisons with the roots'.

        It is 1 if nothing is compared, and for a root and its successors by unlearning, unless the
        Fisher was clipped.  If only rows of forgotten classes can be selected, the factor is at
        most 1, since a larger one would protect these rows.

        Args:
            line: the model and its predecessors by unlearning only.
            own: result of `own`.
            reference: result of `reference`.
            tuned: whether the owner's data show the damage to retained classes.
        """
        itself = self.is_root(line) and not self.clipped
        if not self.rescale or itself or not self.dampens:
            return 1.0
        # Rows that are taken out of the head are not compared.
        left_out = [name for pair in self.heads for name in pair if name] if self.taken_out else []
        spare = not tuned and not self.only_rows
        factor = self.comparison.without(left_out).scale(own, reference, spare=spare)
        # If only forgotten rows can be selected, none must be protected.
        return min(1.0, factor) if self.only_rows else factor

    def inheritance(self, record: ModelRecord, own: Own | None) -> float | None:
        """Return the inheritance score of the model, our own measure of similarity.

        It compares parameters and rows that can be selected.  It is `None` if the model has no
        samples of the forgotten classes.

        Args:
            record: the model.
            own: result of `own`.

        Raises:
            FisherError: if the score is below the least one of the method.
        """
        rows: dict[str, tuple[int, ...]] = {}
        if self.rows is not None and self.heads:
            rows = {name: self.rows for pair in self.heads for name in pair if name in self.names}
        score = self.comparison.score(own, rows)
        if score is not None and score < self.least:
            raise FisherError(
                f"Expected the Fisher information of the roots to be like that of model "
                f"{record.id!r} (similarity >= {self.least:g}), but it is {score:.3f}: what it "
                "knows of the classes is in other parameters. Make it a root, or retrain it."
            )
        return score

    def own(self, record: ModelRecord, fishers: ClassFishers) -> Own | None:
        """Return a model's own Fisher of the forgotten classes, merged like that of the roots.

        It is `None` if the model has no samples of these classes.

        Args:
            record: the model.
            fishers: its Fisher sums.
        """
        return own_fisher(
            fishers, record.labels, self.forgotten, self.names, self.merge, self._own_rows
        )

    def doubt(self, classes: int, cleared: Collection[int]) -> str:
        """Return why rows at the bottom of the head may not be lowest; `""` if they are.

        Args:
            classes: number of rows of the head.
            cleared: rows of classes that were forgotten before, which are put there again.
        """
        if not rows_end_at_bottom(self.names, self.heads, self.rows or ()):
            return ""
        gone = {*cleared, *(self.rows or () if self.taken_out else ())}
        if not gone:
            return ""
        if not self.gauge_free:
            return (
                "its logits are not linear in the rows of its head alone, so that a row taken out "
                "need not be the lowest"
            )
        if not is_lowest(self.heads, classes - len(gone)):
            return (
                "its head has no bias and one class would be kept, so that a row taken out is the "
                "lowest for non-negative features only"
            )
        return ""

    def report(self, strength: DampeningStrength, result: pb.ModelResult) -> None:
        """Write alpha, lambda and gauge into a result, if they mattered."""
        if self.dampens:
            result.alpha, result.lam, result.gauge = strength.alpha, strength.lam, strength.gauge

    def under_all_names(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return parameters on the CPU, tied ones under all their names."""
        return {
            alias: value.cpu() for name, value in parameters.items() for alias in self.aliases[name]
        }
