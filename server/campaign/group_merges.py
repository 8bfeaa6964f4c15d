"""Merged Fishers of the groups of one request, with shared prefixes merged once.

Often the roots of a group are those of another one and a few more, as in the rounds of a
federation.  Merging each group from the start would take quadratic time in the number of rounds.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from disinherit.common.encodings import Encoding
from disinherit.common.graph.labels import union_labels
from disinherit.common.method import MergeRule
from disinherit.common.wire.packets import PackedFisher, merge, merged_values
from disinherit.v1.unlearning_pb2 import FisherPacket

_KEPT = 8
"""Merges whose tensors are cached; each is as large as a packet."""


K = TypeVar("K", bound=Hashable)


class GroupMerges:
    """Merges groups as `merge` does, bit for bit.

    A maximum or a sum continues from the longest prefix in the cache.  A mean divides each part by
    their number, so it is computed from the start, in quadratic time.

    Args:
        rule: `max`, `mean` or `sum`.
        encoding: how the merged values are stored.

    Attributes:
        merged: number of Fishers merged so far, with the cached ones that merges continued from.
    """

    def __init__(self, rule: MergeRule, encoding: Encoding = Encoding.FULL) -> None:
        self.merged = 0
        self._rule = rule
        self._encoding = encoding
        self._begun: OrderedDict[tuple[Hashable, ...], PackedFisher] = OrderedDict()

    def merge(
        self, keys: Sequence[K], find: Callable[[K], PackedFisher]
    ) -> tuple[FisherPacket, bytes]:
        """Merge the Fishers of one group.

        Args:
            keys: a unique key for each Fisher of the request, in the order in which to merge them.
            find: returns the Fisher of a key.

        Returns:
            One packet with all sources and classes, without its tensors, and the tensors.

        Raises:
            FisherError: if there is no Fisher, or names or shapes differ.
            LabelError: if a label space does not fit its head.
        """
        whole = tuple(keys)
        begin = 0
        if self._rule != "mean":
            begin = max((len(k) for k in self._begun if whole[: len(k)] == k), default=0)
        parts = [find(key) for key in whole[begin:]]
        if begin:
            parts.insert(0, self._begun[whole[:begin]])
        if self._rule == "mean" or not parts or not _alike(parts):
            parts = parts if not begin else [find(key) for key in whole]
            self.merged += len(parts)
            return merge(parts, self._rule, self._encoding)
        self.merged += len(parts)
        state = parts[0] if len(parts) == 1 else _combined(parts, self._rule)
        for key in (whole[:begin], whole):
            if key:
                self._begun[key] = self._begun.pop(key, state)
        while len(self._begun) > _KEPT:
            self._begun.popitem(last=False)
        return merge([state], self._rule, self._encoding)


def _alike(fishers: Sequence[PackedFisher]) -> bool:
    """Return whether Fishers share head and data types, so that merges can continue from them."""
    first = fishers[0]
    dtypes = _dtypes(first)
    return all(
        other.head == first.head
        and other.factors.keys() == first.factors.keys()
        and _dtypes(other) == dtypes
        for other in fishers[1:]
    )


def _dtypes(fisher: PackedFisher) -> dict[str, torch.dtype]:
    """Return the types in which the values of a Fisher are merged."""
    return {
        name: torch.promote_types(
            (fisher.factors[name].rows if name in fisher.factors else fisher.values[name]).dtype,
            torch.float32,
        )
        for name in fisher.values
    }


def _combined(fishers: Sequence[PackedFisher], rule: MergeRule) -> PackedFisher:
    labels = union_labels([fisher.labels for fisher in fishers])
    values, factors = merged_values(fishers, labels, rule)
    return replace(
        fishers[0],
        values=values,
        factors=factors,
        labels=labels,
        sources=tuple(dict.fromkeys(s for fisher in fishers for s in fisher.sources)),
        classes=tuple(dict.fromkeys(name for fisher in fishers for name in fisher.classes)),
        samples=sum(fisher.samples for fisher in fishers),
        clip_norm=max(fisher.clip_norm for fisher in fishers),
    )
