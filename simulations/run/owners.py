"""The owners of a simulated fleet: the client's handlers over a share of one data set."""

from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from disinherit.client.owner.owner import Batches
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import DataError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.devices import pick_device
from disinherit.simulations.networks.networks import Classifier
from disinherit.simulations.run.replaying import retrain_one
from disinherit.simulations.scenario.forgetting import Forgetting
from disinherit.simulations.scenario.inheriting import Weights
from disinherit.simulations.scenario.label_spaces import label_spaces
from disinherit.simulations.scenario.settings import Settings
from disinherit.simulations.scenario.shares import owner_name, share_out
from disinherit.simulations.scenario.topology import Derivation


class SimulatedOwner:
    """One owner of a simulated fleet.

    Args:
        settings: of the run.
        index: which owner, from 0.
        folder: the run's folder; the owner keeps its models in a folder of its own below it.

    Attributes:
        store: its models, summaries and ledger.
        device: where it computes.
        index: which owner it is.
    """

    def __init__(self, settings: Settings, index: int, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self.index = index
        self.data = share_out(settings)
        self.device = pick_device(settings.device)
        self.store = ModelStore(folder / "owners" / owner_name(index), owner_name(index))

    def __enter__(self) -> "SimulatedOwner":
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def network(self, record: ModelRecord) -> nn.Module:
        """Return a module of the run's network."""
        return self.new_network(len(record.labels))

    def new_network(self, classes: int | None = None) -> Classifier:
        """Return the network that all models of a scenario with so many classes start from."""
        return self._settings.network_spec(self.data.dataset, classes).build(self._settings.seed)

    def training_data(self, record: ModelRecord) -> Batches | None:
        """Return the owner's share of the classes the model was trained on directly."""
        classes, size = self._trained_on(record), self._settings.batch_size
        data = self.data.owned(self.data.train[self.index], classes, size, self._space(record))
        return data if len(data) else None

    def sample_ids(self, record: ModelRecord) -> list[str]:
        """Return the ids of the model's training samples: their indices in the data set's pool."""
        return [str(index) for index in self._trained_samples(record).tolist()]

    def sample_ids_of(self, classes: Sequence[str]) -> list[str]:
        """Return the ids of the owner's training samples of some of the data set's classes."""
        return [str(i) for i in self.data.chosen(self.data.train[self.index], classes).tolist()]

    def split_training_data(
        self, record: ModelRecord, samples: Sequence[str]
    ) -> tuple[Batches, Batches]:
        """Return some training samples, and all others.

        Raises:
            DataError: if the model was not trained on the owner's data directly.
        """
        if record.provenance is None:
            raise DataError(
                f"Expected model {record.id!r} to be trained on data of {self.store.owner}, but it "
                "was not."
            )
        chosen = self._trained_samples(record)
        among = torch.isin(chosen, torch.tensor([int(sample) for sample in samples]))
        space, size = self._space(record), self._settings.batch_size
        forget, retain = (
            self.data.owned(part, self._trained_on(record), size, space)
            for part in (chosen[among], chosen[~among])
        )
        return forget, retain

    def can_retrain(self, record: ModelRecord) -> bool:
        """Return whether the weights of the model's parents are still there."""
        derivation = self._derivation(record)
        return derivation is not None and all(
            self._parent_is_there(link.parent) for link in derivation.links
        )

    def retrain(self, record: ModelRecord, without: Collection[str] | None) -> dict[str, Tensor]:
        """Return the model trained again, without some samples; all parents are on this machine.

        Raises:
            DataError: if no sample is left.
            StoreError: if the weights of a parent are gone.
        """
        derivation = self._derivation(record)
        assert derivation is not None
        settings = self._settings
        forgetting = Forgetting(settings, label_spaces(settings.scenario, self.data.dataset))
        parents = {link.parent: self._parent(link.parent) for link in derivation.links}
        indices = None if without is None else [int(sample) for sample in without]
        return retrain_one(derivation, forgetting, parents, indices)

    def keeps_curvature(self, record: ModelRecord) -> bool:
        """Return whether the run takes samples out of roots by a step with their curvature."""
        return self._settings.method.root_method == "ekfac"

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        """Return the owner's share of the tuning split, of classes that it held."""
        classes, size = self._trained_on(record), self._settings.batch_size
        data = self.data.owned(self.data.tuning[self.index], classes, size, self._space(record))
        return data if len(data) else None

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        """Return the evaluation split of the model's classes; a successor gets the same samples."""
        return self.data.evaluation(self._space(record))

    def _trained_samples(self, record: ModelRecord) -> Tensor:
        return self.data.chosen(self.data.train[self.index], self._trained_on(record))

    def _derivation(self, record: ModelRecord) -> Derivation | None:
        """Return how a model, or the one that it is a successor of, was trained."""
        origin = record.id.partition("~")[0]
        return next((d for d in self._settings.scenario.derivations if d.id == origin), None)

    def _parent(self, model: str) -> Weights:
        with self._store_of(model) as store:
            return store.weights(model)

    def _parent_is_there(self, model: str) -> bool:
        with self._store_of(model) as store:
            return store.destroyed(model) is None

    def _store_of(self, model: str) -> ModelStore:
        settings = self._settings
        owner = owner_name(settings.scenario.owner_of(model, settings.clients))
        return ModelStore(self._folder / "owners" / owner, owner)

    def _space(self, record: ModelRecord) -> list[str]:
        """Return the data set's classes in the order of a model's labels."""
        aliases = self._settings.scenario.aliases
        return [aliases.get(label, label) for label in record.labels]

    def _trained_on(self, record: ModelRecord) -> list[str]:
        """Return the data set's classes that a model was trained on directly."""
        if record.provenance is None:
            return []
        aliases = self._settings.scenario.aliases
        counts = record.provenance.samples_per_class
        return [aliases.get(label, label) for label, count in counts.items() if count]
