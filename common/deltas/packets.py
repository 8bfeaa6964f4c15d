"""Packets with the change of one root: weights after unlearning minus those before."""

import hashlib
import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from disinherit.common import limits
from disinherit.common.deltas.codes import StoredChanges, check_change, encode_changes
from disinherit.common.errors import FisherError, LabelError
from disinherit.common.fiun.alignment import align_rows
from disinherit.common.method import MOST_RANK, find_delta_code
from disinherit.common.tensors.checkpoints import tensor_bytes, tensors_from_bytes
from disinherit.common.tensors.lazy import LazyTensors, blocks_of, rows_of
from disinherit.common.wire.packets import renamed_labels
from disinherit.v1 import unlearning_pb2 as pb

MOST_VALUES = limits.ANSWER.most // 4
"""Bound on the values of a decoded change, where no other is known: a whole answer in float32."""


@dataclass(frozen=True, slots=True, eq=False)
class PackedDelta:
    """The checked content of a packet with a change.

    Attributes:
        values: name of a parameter or buffer -> its change, of either sign, decoded each time.
        left_out: names of further changes, which were not decoded.
        labels: class names of the head's rows, `[C]`; `""` for a class without a counterpart at
            the models that the packet is for.
        head_weight: name of the head's weight; `""` without a linear head.
        head_bias: name of the head's bias; `""` for a head without one.
        further_heads: weights and biases of the head's other layers, where several are summed.
        source: id of the root.
        before: SHA-256 of the root's weights before.
        after: SHA-256 of its weights after.
        request_digest: SHA-256 of what the request asks for.
        root_method: name of the root method that made the change.
        exact: whether the weights after are those of training without the data to forget.
        samples: number of samples that were taken away.
    """

    values: Mapping[str, Tensor]
    left_out: tuple[str, ...]
    labels: tuple[str, ...]
    head_weight: str
    head_bias: str
    further_heads: tuple[str, ...]
    source: str
    before: str
    after: str
    request_digest: str
    root_method: str
    exact: bool
    samples: int

    @property
    def head(self) -> tuple[str, ...]:
        """The parameter names of the head."""
        return head_names(self)

    @classmethod
    def from_packet(
        cls,
        packet: pb.FisherPacket,
        *,
        most_values: int = MOST_VALUES,
        weights: Mapping[str, Tensor] | None = None,
        names: Container[str] | None = None,
        unpack: Callable[[bytes, str], Mapping[str, Tensor]] = tensors_from_bytes,
    ) -> Self:
        """Check and unpack a packet.

        Args:
            packet: the packet, with its tensors; not trusted.
            most_values: bound on the number of decoded values.  A small packet with factors may
                decode into far larger tensors, and is refused before it does.
            weights: those of the model that the change is for, of which only shapes matter: it may
                have no other names, and no other shapes except for the number of rows of the head.
                `None` to accept any.
            names: which changes to decode; the bound and the weights are for these only.  `None`
                for all.
            unpack: reads the tensors of the packet's bytes, with a name of the source for errors.

        Raises:
            FisherError: if it has no change or that of several roots, its digest differs, its
                tensors do not fit the encoding or a bound, or a value is NaN or infinite.
            LabelError: if the class names are repeated, or do not fit the head.
            CheckpointError: if the bytes are no safetensors.
        """
        what = _what(packet)
        _check_described(packet, what)
        data = packet.tensors  # a copy each time
        digest = hashlib.sha256(data).hexdigest()
        if digest != packet.digest:
            raise FisherError(
                f"Expected digest {limits.shown(packet.digest)} for {what}, but its bytes have "
                f"{digest}. Ask its sender to send it again."
            )
        code = find_delta_code(packet.delta.encoding, FisherError)
        stored = unpack(data, what)
        del data
        changes = StoredChanges.read(stored, code, packet.delta.rank, what)
        _check_described_shapes(changes.shapes, packet, what)
        shapes = {
            name: shape for name, shape in changes.shapes.items() if names is None or name in names
        }
        _check_bounds(shapes, packet, most_values, weights, what)
        values = changes.values(shapes)
        for name in values:
            for (value,) in blocks_of(values, name=name):
                check_change(name, value, what)
        return cls(
            values=values,
            left_out=tuple(name for name in changes.shapes if name not in shapes),
            labels=tuple(packet.labels),
            head_weight=packet.head_weight,
            head_bias=packet.head_bias,
            further_heads=tuple(packet.further_heads),
            source=packet.sources[0],
            before=packet.delta.before,
            after=packet.delta.after,
            request_digest=packet.delta.request_digest,
            root_method=packet.delta.root_method,
            exact=packet.delta.exact,
            samples=packet.samples,
        )

    @torch.no_grad()
    def aligned(self, labels: Sequence[str]) -> Mapping[str, Tensor]:
        """Return the change with the head's rows aligned by class name to another label space.

        Args:
            labels: class names of the target head's rows, `[C']`.

        Returns:
            Name -> change; head rows without a counterpart are zero.

        Raises:
            FisherError: if the packet has no head to align.
        """
        if tuple(labels) == self.labels and all(labels):
            return self.values
        if not self.head_weight:
            raise FisherError(
                f"Expected the classes {limits.clipped(str(list(self.labels)))} everywhere, as the "
                f"change of root {limits.shown(self.source)} names no linear head, but got "
                f"{limits.clipped(str(list(labels)))}."
            )
        known = [row for row, name in enumerate(self.labels) if name]
        names = [self.labels[row] for row in known]

        def align(name: str) -> Tensor:
            value = self.values[name]
            return align_rows(value[known], names, labels) if name in self.head else value

        def block(name: str, rows: slice) -> Tensor:
            return align(name)[rows] if name in self.head else rows_of(self.values, name, rows)

        shapes = self.values.shapes if isinstance(self.values, LazyTensors) else {}
        kept = {name: shape for name, shape in shapes.items() if name not in self.head}
        return LazyTensors(self.values, align, block, kept)


def encode_delta(
    values: Mapping[str, Tensor],
    *,
    labels: Sequence[str],
    head_weight: str,
    head_bias: str,
    further_heads: Sequence[str],
    source: str,
    samples: int,
    delta: pb.Delta,
) -> pb.FisherPacket:
    """Pack the change of a root for the wire.

    Args:
        values: name of a parameter or buffer -> its change (`difference`).
        labels: class names of the head's rows, `[C]`.
        head_weight: name of the head's weight; `""` without a linear head.
        head_bias: name of the head's bias; `""` for a head without one.
        further_heads: names of the weights and biases of the head's other layers.
        source: id of the root.
        samples: number of samples that were taken away.
        delta: where the change comes from; its encoding and rank say how values are stored.

    Raises:
        FisherError: if a value is not finite or beyond the range of the encoding.
        LabelError: if a class has no name, since that stands for a class without a counterpart.
    """
    if not all(labels):
        raise LabelError(
            f"Expected a name for each class of root {source!r}, but got {list(labels)}. Give the "
            "class a name, and add the model again."
        )
    stored = encode_changes(values, find_delta_code(delta.encoding, FisherError), delta.rank)
    data = tensor_bytes(stored)
    return pb.FisherPacket(
        tensors=data,
        digest=hashlib.sha256(data).hexdigest(),
        labels=labels,
        head_weight=head_weight,
        head_bias=head_bias,
        further_heads=further_heads,
        sources=[source],
        samples=samples,
        delta=delta,
    )


def relabelled(packet: pb.FisherPacket, names: Mapping[str, str | None]) -> pb.FisherPacket:
    """Return a packet with class names of other models, and the same tensors.

    Args:
        packet: a packet with a change, with or without its tensors.
        names: class name -> new name, where they differ; `None` for a class without counterpart. A
            class with the new name of another one has none either.
    """
    renamed = pb.FisherPacket()
    renamed.CopyFrom(packet)
    kept = renamed_labels(packet.labels, names)
    renamed.labels[:] = [kept.get(name, "") for name in packet.labels]
    return renamed


def head_names(packet: PackedDelta | pb.FisherPacket) -> tuple[str, ...]:
    """Return the parameter names of the head that a change is described with."""
    first = tuple(name for name in (packet.head_weight, packet.head_bias) if name)
    return first + tuple(packet.further_heads)


def _what(packet: pb.FisherPacket) -> str:
    return f"the change of root {limits.shown(', '.join(packet.sources) or 'unknown')}"


def _check_described(packet: pb.FisherPacket, what: str) -> None:
    """Check everything beside the tensors."""
    if not packet.HasField("delta"):
        raise FisherError(
            f"Expected the change of a root, but {what} is Fisher information. Its sender answered "
            "another question."
        )
    if len(packet.sources) != 1:
        raise FisherError(
            f"Expected the change of one root, but got {what}, that of {len(packet.sources)}: "
            "changes add up where they are applied, and are never merged."
        )
    limits.check_names(packet.sources, "the root", limits.ID, FisherError)
    limits.CLASSES.check_items(packet.labels, f"the classes of {what}", FisherError)
    limits.check_names(packet.labels, f"{what}: the class", error=FisherError)
    limits.PARAMETERS.check_items(packet.further_heads, f"the heads of {what}", FisherError)
    limits.check_names(head_names(packet), f"{what}: the head's parameter", error=FisherError)
    limits.check_names([packet.delta.root_method], f"{what}: the root method", error=FisherError)
    made = packet.delta
    for requests in (made.repeats, made.line.requests, made.replaces, made.again):
        limits.PARENTS.check_items(requests, f"the requests behind {what}", FisherError)
        limits.check_names(requests, f"{what}: the request", limits.ID, FisherError)
    digests = packet.delta.before, packet.delta.after, packet.delta.request_digest
    for digest, name in zip(digests, ("weights before", "weights after", "request"), strict=True):
        limits.check_digest(digest, f"the digest of the {name} of {what}", FisherError)
    if packet.delta.rank > MOST_RANK:
        raise FisherError(
            f"Expected a rank from 0 to {MOST_RANK} of {what}, but got {packet.delta.rank}."
        )
    named = [name for name in packet.labels if name]
    if len(set(named)) != len(named):
        raise LabelError(
            f"Expected distinct class names in {what}, but got "
            f"{limits.clipped(str(list(packet.labels)))}."
        )


def _check_described_shapes(
    shapes: Mapping[str, tuple[int, ...]], packet: pb.FisherPacket, what: str
) -> None:
    """Check names, and the rows of the head."""
    limits.PARAMETERS.check_items(shapes, f"the tensors of {what}", FisherError)
    limits.check_names(shapes, f"{what}: the parameter", error=FisherError)
    for name in head_names(packet):
        if name in shapes and shapes[name][:1] != (len(packet.labels),):
            raise LabelError(
                f"Expected a row for each of the {len(packet.labels)} classes in "
                f"{limits.shown(name)} of {what}, but got shape {list(shapes[name])}."
            )


def _check_bounds(
    shapes: Mapping[str, tuple[int, ...]],
    packet: pb.FisherPacket,
    most_values: int,
    weights: Mapping[str, Tensor] | None,
    what: str,
) -> None:
    """Check sizes and shapes before anything is decoded."""
    if weights is not None:
        for name, given, own in _other_shapes(shapes, weights, head_names(packet)):
            raise FisherError(
                f"Expected {what} to fit the model, but {limits.shown(name)} has shape {given} "
                f"there and {own} here. Make the model a root, or retrain it."
            )
    total = sum(math.prod(shape) for shape in shapes.values())
    if total > most_values:
        raise FisherError(
            f"Expected {what} to have at most {most_values:,} values, as many as are known of the "
            f"model, but it decodes into {total:,}."
        )


def _other_shapes(
    shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, Tensor], head: Sequence[str]
) -> Iterator[tuple[str, list[int], list[int] | str]]:
    """Yield names that the weights do not have, or in another shape, with both shapes."""
    for name, shape in shapes.items():
        if name not in weights:
            yield name, list(shape), "none"
            continue
        own, first = list(weights[name].shape), int(name in head)
        if list(shape)[first:] != own[first:] or len(shape) != len(own):
            yield name, list(shape), own
