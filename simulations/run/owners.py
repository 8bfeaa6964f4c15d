"""The owners of a simulated fleet: the client's handlers over a share of one data set."""

from pathlib import Path

from torch import nn

from disinherit.client.owner.owner import Batches
from disinherit.client.store.store import ModelStore
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.devices import pick_device
from disinherit.simulations.networks.networks import Classifier
from disinherit.simulations.scenario.settings import Settings
from disinherit.simulations.scenario.shares import owner_name, share_out


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

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        """Return the owner's share of the tuning split, of classes that it held."""
        classes, size = self._trained_on(record), self._settings.batch_size
        data = self.data.owned(self.data.tuning[self.index], classes, size, self._space(record))
        return data if len(data) else None

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        """Return the evaluation split of the model's classes; a successor gets the same samples."""
        return self.data.evaluation(self._space(record))

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
