"""Owners of a Flower app's models: a node with its updates, and the server with the global models.

Networks and data are those of the app's own functions.  A node's data are loaded as they were for
the training, and are taken for gone if they are not the same any more.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import torch
from flwr.app import Context
from torch import Tensor, nn

from disinherit.client.owner.owner import Batches
from disinherit.client.privacy.remaining import cleared_samples
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import DataError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.devices import pick_device
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.flower.app_samples import AppSamples, split_loaders
from disinherit.flower.functions import AppFunctions, Values, call
from disinherit.flower.places import SERVER, owner_of, place_of
from disinherit.flower.repeated_weights import RepeatedWeights
from disinherit.flower.training_replay import TrainingReplay
from disinherit.flower.trainings import Training, Trainings
from disinherit.v1.unlearning_pb2 import REMEDY_REBUILT, REMEDY_REPLAYED, ModelResult

_log = logging.getLogger(__name__)

_EXACT = (REMEDY_REPLAYED, REMEDY_REBUILT)


class AppOwner:
    """What a node and the server have in common: a store, the app's network and a device.

    Args:
        functions: of the app.
        name: of the owner.
        values: configuration that the functions may take values of.
    """

    def __init__(self, functions: AppFunctions, name: str, values: Values) -> None:
        self.functions = functions
        self.values = values
        self.folder: Path = place_of(functions, name)
        self.store = ModelStore(self.folder / "models", name)
        self.repeated = RepeatedWeights(self.folder, self.store)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    @cached_property
    def device(self) -> torch.device:
        """The accelerator that PyTorch finds, else the CPU."""
        return pick_device()

    def network(self, record: ModelRecord) -> nn.Module:
        """Return a module of the app's network."""
        return call(self.functions.model, "the model", self.values)

    def made_again(self, record: ModelRecord, request_id: str) -> Mapping[str, Tensor] | None:
        """Return what a repetition of the rounds gave for a request; `None` without one."""
        return self.repeated.find(request_id, record.id)

    def check_exact(self, record: ModelRecord) -> None:
        """Refuse a version that an earlier request changed otherwise than by repetitions.

        Raises:
            DataError: if one did.
        """
        for entry in self.store.made_by(record.id):
            if ModelResult.FromString(entry.result).remedy not in _EXACT:
                raise DataError(
                    f"Expected {record.id!r} as it was trained, but request {entry.request_id} "
                    "changed it, which training it again would undo."
                )


class NodeOwner(AppOwner):
    """The owner that a node is: it has the updates that it trained.

    Args:
        functions: of the app.
        context: of a Flower message.
        replay: replays trainings for the message.
    """

    def __init__(self, functions: AppFunctions, context: Context, replay: TrainingReplay) -> None:
        values = {**context.run_config, **context.node_config}
        super().__init__(functions, owner_of(context), values)
        self.trainings = Trainings(self.folder)
        self._replay = replay
        self._loaded: dict[str, tuple[AppSamples, AppSamples | None]] = {}

    def load(self, values: Values) -> tuple[AppSamples, AppSamples | None]:
        """Return the node's samples, and its held-out ones if it has any.

        Args:
            values: configuration of the node and of the run.

        Raises:
            InputError: if the app's function takes something else.
            DataError: if it returns no loaders.
        """
        key = repr(sorted(values.items()))
        if key not in self._loaded:
            what = f"data of {self.store.owner}"
            loaded = call(self.functions.data, "the data", values)
            self._loaded[key] = split_loaders(loaded, what, self.functions.batch)
        return self._loaded[key]

    def training_data(self, record: ModelRecord) -> Batches | None:
        """Return what an update was trained on; `None` if it is gone."""
        samples, _ = self._of(record)
        return None if samples is None else samples.of_all()

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        """Return every other held-out sample; `None` without any."""
        return _every_other(self._of(record)[1], 1)

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        """Return the other held-out samples; `None` without any."""
        return _every_other(self._of(record)[1], 0)

    def sample_ids(self, record: ModelRecord) -> Iterable[str]:
        """Return the ids of the samples that an update was trained on; empty if they are gone.

        A position names another sample in other data, so its id has their digest, too.
        """
        samples, _ = self._of(record)
        return () if samples is None else _own_ids(samples)

    def ids_named(self, records: Iterable[ModelRecord], names: Collection[str]) -> dict[str, str]:
        """Return what people call samples -> their ids; positions are those in the latest data.

        Args:
            records: the updates, the latest first.
            names: ids that the data say, or positions; those of no sample are left out.
        """
        found: dict[str, str] = {}
        for record in records:
            samples, _ = self._of(record)
            known = {} if samples is None else _own_ids(samples)
            for id, name in known.items():
                if name in names:
                    found.setdefault(name, id)
        return found

    def split_training_data(
        self, record: ModelRecord, samples: Sequence[str]
    ) -> tuple[Batches, Batches]:
        """Split what an update was trained on into some samples and all others.

        Raises:
            DataError: if the data is gone.
        """
        found = self._there(record)
        named = {*samples}
        chosen = [place for place, id in enumerate(_own_ids(found)) if id in named]
        rest = [place for place, id in enumerate(_own_ids(found)) if id not in named]
        return found.some(chosen), found.some(rest)

    def can_retrain(self, record: ModelRecord) -> bool:
        """Say whether what the training of an update began with is kept."""
        training = self.trainings.find(record.id)
        return training is not None and self.trainings.start(training) is not None

    def retrain(self, record: ModelRecord, without: Collection[str] | None) -> Mapping[str, Tensor]:
        """Return what the training of an update gives without some samples; its start for `None`.

        Raises:
            DataError: if it cannot be repeated.
        """
        training = self.trainings.find(record.id)
        start = None if training is None else self.trainings.start(training)
        if training is None or start is None:
            raise DataError(f"Expected the start of {record.id!r} to be kept, but it is gone.")
        if without is None:
            return start
        known = _own_ids(self._there(record)) if without else {}
        return self._replay.run(record.id, training, start, [known[id] for id in without])

    def _there(self, record: ModelRecord) -> AppSamples:
        """Return the samples that an update was trained on.

        Raises:
            DataError: if they are gone.
        """
        samples, _ = self._of(record)
        if samples is None:
            raise DataError(
                f"Expected the data that {record.id!r} was trained on, but it is gone, or not the "
                "same any more. Let the app load what it loaded then."
            )
        return samples

    def repeat(
        self,
        record: ModelRecord,
        start: Mapping[str, Tensor],
        without: Collection[str],
    ) -> dict[str, Tensor]:
        """Return what the training of an update gives from another start, without some samples.

        What it has forgotten before stays left out.

        Raises:
            DataError: if it cannot be repeated, or does not give the update bit for bit from its
                own start with all samples.
        """
        self.check_exact(record)
        training = self.trainings.find(record.id)
        own = None if training is None else self.trainings.start(training)
        if training is None or own is None:
            raise DataError(f"Expected the start of {record.id!r} to be kept, but it is gone.")
        origin = self.store.record(record.id.partition("~")[0])
        again = self._replay.run(origin.id, training, own, ())
        if weights_digest(again) != origin.digest:
            raise DataError(
                f"Expected {origin.id!r} when its training is repeated, but it gives other "
                "weights: it depends on more than its start, its data and random numbers."
            )
        gone = {*without, *cleared_samples(self, record)}
        known = _own_ids(self._there(record))
        names = [name for id, name in known.items() if id in gone]
        return self._replay.run(origin.id, training, start, names)

    def _of(self, record: ModelRecord) -> tuple[AppSamples | None, AppSamples | None]:
        """Return training and held-out samples of an update, as they were; else `None`."""
        training = self.trainings.find(record.id)
        if training is None:
            return None, None
        samples, held_out = self.load(values_of(training))
        if samples.digest != training.data:
            _log.warning(
                "the data of %s is not what model %s was trained on: it counts as gone",
                self.store.owner,
                record.id,
            )
            return None, held_out
        return samples, held_out


class ServerOwner(AppOwner):
    """The owner that the server is: it has the global models, which nobody trained directly.

    What their parameters matter for is measured on samples of the server: of each four, two are the
    reference, one is for tuning and one for evaluation.

    Args:
        functions: of the app.
        values: configuration of the run.
    """

    def __init__(self, functions: AppFunctions, values: Values) -> None:
        super().__init__(functions, SERVER, values)

    @cached_property
    def samples(self) -> AppSamples | None:
        """The server's samples, held-out ones of two loaders; `None` without any."""
        if self.functions.server_data is None:
            return None
        loaded = call(self.functions.server_data, "the server's data", self.values)
        first, held_out = split_loaders(loaded, "data of the server", self.functions.batch)
        return held_out or first

    def training_data(self, record: ModelRecord) -> Batches | None:
        """Return the reference of a global model; `None` without data of the server."""
        return self._parts(0, 1)

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        """Return samples that are used for nothing else; `None` without any."""
        return self._parts(2)

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        """Return samples that are used for nothing else; `None` without any."""
        return self._parts(3)

    def _parts(self, *parts: int) -> Batches | None:
        if self.samples is None:
            return None
        return self.samples.some(
            [place for place in range(len(self.samples.ids)) if place % 4 in parts]
        )


def values_of(training: Training) -> Values:
    """Return the configuration of a training that an app's functions may take values of."""
    return {**training.run_config, **training.node_config}


def _own_ids(samples: AppSamples) -> dict[str, str]:
    """Return the id of each sample, in order -> what people call it."""
    data = f"{samples.digest}/" if samples.are_positions else ""
    return {data + name: name for name in samples.ids}


def _every_other(samples: AppSamples | None, first: int) -> Batches | None:
    return None if samples is None else samples.some(range(first, len(samples.ids), 2))
