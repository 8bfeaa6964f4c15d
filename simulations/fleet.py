"""Training a topology over Flower, generation by generation, and replaying it."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from flwr.serverapp import Grid

from disinherit.common.records import Inheritance, ModelRecord
from disinherit.server.flower_transport import FlowerTransport, exchange
from disinherit.server.store import now_us
from disinherit.simulations.owners import owner_name
from disinherit.simulations.settings import Settings
from disinherit.simulations.topology import Topology
from disinherit.simulations.training import Fit, Fitted, Weights, average

Record = Callable[[ModelRecord, list[Inheritance]], None]

_TIMEOUT_SECONDS = 3600.0


@dataclass(slots=True)
class Fleet:
    """The models of a run while they come to be.

    Attributes:
        settings: of the run.
        topology: who is derived from whom.
        grid: the way to the owners' nodes.
        transport: knows which node an owner is.
        fitted: what training gave, by model id.
    """

    settings: Settings
    topology: Topology
    grid: Grid
    transport: FlowerTransport
    fitted: dict[str, Fitted] = field(default_factory=dict)

    def train(self, record: Record, say: Callable[[str], None]) -> float:
        """Train every model on its owner, recording it and its inheritance as it comes.

        Args:
            record: given every new version and its edges.
            say: told what is happening.

        Returns:
            Seconds.

        Raises:
            CampaignError: if a model could not be trained.
        """
        started = time.perf_counter()
        for fitted in self._fit(self.topology.ids, {}, {}, say, keep=True):
            self.fitted[fitted.record.id] = fitted
            edges = next(
                self.topology.edges(d)
                for d in self.topology.derivations
                if d.id == fitted.record.id
            )
            record(fitted.record, edges)
        return time.perf_counter() - started

    def replay(
        self, affected: Collection[str], say: Callable[[str], None]
    ) -> tuple[dict[str, Fitted], float]:
        """Retrain the affected models exactly, without the data to forget: the reference.

        Args:
            affected: the models to retrain; the others are taken as they are.
            say: told what is happening.

        Returns:
            What retraining gave by model id, and seconds.
        """
        started = time.perf_counter()
        others = {m: f.weights for m, f in self.fitted.items() if m not in affected}
        retrained = {
            fitted.record.id: fitted
            for fitted in self._fit(affected, others, self.settings.forget, say, keep=False)
        }
        return retrained, time.perf_counter() - started

    def _fit(
        self,
        models: Collection[str],
        others: Mapping[str, Weights],
        forget: Mapping[str, Collection[str]],
        say: Callable[[str], None],
        *,
        keep: bool,
    ) -> list[Fitted]:
        """Train models generation by generation, those of one generation at the same time."""
        weights = dict(others)
        fitted: list[Fitted] = []
        clients = self.settings.clients
        for generation in self.topology.generations():
            messages = {}
            for derivation in generation:
                if derivation.id not in models:
                    continue
                without = {
                    *self.topology.never_learned(derivation.id, self.settings.forget),
                    *(name for names in forget.values() for name in names),
                }
                fit = Fit(derivation.id, now_us(), tuple(sorted(without)), keep)
                start = average([weights[parent] for parent in derivation.parents])
                owner = owner_name(self.topology.owner_of(derivation.id, clients))
                node = self.transport.nodes[owner]
                messages[derivation.id] = fit.message(start, node, _TIMEOUT_SECONDS)
            for model, reply in exchange(self.grid, messages, _TIMEOUT_SECONDS):
                result = Fitted.from_reply(model, reply)
                weights[model] = result.weights
                fitted.append(result)
                say(model)
        return fitted
