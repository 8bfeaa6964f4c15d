"""Inputs of an unlearning task: decoded packets and resolved lists of samples, each made once.

Most models of a task share both.  Decoded packets are cached within a budget.  Models come group by
group, so a dropped packet is not needed again.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from disinherit.client.owner.owner import Owner
from disinherit.client.privacy.samples import resolve_samples
from disinherit.common.deltas.packets import PackedDelta
from disinherit.common.errors import FisherError, StoreError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import Method
from disinherit.common.wire.packets import PackedFisher
from disinherit.common.wire.samples import SampleDigests, samples_of
from disinherit.v1 import unlearning_pb2 as pb

DECODED_BYTES = 256 << 20
"""Size of the cache of decoded packets; the latest is always kept."""


class TaskInputs:
    """Inputs of an unlearning task for each of an owner's models.

    Args:
        owner: the owner of the models.
        task: the message.

    Attributes:
        owner: the owner of the models.
        task: the message.
        method: how to unlearn.

    Raises:
        RequestError: if a value of the method is out of range.
    """

    def __init__(self, owner: Owner, task: pb.UnlearnTask) -> None:
        self.owner = owner
        self.task = task
        self.method = Method.from_proto(task.method)
        self._decoded: OrderedDict[int, PackedFisher | PackedDelta] = OrderedDict()
        self._bytes = 0
        self._resolved: dict[tuple[str, SampleDigests], list[str]] = {}

    def record(self, model: pb.ModelTask) -> ModelRecord:
        """Return the version of an entry of the task.

        Raises:
            StoreError: if the owner does not have this version with these weights.
        """
        record = self.owner.store.record(model.model_id)
        if record.digest != model.digest:
            raise StoreError(
                f"Expected model {record.id!r} with digest {model.digest!r}, but the owner holds "
                f"{record.digest!r}. Register the owner's models again."
            )
        return record

    def packet(self, model: pb.ModelTask) -> PackedFisher:
        """Return the merged Fisher of a model's upstream roots.

        Raises:
            FisherError: if there is no such packet, or it is damaged.
            CheckpointError: if its bytes are no safetensors.
        """
        return self._fisher(model, model.fisher)

    def change(self, model: pb.ModelTask, index: int) -> PackedDelta:
        """Return the change of a root.

        Args:
            model: an entry of the task.
            index: of the packet.

        Raises:
            FisherError: if there is no such packet, or it is damaged.
            LabelError: if its class names do not fit its head.
            CheckpointError: if its bytes are no safetensors.
        """
        found = self._decode(model, index, PackedDelta.from_packet)
        if not isinstance(found, PackedDelta):
            raise _mixed(model)
        return found

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
        key = record.id, listed
        if key not in self._resolved:
            self._resolved[key] = resolve_samples(self.owner, record, listed)
        return self._resolved[key]

    def _fisher(self, model: pb.ModelTask, index: int) -> PackedFisher:
        found = self._decode(model, index, PackedFisher.from_packet)
        if not isinstance(found, PackedFisher):
            raise _mixed(model)
        return found

    def _decode(
        self,
        model: pb.ModelTask,
        index: int,
        read: Callable[[pb.FisherPacket], PackedFisher | PackedDelta],
    ) -> PackedFisher | PackedDelta:
        if index >= len(self.task.fishers):
            raise FisherError(
                f"Expected the index of one of {len(self.task.fishers)} Fisher packets for model "
                f"{model.model_id!r}, but got {index}."
            )
        if index not in self._decoded:
            self._decoded[index] = read(self.task.fishers[index])
            self._bytes += _size(self._decoded[index])
        self._decoded.move_to_end(index)
        while self._bytes > DECODED_BYTES and len(self._decoded) > 1:
            self._bytes -= _size(self._decoded.popitem(last=False)[1])
        return self._decoded[index]


def _size(packet: PackedFisher | PackedDelta) -> int:
    return sum(value.nbytes for value in packet.values.values())


def _mixed(model: pb.ModelTask) -> FisherError:
    return FisherError(
        f"Expected either Fisher information or changes of roots for model {model.model_id!r}, but "
        "got one packet for both. Submit the request again."
    )
