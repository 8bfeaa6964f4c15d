"""Fisher packets: tensors with their labels, head, sources and digest."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from google.protobuf.message import Message
from torch import Tensor

from disinherit.common.encodings import Encoding
from disinherit.common.errors import FisherError
from disinherit.common.fiun.alignment import align_rows
from disinherit.common.fiun.merging import check_fisher, merge_fishers
from disinherit.common.graph.labels import union_labels
from disinherit.common.limits import shown
from disinherit.common.method import MergeRule
from disinherit.common.models.heads import Head
from disinherit.common.tensors.checkpoints import tensor_bytes, tensors_from_bytes
from disinherit.common.tensors.lazy import select_names
from disinherit.common.wire.factored import (
    Factors,
    decode_factored,
    encode_factored,
    with_factors,
)
from disinherit.common.wire.fisher_codes import decode_values, encode_values
from disinherit.v1.unlearning_pb2 import FisherPacket, UnlearnTask


@dataclass(frozen=True, slots=True, eq=False)
class PackedFisher:
    """The checked content of a packet.

    Attributes:
        values: parameter name -> non-negative tensor of the parameter's shape; factored ones are
            multiplied out when they are asked for.
        labels: class names of the head's rows, `[C]`.
        head_weight: name of the head's weight; `""` without a linear head.
        head_bias: name of the head's bias; `""` for a head without one.
        further_heads: weights and biases of the head's other layers, where several are summed.
        sources: ids of the root models it comes from.
        classes: the forgotten classes of the values.
        samples: number of samples in the values.
        clip_norm: bound on the L2 norm of each sample's squared gradient of each parameter, as
            reported by the roots' owners; 0 for no bound.
        noise: standard deviation of the noise on the sum over its samples, as reported.
        factors: parameter name -> sums that its values are the product of.
    """

    values: Mapping[str, Tensor]
    labels: tuple[str, ...]
    head_weight: str
    head_bias: str
    sources: tuple[str, ...]
    classes: tuple[str, ...]
    samples: int
    clip_norm: float = 0.0
    noise: float = 0.0
    further_heads: tuple[str, ...] = ()
    factors: Mapping[str, Factors] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter; nothing is multiplied out."""
        return {
            name: self.factors[name].shape
            if name in self.factors
            else tuple(self.values[name].shape)
            for name in self.values
        }

    @property
    def nbytes(self) -> int:
        """Bytes of all values, as they are held."""
        whole = sum(self.values[name].nbytes for name in self.values if name not in self.factors)
        factors = self.factors.values()
        return whole + sum(one.rows.nbytes + one.columns.nbytes for one in factors)

    def total(self, name: str) -> float:
        """Return the sum of a parameter's values, or a bound on it; nothing is multiplied out."""
        if name in self.factors:
            return self.factors[name].total
        return float(self.values[name].sum(dtype=torch.float64))

    @property
    def head(self) -> tuple[str, ...]:
        """The parameter names of the head."""
        first = tuple(name for name in (self.head_weight, self.head_bias) if name)
        return first + self.further_heads

    @classmethod
    def from_packet(cls, packet: FisherPacket) -> Self:
        """Check and unpack a packet.

        Raises:
            FisherError: as in `decode_fisher`.
            CheckpointError: if the bytes are no safetensors.
        """
        values, factors = _unpacked(packet)
        return cls(
            values=with_factors(values, factors),
            labels=tuple(packet.labels),
            head_weight=packet.head_weight,
            head_bias=packet.head_bias,
            sources=tuple(packet.sources),
            classes=tuple(packet.classes),
            samples=packet.samples,
            clip_norm=packet.clip_norm,
            noise=packet.clip_norm * packet.noise_multiplier,
            further_heads=tuple(packet.further_heads),
            factors=factors,
        )

    def without_head(self) -> Self:
        """Return the same values without a head."""
        return replace(self, head_weight="", head_bias="", further_heads=())

    @torch.no_grad()
    def aligned(
        self, labels: Sequence[str], mapping: Mapping[str, str] | None = None
    ) -> Mapping[str, Tensor]:
        """Return Fisher values with the head's rows aligned by class name to another label space.

        Args:
            labels: class names of the target head's rows, `[C']`.
            mapping: the Fisher's class name -> target class name where they differ.

        Returns:
            Parameter name -> tensor; head rows without a counterpart are zero.

        Raises:
            FisherError: if the packet has no head to align.
            LabelError: if its label space does not fit its head.
        """
        if not self.head_weight and (mapping or list(self.labels) != list(labels)):
            raise FisherError(
                f"Expected the classes {list(self.labels)} everywhere, as the Fisher packet of "
                f"{', '.join(self.sources)} names no linear head, but got {list(labels)}."
            )
        rows = {
            name: align_rows(self.values[name], self.labels, labels, mapping)
            for name in self.head
            if name in self.values
        }
        whole = {name: self.values[name] for name in self.values if name not in self.factors}
        return with_factors({**whole, **rows}, self.factors, [*self.values])

    def renamed(self, names: Mapping[str, str | None]) -> Self:
        """Return the Fisher information with class names of other models.

        Args:
            names: class name -> new name, where they differ; `None` for a class to leave out. A
                class with the new name of another one is left out, too.

        Raises:
            FisherError: if the packet has no head with rows to leave out.
            LabelError: if its label space does not fit its head.
        """
        if not names:
            return self
        kept = renamed_labels(self.labels, names)
        return replace(
            self,
            values=self.aligned(list(kept)),
            labels=tuple(kept.values()),
            classes=tuple(kept[name] for name in self.classes if name in kept),
        )


def head_fields(head: Head | None) -> dict[str, Any]:
    """Return the fields of a packet about the head of its model: arguments of `encode_apart`.

    Args:
        head: the layers of the logits; `None` for a model without a head.
    """
    if head is None:
        return {"head_weight": "", "head_bias": "", "further_heads": ()}
    first, *others = head.layers
    return {
        "head_weight": first.weight,
        "head_bias": first.bias or "",
        "further_heads": [name for layer in others for name in layer.parameters],
    }


def encode_apart(
    values: Mapping[str, Tensor],
    *,
    labels: Sequence[str],
    head_weight: str,
    head_bias: str,
    sources: Sequence[str],
    classes: Sequence[str],
    samples: int,
    encoding: Encoding = Encoding.FULL,
    further_heads: Sequence[str] = (),
    factors: Mapping[str, Factors] | None = None,
) -> tuple[FisherPacket, bytes]:
    """Pack Fisher information for the wire, with its tensors beside it.

    Args:
        values: parameter name -> non-negative tensor of the parameter's shape.
        labels: class names of the head's rows, `[C]`.
        head_weight: name of the head's weight.
        head_bias: name of the head's bias, `""` for a head without one.
        sources: ids of the root models it comes from.
        classes: the forgotten classes of the values.
        samples: number of samples in the values.
        encoding: encoding of the values.
        further_heads: names of the weights and biases of the head's other layers.
        factors: names of which the sums are known; with any, the encoding is `factored`.

    Returns:
        The packet without its tensors, but with their SHA-256, and the tensors' bytes.
    """
    if factors or encoding is Encoding.FACTORED:
        exact = {head_weight, head_bias, *further_heads}
        if encoding is not Encoding.FACTORED:
            exact |= values.keys()
        encoding = Encoding.FACTORED
        stored = encode_factored(values, factors or {}, exact)
    else:
        stored = encode_values(values, encoding)
    data = tensor_bytes({name: value.cpu() for name, value in stored.items()})
    packet = FisherPacket(
        digest=hashlib.sha256(data).hexdigest(),
        labels=labels,
        head_weight=head_weight,
        head_bias=head_bias,
        sources=sources,
        classes=classes,
        samples=samples,
        encoding=encoding.to_proto(),
        further_heads=further_heads,
    )
    return packet, data


def encode_fisher(values: Mapping[str, Tensor], **described: Any) -> FisherPacket:
    """Pack Fisher information for the wire, with its tensors in it.

    Args:
        values: as in `encode_apart`.
        **described: as in `encode_apart`.
    """
    packet, data = encode_apart(values, **described)
    packet.tensors = data
    return packet


def decode_fisher(packet: FisherPacket) -> Mapping[str, Tensor]:
    """Check and unpack the tensors of a packet.

    Returns:
        Parameter name -> non-negative tensor; factored ones are multiplied out when asked for.

    Raises:
        FisherError: if it has the change of a root, the digest differs, the tensors do not fit the
            encoding, or a value is negative, NaN or infinite.
        CheckpointError: if the bytes are no safetensors.
    """
    return with_factors(*_unpacked(packet))


def _unpacked(packet: FisherPacket) -> tuple[dict[str, Tensor], dict[str, Factors]]:
    """Return whole tensors, and the sums of all others; raises what `decode_fisher` does."""
    what = f"the Fisher packet of {', '.join(packet.sources) or 'an unknown root'}"
    if packet.HasField("delta"):
        raise FisherError(
            f"Expected Fisher information, but {what} has the change of a root, of either sign. "
            "Its sender answered another question."
        )
    encoding = Encoding.from_proto(packet.encoding)
    data = packet.tensors  # a copy each time
    digest = hashlib.sha256(data).hexdigest()
    if digest != packet.digest:
        raise FisherError(
            f"Expected digest {packet.digest!r} for {what}, but its bytes have {digest}. "
            "Ask its sender to send it again."
        )
    stored = tensors_from_bytes(data, what)
    if encoding is Encoding.FACTORED:
        head = [packet.head_weight, packet.head_bias, *packet.further_heads]
        return decode_factored(stored, head, what)
    values = decode_values(stored, encoding, what)
    for name, value in values.items():
        check_fisher(name, value, what)
    return values, {}


def merge(
    fishers: Sequence[PackedFisher], rule: MergeRule, encoding: Encoding = Encoding.FULL
) -> tuple[FisherPacket, bytes]:
    """Merge the Fisher information of several roots and classes into one packet.

    This is MFIM (arXiv 2408.08493).  Head rows are aligned by class *name* in the union of the
    label spaces; a class that a root does not have contributes zero, which selects nothing.

    Args:
        fishers: at least one.
        rule: `max` (as published), `mean` or `sum`.
        encoding: encoding of the merged values.

    Returns:
        One packet with all sources and classes, without its tensors, and the tensors.

    Raises:
        FisherError: if there is no Fisher, or names or shapes do not fit together.
        LabelError: if a label space does not fit its head.
    """
    if not fishers:
        raise FisherError("Expected at least one Fisher packet to merge, but got none.")
    first = fishers[0]
    for fisher in fishers[1:]:
        if fisher.head != first.head:
            raise FisherError(
                f"Expected the same head in every Fisher packet, but {', '.join(first.sources)} "
                f"has {first.head} and {', '.join(fisher.sources)} has {fisher.head}."
            )
    labels = union_labels([fisher.labels for fisher in fishers])
    values, factors = merged_values(fishers, labels, rule)
    packet, tensors = encode_apart(
        values,
        labels=labels,
        head_weight=first.head_weight,
        head_bias=first.head_bias,
        sources=list(dict.fromkeys(source for fisher in fishers for source in fisher.sources)),
        classes=list(dict.fromkeys(name for fisher in fishers for name in fisher.classes)),
        samples=sum(fisher.samples for fisher in fishers),
        encoding=encoding,
        further_heads=first.further_heads,
        factors=factors,
    )
    packet.clip_norm = max(fisher.clip_norm for fisher in fishers)
    return packet, tensors


def merged_values(
    fishers: Sequence[PackedFisher], labels: Sequence[str], rule: MergeRule
) -> tuple[Mapping[str, Tensor], dict[str, Factors]]:
    """Merge the Fisher information of several roots and classes.

    What is factored in all of them stays so: a maximum keeps the sums of each, a sum adds them.

    Args:
        fishers: at least one.
        labels: class names of the head's rows, with those of all.
        rule: rule of merging.

    Returns:
        The merged values, and the sums of those that are factored.

    Raises:
        FisherError: if names or shapes differ.
        LabelError: if a label space does not fit its head.
    """
    first = fishers[0]
    for other in fishers[1:] if any(one.factors for one in fishers) else ():
        shapes, others = first.shapes, other.shapes  # before anything is multiplied out
        odd = {
            name
            for name in {*shapes, *others} - {*first.head}
            if shapes.get(name) != others.get(name)
        }
        if odd:
            name = min(odd)
            raise FisherError(
                f"Expected the same parameters and shapes in all Fishers, but {shown(name)} has "
                f"{shapes.get(name)} and {others.get(name)}."
            )
    together = {
        name
        for name in first.factors
        if all(name in one.factors for one in fishers) and _stays_factored(name, fishers, rule)
    }
    aligned = [one.aligned(labels) for one in fishers]
    whole = [name for name in first.values if name not in together]
    merged = merge_fishers([select_names(one, whole) for one in aligned], rule) if whole else {}
    factors = {}
    for name in together:
        found = first.factors[name]
        if rule != "max":
            share = 1 / len(fishers) if rule == "mean" else 1.0
            found = Factors(share * found.rows, share * found.columns)
        for one in fishers[1:]:
            given = one.factors[name]
            found = found.joined(given) if rule == "max" else found.plus(given, share)
        factors[name] = found
    return with_factors(merged, factors, [*first.values]), factors


def _stays_factored(name: str, fishers: Sequence[PackedFisher], rule: MergeRule) -> bool:
    """Whether the sums of a merge are known, and shorter than its values."""
    given = [one.factors[name] for one in fishers]
    if rule != "max":
        return all(len(one.rows) == 1 for one in given)
    sums = sum(one.rows.numel() + one.columns.numel() for one in given)
    return sums < math.prod(given[0].shape)


def renamed_labels(labels: Sequence[str], names: Mapping[str, str | None]) -> dict[str, str]:
    """Return class name -> new name of the classes that `PackedFisher.renamed` keeps.

    Example:
        >>> renamed_labels(["cat", "dog", "owl"], {"cat": "owl", "dog": None})
        {'cat': 'owl'}
    """
    taken = set(names.values())
    new = {name: names.get(name, None if name in taken else name) for name in labels}
    return {name: named for name, named in new.items() if named is not None}


def attach_tensors(task: Message, find: Callable[[str], bytes]) -> None:
    """Add the missing tensors to the packets of a message, if it carries packets.

    Args:
        task: any message; changed in place.
        find: returns the bytes with this SHA-256.
    """
    if isinstance(task, UnlearnTask):
        for packet in task.fishers:
            if packet.digest and not packet.tensors:
                packet.tensors = find(packet.digest)
