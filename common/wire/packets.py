"""Fisher information as it travels: tensors, where they belong and their digest."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from google.protobuf.message import Message
from torch import Tensor

from disinherit.common.encodings import Encoding
from disinherit.common.errors import FisherError
from disinherit.common.fiun.alignment import align_rows
from disinherit.common.fiun.merging import check_fisher, merge_fishers
from disinherit.common.graph.labels import union_labels
from disinherit.common.method import MergeRule
from disinherit.common.tensors.checkpoints import tensor_bytes, tensors_from_bytes
from disinherit.common.wire.fisher_codes import decode_values, encode_values
from disinherit.v1.unlearning_pb2 import FisherPacket, UnlearnTask


@dataclass(frozen=True, slots=True, eq=False)
class PackedFisher:
    """What a packet holds, checked.

    Attributes:
        values: parameter name -> non-negative tensor of the parameter's shape.
        labels: class names of the head's rows, `[C]`.
        head_weight: name of the head's weight; `""` without a linear head.
        head_bias: name of the head's bias; `""` for a head without one.
        further_heads: weights and biases of the head's other layers, where several are summed.
        sources: ids of the root models it comes from.
        classes: the forgotten classes it stands for.
        samples: number of samples behind it.
        clip_norm: bound on the L2 norm of each sample's squared gradient of each parameter, as the
            roots' owners say; 0 for none.
        noise: standard deviation of the noise on the sum over its samples, likewise.
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

    @property
    def head(self) -> tuple[str, ...]:
        """The parameter names of the head."""
        first = tuple(name for name in (self.head_weight, self.head_bias) if name)
        return first + self.further_heads

    @classmethod
    def from_packet(cls, packet: FisherPacket) -> Self:
        """Unpack a packet after checking it.

        Raises:
            FisherError: as `decode_fisher` says.
            CheckpointError: if the bytes are no safetensors.
        """
        return cls(
            values=decode_fisher(packet),
            labels=tuple(packet.labels),
            head_weight=packet.head_weight,
            head_bias=packet.head_bias,
            sources=tuple(packet.sources),
            classes=tuple(packet.classes),
            samples=packet.samples,
            clip_norm=packet.clip_norm,
            noise=packet.clip_norm * packet.noise_multiplier,
            further_heads=tuple(packet.further_heads),
        )

    def without_head(self) -> Self:
        """Return the same without saying whose rows are the classes."""
        return replace(self, head_weight="", head_bias="", further_heads=())

    @torch.no_grad()
    def aligned(
        self, labels: Sequence[str], mapping: Mapping[str, str] | None = None
    ) -> dict[str, Tensor]:
        """Return Fisher values with the head's rows placed by class name in another label space.

        Args:
            labels: class names of the target head's rows, `[C']`.
            mapping: the Fisher's class name -> target class name where they differ.

        Returns:
            Parameter name -> tensor; head rows without a counterpart are zero.

        Raises:
            FisherError: if it names no head whose rows could be placed.
            LabelError: if its label space does not fit its head.
        """
        values = dict(self.values)
        if not self.head_weight and (mapping or list(self.labels) != list(labels)):
            raise FisherError(
                f"Expected the classes {list(self.labels)} everywhere, as the Fisher packet of "
                f"{', '.join(self.sources)} names no linear head, but got {list(labels)}."
            )
        for name in self.head:
            if name in values:
                values[name] = align_rows(values[name], self.labels, labels, mapping)
        return values

    def renamed(self, names: Mapping[str, str | None]) -> Self:
        """Return a Fisher information whose classes carry the names they have at other models.

        Args:
            names: its class name -> the name there, where they differ; `None` for a class that is
                to be left out.  So is a class that has, by chance, the new name of another one.

        Raises:
            FisherError: if it names no head whose rows could be left out.
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
) -> tuple[FisherPacket, bytes]:
    """Pack a Fisher information for the wire, with its tensors beside it.

    Args:
        values: parameter name -> non-negative tensor of the parameter's shape.
        labels: class names of the head's rows, `[C]`.
        head_weight: name of the head's weight.
        head_bias: name of the head's bias, `""` for a head without one.
        sources: ids of the root models it comes from.
        classes: the forgotten classes it stands for.
        samples: number of samples behind it.
        encoding: how the values are stored.
        further_heads: names of the weights and biases of the head's other layers.

    Returns:
        The packet without its tensors, but with their SHA-256, and the tensors' bytes.
    """
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
    """Pack a Fisher information for the wire, with its tensors in it.

    Args:
        values: as for `encode_apart`.
        **described: as for `encode_apart`.
    """
    packet, data = encode_apart(values, **described)
    packet.tensors = data
    return packet


def decode_fisher(packet: FisherPacket) -> dict[str, Tensor]:
    """Unpack the tensors of a packet after checking them.

    Returns:
        Parameter name -> non-negative tensor.

    Raises:
        FisherError: if the digest does not fit, the tensors are not encoded as it says, or a value
            is negative, NaN or infinite.
        CheckpointError: if the bytes are no safetensors.
    """
    what = f"the Fisher packet of {', '.join(packet.sources) or 'an unknown root'}"
    encoding = Encoding.from_proto(packet.encoding)
    data = packet.tensors  # a copy each time
    digest = hashlib.sha256(data).hexdigest()
    if digest != packet.digest:
        raise FisherError(
            f"Expected digest {packet.digest!r} for {what}, but its bytes have {digest}. "
            "Ask its sender to send it again."
        )
    values = decode_values(tensors_from_bytes(data, what), encoding, what)
    for name, value in values.items():
        check_fisher(name, value, what)
    return values


def merge(
    fishers: Sequence[PackedFisher], rule: MergeRule, encoding: Encoding = Encoding.FULL
) -> tuple[FisherPacket, bytes]:
    """Merge what several roots sent of several classes into one packet (MFIM, arXiv 2408.08493).

    Head rows are aligned by class *name* in the union of the label spaces; a class one root does
    not know contributes zero, which selects nothing.

    Args:
        fishers: at least one.
        rule: `max` (the paper's), `mean` or `sum`.
        encoding: how the merged values are stored.

    Returns:
        One packet that names all sources and classes, without its tensors, and these.

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
    packet, tensors = encode_apart(
        merge_fishers([fisher.aligned(labels) for fisher in fishers], rule),
        labels=labels,
        head_weight=first.head_weight,
        head_bias=first.head_bias,
        sources=list(dict.fromkeys(source for fisher in fishers for source in fisher.sources)),
        classes=list(dict.fromkeys(name for fisher in fishers for name in fisher.classes)),
        samples=sum(fisher.samples for fisher in fishers),
        encoding=encoding,
        further_heads=first.further_heads,
    )
    packet.clip_norm = max(fisher.clip_norm for fisher in fishers)
    return packet, tensors


def renamed_labels(labels: Sequence[str], names: Mapping[str, str | None]) -> dict[str, str]:
    """Return class name -> new name of those classes that `PackedFisher.renamed` keeps.

    Example:
        >>> renamed_labels(["cat", "dog", "owl"], {"cat": "owl", "dog": None})
        {'cat': 'owl'}
    """
    taken = set(names.values())
    new = {name: names.get(name, None if name in taken else name) for name in labels}
    return {name: named for name, named in new.items() if named is not None}


def attach_tensors(task: Message, find: Callable[[str], bytes]) -> None:
    """Put the tensors into the packets of a message that came without, if it carries packets.

    Args:
        task: any message; changed in place.
        find: returns the bytes with this SHA-256.
    """
    if isinstance(task, UnlearnTask):
        for packet in task.fishers:
            if packet.digest and not packet.tensors:
                packet.tensors = find(packet.digest)
