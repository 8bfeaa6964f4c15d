"""Inputs of an unlearning task: decoded packets, updates of roots and resolved lists of samples.

Most models of a task share them, so each is made once.  Decoded Fisher information is cached within
a budget: models come group by group, so what was dropped is not needed again.  Changes and updates
of roots are in files without a name meanwhile, from which one tensor is read at a time.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import Generic, Self, TypeVar

from torch import Tensor

from disinherit.client.dampening.own_changes import own_change
from disinherit.client.owner.owner import Owner, ResolvesSamples, Retrains
from disinherit.client.privacy.acceptance import ANYBODY, AcceptancePolicy, acceptance_of
from disinherit.client.privacy.remaining import as_trained
from disinherit.client.privacy.samples import known_samples, resolve_samples
from disinherit.common.deltas.changes import Lengths, lengths_of
from disinherit.common.deltas.packets import PackedDelta
from disinherit.common.errors import DataError, DisinheritError, FisherError, StoreError
from disinherit.common.graph.identifiers import line_name
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import Method
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import tensors_from_bytes
from disinherit.common.tensors.stored import spilled
from disinherit.common.tensors.writing import TensorWriter
from disinherit.common.wire.packets import PackedFisher
from disinherit.common.wire.samples import SampleDigests, samples_of
from disinherit.v1 import unlearning_pb2 as pb

DECODED_BYTES = 256 << 20
"""Size of the cache of decoded Fisher information; the latest is always kept."""

HELD_BYTES = 16 << 20
"""Changes of a message that are held in memory, as they came; the others are in files."""

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, eq=False)
class RootUpdate:
    """What the training of a root changed.

    Attributes:
        start: the weights that it started from.
        weights: the root's weights.
    """

    start: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]


class _Cache(Generic[_Value]):
    """Values that are made once, within a budget; the latest is always kept."""

    def __init__(self, size: Callable[[_Value], int]) -> None:
        self._size = size
        self._made: OrderedDict[str, _Value] = OrderedDict()
        self._bytes = 0

    def get(self, key: str, make: Callable[[], _Value]) -> _Value:
        if key not in self._made:
            self._made[key] = make()
            self._bytes += self._size(self._made[key])
        self._made.move_to_end(key)
        while self._bytes > DECODED_BYTES and len(self._made) > 1:
            self._bytes -= self._size(self._made.popitem(last=False)[1])
        return self._made[key]


class TaskInputs:
    """Inputs of an unlearning task for each of an owner's models.

    Args:
        owner: the owner of the models.
        task: the message.
        acceptance: conditions on changes of others, added to the owner's own.

    Attributes:
        owner: the owner of the models.
        task: the message.
        method: how to unlearn.
        acceptance: all conditions on changes of others.

    Raises:
        RequestError: if a value of the method is out of range.
    """

    def __init__(
        self, owner: Owner, task: pb.UnlearnTask, acceptance: AcceptancePolicy = ANYBODY
    ) -> None:
        self.owner = owner
        self.task = task
        self.method = Method.from_proto(task.method)
        self.acceptance = acceptance.stricter(acceptance_of(owner))
        self._fishers = _Cache[PackedFisher](lambda one: one.nbytes)
        self._changes: dict[tuple[int, str], PackedDelta] = {}
        self._lengths: dict[tuple[PackedDelta, tuple[str, ...]], Lengths] = {}
        self._unpacked: dict[tuple[int, str], Mapping[str, Tensor]] = {}
        self._in_memory = 0
        self._updates: dict[str, RootUpdate | str] = {}
        self._files = ExitStack()
        self._resolved: dict[tuple[str, SampleDigests], list[str]] = {}
        self._own: dict[tuple[str, frozenset[str]], frozenset[str]] = {}
        self._at_roots: dict[str, tuple[Set[str], Set[str]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def record(self, model: pb.ModelTask) -> ModelRecord:
        """Return the version of an entry of the task.

        Where its owner's data is needed, it has the provenance of its training.

        Raises:
            StoreError: if the owner does not have this version with these weights.
        """
        record = self.owner.store.record(model.model_id)
        if record.digest != model.digest:
            raise StoreError(
                f"Expected model {record.id!r} with digest {model.digest!r}, but the owner holds "
                f"{record.digest!r}. Register the owner's models again."
            )
        needs_data = model.shares or model.samples or self.task.roots
        return as_trained(self.owner, record) if needs_data else record

    def packet(self, model: pb.ModelTask) -> PackedFisher:
        """Return the merged Fisher of a model's upstream roots.

        Raises:
            FisherError: if there is no such packet, or it is damaged.
            CheckpointError: if its bytes are no safetensors.
        """
        return self._fisher(model, model.fisher)

    def change(self, model: pb.ModelTask, index: int, weights: Mapping[str, Tensor]) -> PackedDelta:
        """Return the change of a root, as far as a model has a place for it.

        Small factors may be those of a tensor that fills the memory.  So only what has a name and
        shape of the model is decoded, and not more than the values of the packet and the model.

        Args:
            model: an entry of the task.
            index: of the packet.
            weights: what may change in the model, of which only dtypes and shapes matter.

        Raises:
            FisherError: if there is no such packet, it is damaged, or has another shape.
            LabelError: if its class names do not fit its head.
            CheckpointError: if its bytes are no safetensors, or cannot be kept in a file.
        """
        packet = self._sent(model, index)
        key = index, architecture_fingerprint(weights)
        if key not in self._changes:
            change = self._decoded(index, packet, weights)
            made = packet.delta.before != packet.delta.after
            withheld = made and not (change.values or change.left_out)
            if withheld and packet.sources[0] in self.held:
                own = own_change(self.owner, self.task.request_id, packet)
                change = self._decoded(index, own, weights) if own is not None else change
            self._changes[key] = change
        return self._changes[key]

    def _decoded(
        self, index: int, packet: pb.FisherPacket, weights: Mapping[str, Tensor]
    ) -> PackedDelta:
        most = sum(value.numel() for value in weights.values()) + len(packet.tensors)
        return PackedDelta.from_packet(
            packet,
            most_values=most,
            weights=weights,
            names=weights.keys(),
            unpack=partial(self._unpack, index, packet.digest),
        )

    def lengths(
        self, change: PackedDelta, labels: Sequence[str], values: Mapping[str, Tensor]
    ) -> Lengths:
        """Return the lengths of a change in a label space, for which it is read once.

        Args:
            change: the change, from `change`.
            labels: class names of the head's rows, `[C]`.
            values: the change with these rows.
        """
        key = change, tuple(labels)
        if key not in self._lengths:
            self._lengths[key] = lengths_of(values)
        return self._lengths[key]

    def update(self, root: str) -> RootUpdate | str:
        """Return what the training of a root changed, or why that is not known.

        Args:
            root: id of the root.

        Returns:
            Its weights before and after training; a clause unless the owner holds the root and
            knows what its training started from.
        """
        if root not in self._updates:
            try:
                self._updates[root] = self._update(root)
            except DisinheritError:
                self._updates[root] = f"the weights of {root!r} or of its start are gone"
        return self._updates[root]

    def _update(self, root: str) -> RootUpdate | str:
        owner = self.owner
        if root not in self.held:
            return f"its owner does not hold {root!r}"
        if not isinstance(owner, Retrains):
            return f"its owner cannot give what {root!r} was trained from (`retrain`)"
        if not owner.can_retrain(owner.store.record(root)):
            return f"what {root!r} was trained from is not kept"
        # As it was before the request: it may have forgotten other data meanwhile.
        present = owner.store.present(root, self.task.request_id)
        start = owner.retrain(owner.store.record(root), None)
        kinds = {name: (value.dtype, value.shape) for name, value in start.items()}
        kept = self._files.enter_context(TensorWriter(owner.store.root, kinds, named=False))
        for name in kept.names:
            kept.write(name, start[name])
        weights = self._files.enter_context(owner.store.opened(present.id))
        return RootUpdate(kept.opened(), weights)

    def _unpack(self, index: int, digest: str, data: bytes, what: str) -> Mapping[str, Tensor]:
        """Return the tensors of a packet: small ones held, others read from a nameless file."""
        key = index, digest
        if key not in self._unpacked:
            if self._in_memory + len(data) <= HELD_BYTES:
                self._in_memory += len(data)
                self._unpacked[key] = tensors_from_bytes(data, what)
            else:
                kept = spilled(data, self.owner.store.root, what)
                self._unpacked[key] = self._files.enter_context(kept)
        return self._unpacked[key]

    @cached_property
    def held(self) -> frozenset[str]:
        """The ids of all versions that the owner holds."""
        return frozenset(record.id for record in self.owner.store.records())

    def alike(self, model: pb.ModelTask) -> PackedFisher | None:
        """Return the merged Fisher of the forgotten classes that a model was trained on itself.

        It is `None` if these are all classes.  Raises the errors of `packet`.
        """
        return self._fisher(model, model.alike) if model.HasField("alike") else None

    def samples(self, record: ModelRecord, message: pb.Root | pb.ModelTask) -> Sequence[str] | None:
        """Return the ids of the samples that a message lists for a model; `None` for no list.

        Args:
            record: a model that was trained on the samples directly.
            message: lists the samples.

        Raises:
            DataError: as in `resolve_samples`.
            RequestError: if the samples are not salted digests.
        """
        listed = samples_of(message)
        if listed is None:
            return None
        key = line_name(record.id), listed  # versions of one line were trained on the same
        if key not in self._resolved:
            self._resolved[key] = resolve_samples(self.owner, record, listed)
        return self._resolved[key]

    def own_samples(
        self, record: ModelRecord, roots: Collection[str] | None = None
    ) -> frozenset[str]:
        """Return which samples to forget, of roots of this owner, a model was itself trained on.

        Samples that an owner calls the same are the same in all of its models.

        Args:
            record: the model, with the provenance of its training (`as_trained`).
            roots: the roots; `None` for all of the message.

        Returns:
            Their ids; empty for an owner without ids, who cannot tell.
        """
        asked = [one for one in self.task.roots if roots is None or one.model_id in roots]
        trained = record.provenance is not None and any(
            record.provenance.samples_per_class.values()
        )
        if not (asked and trained and isinstance(self.owner, ResolvesSamples)):
            return frozenset()
        line = line_name(record.id)
        key = record.id, frozenset(one.model_id for one in asked)
        if key not in self._own:
            others = [one for one in asked if line_name(one.model_id) != line]
            found = [self.samples(record, one) or () for one in asked if one not in others]
            for one in others:
                found += self._shared_with(record, one)
            self._own[key] = frozenset(chain.from_iterable(found))
        return self._own[key]

    def _shared_with(self, record: ModelRecord, root: pb.Root) -> list[Sequence[str]]:
        """Return which samples that are listed for a root another model was trained on.

        Those that both were trained on are looked up where the root's are known.
        """
        listed, owner = samples_of(root), self.owner
        assert isinstance(owner, ResolvesSamples)
        if listed is None:
            return []
        if root.model_id not in self._at_roots:
            tested: Set[str] = frozenset()
            known: Set[str] = frozenset()
            if root.model_id in self.held:
                trained = as_trained(owner, owner.store.record(root.model_id))
                with suppress(DataError):  # said of the root itself
                    known = frozenset(self.samples(trained, root) or ())
                    tested = frozenset(owner.sample_ids(trained))
            self._at_roots[root.model_id] = known, tested
        known, tested = self._at_roots[root.model_id]
        ids = [*owner.sample_ids(record)]  # which can be read once
        others = [id for id in ids if id not in tested]
        both = [id for id in ids if id in known]
        return [both, known_samples(owner, record, [listed], among=others)]

    def left_out(self, record: ModelRecord, samples: Sequence[str] | None) -> list[str] | None:
        """Return the samples that a model must not be trained on again; `None` for none.

        Args:
            record: as in `own_samples`.
            samples: those that the message lists for it.
        """
        return sorted({*(samples or ()), *self.own_samples(record)}) or None

    def _fisher(self, model: pb.ModelTask, index: int) -> PackedFisher:
        packet = self._sent(model, index)
        return self._fishers.get(str(index), lambda: PackedFisher.from_packet(packet))

    def _sent(self, model: pb.ModelTask, index: int) -> pb.FisherPacket:
        if index >= len(self.task.fishers):
            raise FisherError(
                f"Expected the index of one of {len(self.task.fishers)} Fisher packets for model "
                f"{model.model_id!r}, but got {index}."
            )
        return self.task.fishers[index]
