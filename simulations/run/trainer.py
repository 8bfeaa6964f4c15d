"""Training a topology over Flower, generation by generation, and replaying it."""

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from flwr.serverapp import Grid

from disinherit.common.errors import CampaignError
from disinherit.common.graph.records import Inheritance, ModelRecord
from disinherit.server.flower.exchange import exchange
from disinherit.server.flower.owners import NamedOwners
from disinherit.server.now import now_us
from disinherit.simulations.run.replaying import fit_of, start_of, untrained
from disinherit.simulations.run.training import Fitted
from disinherit.simulations.scenario.forgetting import Forgetting
from disinherit.simulations.scenario.inheriting import Weights
from disinherit.simulations.scenario.settings import Settings
from disinherit.simulations.scenario.shares import owner_name
from disinherit.simulations.scenario.topology import Derivation

Record = Callable[[ModelRecord, list[Inheritance]], None]

_TIMEOUT_SECONDS = 3600.0


@dataclass(slots=True)
class SimulatedFleet:
    """The models of a run while they are trained.

    Attributes:
        settings: of the run.
        grid: the way to the owners' nodes.
        owners: knows which node an owner is.
        forgetting: what is to be forgotten.
        run: its name, where one app trains for several.
        keep: whether owners register the models.
        weights: of the trained models, by id.
    """

    settings: Settings
    grid: Grid
    owners: NamedOwners
    forgetting: Forgetting
    run: str = ""
    keep: bool = True
    weights: dict[str, Weights] = field(default_factory=dict)

    def train(self, record: Record, say: Callable[[str], None]) -> float:
        """Train every model on its owner, recording it and its inheritance as it comes.

        Args:
            record: given every new version and its edges.
            say: receives the id of every model that was trained.

        Returns:
            Seconds.

        Raises:
            CampaignError: if a model could not be trained.
        """
        started = time.perf_counter()
        ids = self.settings.scenario.ids
        for derivation, fitted in self._fit(self.weights, ids, replay=False):
            record(fitted.record, self.forgetting.spaces.edges(derivation))
            say(derivation.id)
        return time.perf_counter() - started

    def replay(
        self, affected: Collection[str], say: Callable[[str], None]
    ) -> tuple[dict[str, Weights], float]:
        """Retrain the affected models exactly, without the data to forget: the reference.

        Args:
            affected: the models to retrain; the others are taken as they are.
            say: receives the id of every model that was retrained.

        Returns:
            Weights by model id, and seconds.

        Raises:
            CampaignError: if a model could not be retrained.
        """
        started = time.perf_counter()
        weights = {m: known for m, known in self.weights.items() if m not in affected}
        for derivation, _ in self._fit(weights, affected, replay=True):
            say(derivation.id)
        return {model: weights[model] for model in affected}, time.perf_counter() - started

    def _fit(
        self,
        weights: dict[str, Weights],
        models: Collection[str],
        *,
        replay: bool,
    ) -> Iterator[tuple[Derivation, Fitted]]:
        """Train models generation by generation, those of one generation at the same time.

        What they become is added to `weights`.
        """
        for generation in self.settings.scenario.generations():
            messages = {}
            for derivation in generation:
                if derivation.id not in models:
                    continue
                if replay and self.forgetting.has_left(derivation.id):
                    weights[derivation.id] = untrained(derivation, self.forgetting, weights)
                else:
                    fit = fit_of(
                        derivation,
                        self.forgetting,
                        replay=replay,
                        created_us=now_us(),
                        keep=self.keep and not replay,
                        run=self.run,
                    )
                    start = start_of(derivation, self.forgetting, weights, replay=replay)
                    messages[derivation] = fit.message(
                        start, self._node(derivation.id), _TIMEOUT_SECONDS
                    )
            for derivation, reply in exchange(self.grid, messages, _TIMEOUT_SECONDS):
                fitted = Fitted.from_reply(derivation.id, reply)
                weights[derivation.id] = fitted.weights
                yield derivation, fitted

    def _node(self, model: str) -> int:
        owner = owner_name(self.settings.scenario.owner_of(model, self.settings.clients))
        if owner not in self.owners.nodes:
            raise CampaignError(
                f"Expected {owner} to train model {model!r}, but no node has reported to be it."
            )
        return self.owners.nodes[owner]
