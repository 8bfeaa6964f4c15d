"""Comparison of a model's own Fisher information with that of its roots.

Size and location of gradients are comparable only for the same classes, the same merge rule, and
parameters and head rows that both models have.  Hence a copy of a root has scale 1 and score 1.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.fiun.comparing import inheritance_score, relative_scale
from disinherit.common.fiun.merging import merge_lazily
from disinherit.common.method import MergeRule
from disinherit.common.tensors.lazy import mapped, select_names
from disinherit.common.wire.packets import PackedFisher


@dataclass(frozen=True, slots=True, eq=False)
class Inherited:
    """Merged Fisher information of a model's roots, in the layout of the model.

    Attributes:
        values: parameter name -> Fisher, with head rows in the model's order.
        classes: names of its classes; empty for samples.
        rows: parameter of the head -> rows that the roots have, too.
    """

    values: Mapping[str, Tensor]
    classes: frozenset[str]
    rows: Mapping[str, Sequence[int]]

    def without(self, names: Collection[str]) -> "Inherited":
        """Return it without some parameters."""
        kept = [name for name in self.values if name not in names]
        return replace(self, values=select_names(self.values, kept))


def read_inherited(
    fisher: PackedFisher, labels: Sequence[str], names: Sequence[str], device: torch.device
) -> Inherited:
    """Return the content of a packet, with rows aligned by class name.

    Args:
        fisher: the packet.
        labels: class names of the model.
        names: parameters in scope; missing ones are left out.
        device: device of the comparison.
    """
    aligned = fisher.aligned(labels)
    common = [row for row, name in enumerate(labels) if name in fisher.labels]
    known = [name for name in names if name in aligned]
    return Inherited(
        mapped(select_names(aligned, known), lambda value: value.to(device)),
        frozenset(fisher.classes),
        {name: common for name in fisher.head if name in aligned},
    )


@dataclass(frozen=True, slots=True, eq=False)
class Own:
    """A model's own Fisher information of the forgotten classes.

    Attributes:
        values: parameter name -> Fisher, merged over the classes.
        classes: names of its classes.
    """

    values: Mapping[str, Tensor]
    classes: frozenset[str]


def own_fisher(
    fishers: ClassFishers,
    labels: Sequence[str],
    forgotten: Sequence[int],
    names: Sequence[str],
    rule: MergeRule,
    rows: Collection[int] | None = None,
) -> Own | None:
    """Return a model's own Fisher of the forgotten classes, merged like that of the roots.

    It is `None` if the model has no samples of these classes.

    Args:
        fishers: its Fisher sums.
        labels: its class names.
        forgotten: indices of the classes.
        names: parameters in scope.
        rule: merge rule of the roots.
        rows: as in `ClassFishers.each`.
    """
    classes = [c for c in forgotten if fishers.counts[c]]
    if not classes:
        return None
    apart = [one.values for one in fishers.each(classes, rows).values()]
    merged = merge_lazily(apart, names, rule)
    return Own(merged, frozenset(labels[c] for c in classes))


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Fisher information of the roots for comparison with a model's own.

    Attributes:
        forget: of all forgotten classes or samples; the model is dampened with it.
        alike: of the forgotten classes that the model itself was trained on, if these are not all
            and the coordinator sent it.
    """

    forget: Inherited
    alike: Inherited | None

    def without(self, names: Collection[str]) -> "Comparison":
        """Return it without some parameters."""
        if not names:
            return self
        forget = self.forget.without(names)
        return Comparison(forget, None if self.alike is None else self.alike.without(names))

    def of_same_classes(self, own: Own | None) -> Inherited | None:
        """Return the roots' Fisher of exactly the classes of the model's own, if any."""
        if own is not None:
            for inherited in (self.alike, self.forget):
                if inherited is not None and inherited.classes == own.classes:
                    return inherited
        return None

    def scale(self, own: Own | None, reference: Mapping[str, Tensor], *, spare: bool) -> float:
        """Return the factor that scales the model's own Fisher to that of its roots.

        It is computed from Fishers of the same classes, or else from the reference.  The reference
        is of other classes, so its factor is uncertain: a factor below 1 would damage retained
        classes, and is used only if the damage can be measured.

        Args:
            own: the model's own Fisher of the forgotten classes.
            reference: the model's reference Fisher.
            spare: whether damage to retained classes cannot be measured.
        """
        alike = self.of_same_classes(own)
        if own is not None:
            return 1.0 if alike is None else relative_scale(alike.values, own.values, alike.rows)
        factor = relative_scale(self.forget.values, reference, self.forget.rows)
        return max(1.0, factor) if spare and self.forget.classes else factor

    def score(self, own: Own | None, rows: Mapping[str, Sequence[int]]) -> float | None:
        """Return the inheritance score, our own measure of similarity.

        It is `None` without Fishers of the same classes.

        Args:
            own: the model's own Fisher of the forgotten classes.
            rows: parameter of the head -> rows that can be selected, if these are not all.
        """
        alike = self.of_same_classes(own)
        if own is None or alike is None:
            return None
        return inheritance_score(alike.values, own.values, {**alike.rows, **rows})
