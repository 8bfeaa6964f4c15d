"""Comparison of a model's own Fisher information with that of its roots.

How large gradients are, and where, says something about two models only where these are of the same
classes, merged by the same rule, over the parameters and rows of the head that both can have.  So a
model that is a copy of its root has scale 1 and score 1.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from disinherit.common.fisher.diagonal import ClassFishers
from disinherit.common.fiun.comparing import inheritance_score, relative_scale
from disinherit.common.fiun.merging import merge_fishers
from disinherit.common.method import MergeRule
from disinherit.common.wire.packets import PackedFisher


@dataclass(frozen=True, slots=True, eq=False)
class Inherited:
    """The merged Fisher information of a model's roots, as the model's own is compared with it.

    Attributes:
        values: by parameter name, with head rows where the model has them.
        classes: names of the classes that it is of; empty where it is of samples.
        rows: parameter of the head -> its rows that the roots have, too.
    """

    values: Mapping[str, Tensor]
    classes: frozenset[str]
    rows: Mapping[str, Sequence[int]]

    def without(self, names: Collection[str]) -> "Inherited":
        """Return the same of all parameters but some."""
        return replace(self, values={n: v for n, v in self.values.items() if n not in names})


def read_inherited(
    fisher: PackedFisher, labels: Sequence[str], names: Sequence[str], device: torch.device
) -> Inherited:
    """Return what a packet holds, placed by class name.

    Args:
        fisher: the packet.
        labels: class names of the model.
        names: parameters in scope; those that the packet does not have are left out.
        device: where to compare.
    """
    aligned = fisher.aligned(labels)
    common = [row for row, name in enumerate(labels) if name in fisher.labels]
    return Inherited(
        {name: aligned[name].to(device) for name in names if name in aligned},
        frozenset(fisher.classes),
        {name: common for name in fisher.head if name in aligned},
    )


@dataclass(frozen=True, slots=True, eq=False)
class Own:
    """A model's own Fisher information of what is to be forgotten.

    Attributes:
        values: by parameter name, merged over the classes.
        classes: names of the classes that it is of.
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
    """Return a model's own Fisher of the forgotten classes, merged as those of the roots are.

    It is `None` where the model has no samples of these classes itself.

    Args:
        fishers: its Fisher sums.
        labels: its class names.
        forgotten: indices of the classes.
        names: parameters in scope.
        rule: how the roots' are merged.
        rows: as in `ClassFishers.each`.
    """
    classes = [c for c in forgotten if fishers.counts[c]]
    if not classes:
        return None
    apart = fishers.each(classes, rows).values()
    merged = merge_fishers([{n: one.values[n] for n in names} for one in apart], rule)
    return Own(merged, frozenset(labels[c] for c in classes))


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """What of its roots a model's own Fisher information can be compared with.

    Attributes:
        forget: of all that is to be forgotten: what the model is dampened with.
        alike: of those of the classes only that the model was trained on itself, where these are
            not all and the coordinator knew of them.
    """

    forget: Inherited
    alike: Inherited | None

    def without(self, names: Collection[str]) -> "Comparison":
        """Return the same of all parameters but some."""
        if not names:
            return self
        forget = self.forget.without(names)
        return Comparison(forget, None if self.alike is None else self.alike.without(names))

    def of_same_classes(self, own: Own | None) -> Inherited | None:
        """Return what is of the very classes that the model has a Fisher of itself, if anything."""
        if own is not None:
            for inherited in (self.alike, self.forget):
                if inherited is not None and inherited.classes == own.classes:
                    return inherited
        return None

    def scale(self, own: Own | None, reference: Mapping[str, Tensor], *, spare: bool) -> float:
        """Return the factor that brings the model's own Fisher to the scale of its roots'.

        The Fishers of the same classes say it; where the model has none of its own, its reference
        has to, and may say too much: other classes are not these.  Then nothing is scaled down,
        which would ruin what is kept, unless there is something that shows it.

        Args:
            own: the model's own Fisher of what is to be forgotten.
            reference: what is compared.
            spare: whether nothing shows what dampening does to what is kept.
        """
        alike = self.of_same_classes(own)
        if own is not None:
            return 1.0 if alike is None else relative_scale(alike.values, own.values, alike.rows)
        factor = relative_scale(self.forget.values, reference, self.forget.rows)
        return max(1.0, factor) if spare and self.forget.classes else factor

    def score(self, own: Own | None, rows: Mapping[str, Sequence[int]]) -> float | None:
        """Return how like the roots' Fisher is to the model's own.

        It is `None` where there is nothing of the same classes to compare.

        Args:
            own: the model's own Fisher of what is to be forgotten.
            rows: parameter of the head -> rows that can be selected, where these are not all.
        """
        alike = self.of_same_classes(own)
        if own is None or alike is None:
            return None
        return inheritance_score(alike.values, own.values, {**alike.rows, **rows})
