"""Training a topology over Flower, generation by generation, and replaying it."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from flwr.serverapp import Grid

from disinherit.common.errors import CampaignError
from disinherit.common.records import Inheritance, ModelRecord
from disinherit.server.flower_exchange import exchange
from disinherit.server.flower_owners import SaidOwners
from disinherit.server.store import now_us
from disinherit.simulations.owners import owner_name
from disinherit.simulations.settings import Settings
from disinherit.simulations.topology import Derivation, Topology
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
        owners: knows which node an owner is.
        weights: of the trained models, by id.
    """

    settings: Settings
    topology: Topology
    grid: Grid
    owners: SaidOwners
    weights: dict[str, Weights] = field(default_factory=dict)

    def train(self, record: Record, say: Callable[[str], None]) -> float:
        """Train every model on its owner, recording it and its inheritance as it comes.

        Args:
            record: given every new version and its edges.
            say: told the id of every model that was trained.

        Returns:
            Seconds.

        Raises:
            CampaignError: if a model could not be trained.
        """
        started = time.perf_counter()
        for derivation, fitted in self._fit({}, self.topology.ids, self.never_learned, keep=True):
            self.weights[derivation.id] = fitted.weights
            record(fitted.record, self.topology.edges(derivation))
            say(derivation.id)
        return time.perf_counter() - started

    def replay(
        self, affected: Collection[str], say: Callable[[str], None]
    ) -> tuple[dict[str, Weights], float]:
        """Retrain the affected models exactly, without the data to forget: the reference.

        Args:
            affected: the models to retrain; the others are taken as they are.
            say: told the id of every model that was retrained.

        Returns:
            Weights by model id, and seconds.

        Raises:
            CampaignError: if a model could not be retrained.
        """
        started = time.perf_counter()
        others = {m: weights for m, weights in self.weights.items() if m not in affected}
        retrained = {}
        for derivation, fitted in self._fit(others, affected, self.left_out, keep=False):
            retrained[derivation.id] = fitted.weights
            say(derivation.id)
        return retrained, time.perf_counter() - started

    def never_learned(self, model: str) -> tuple[str, ...]:
        """Return the classes that a model is not trained on, since it is not below their root."""
        return self.topology.never_learned(model, self.settings.forget)

    def left_out(self, model: str) -> tuple[str, ...]:
        """Return the classes left out when an affected model is retrained.

        These are the classes it is to forget, and those it never learned: all sensitive ones.
        """
        return tuple(name for names in self.settings.forget.values() for name in names)

    def _fit(
        self,
        known: Mapping[str, Weights],
        models: Collection[str],
        without: Callable[[str], tuple[str, ...]],
        *,
        keep: bool,
    ) -> Iterator[tuple[Derivation, Fitted]]:
        """Train models generation by generation, those of one generation at the same time."""
        weights = dict(known)
        for generation in self.topology.generations():
            messages = {}
            for derivation in generation:
                if derivation.id in models:
                    fit = Fit(derivation.id, now_us(), without(derivation.id), keep)
                    start = average([weights[parent] for parent in derivation.parents])
                    messages[derivation] = fit.message(
                        start, self._node(derivation.id), _TIMEOUT_SECONDS
                    )
            for derivation, reply in exchange(self.grid, messages, _TIMEOUT_SECONDS):
                fitted = Fitted.from_reply(derivation.id, reply)
                weights[derivation.id] = fitted.weights
                yield derivation, fitted

    def _node(self, model: str) -> int:
        owner = owner_name(self.topology.owner_of(model, self.settings.clients))
        if owner not in self.owners.nodes:
            raise CampaignError(
                f"Expected {owner} to train model {model!r}, but it did not say that it is there."
            )
        return self.owners.nodes[owner]
