"""Training a topology over Flower, generation by generation, and replaying it."""

import functools
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from flwr.serverapp import Grid
from torch import nn

from disinherit.common.errors import CampaignError
from disinherit.common.records import Inheritance, ModelRecord
from disinherit.server.flower_transport import FlowerTransport, exchange
from disinherit.server.store import now_us
from disinherit.simulations.inheriting import Weights, starting_weights
from disinherit.simulations.label_spaces import LabelSpaces, label_spaces
from disinherit.simulations.owners import owner_name, share_out
from disinherit.simulations.settings import Settings
from disinherit.simulations.topology import Derivation
from disinherit.simulations.training import Fit, Fitted

Record = Callable[[ModelRecord, list[Inheritance]], None]

_TIMEOUT_SECONDS = 3600.0


@dataclass
class Fleet:
    """The models of a run while they come to be.

    Attributes:
        settings: of the run.
        grid: the way to the owners' nodes.
        transport: knows which node an owner is.
        weights: of the trained models, by id.
    """

    settings: Settings
    grid: Grid
    transport: FlowerTransport
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
        ids = self.settings.scenario.ids
        for derivation, fitted in self._fit({}, ids, self.spaces.never_trained, keep=True):
            self.weights[derivation.id] = fitted.weights
            record(fitted.record, self.spaces.edges(derivation))
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
        for derivation, fitted in self._fit(others, affected, self.spaces.left_out, keep=False):
            retrained[derivation.id] = fitted.weights
            say(derivation.id)
        return retrained, time.perf_counter() - started

    @functools.cached_property
    def spaces(self) -> LabelSpaces:
        """What the models know of the data set's classes."""
        return label_spaces(self.settings.scenario, share_out(self.settings).dataset)

    def _fit(
        self,
        known: Mapping[str, Weights],
        models: Collection[str],
        without: Callable[[str, Mapping[str, tuple[str, ...]]], tuple[str, ...]],
        *,
        keep: bool,
    ) -> Iterator[tuple[Derivation, Fitted]]:
        """Train models generation by generation, those of one generation at the same time."""
        weights = dict(known)
        for generation in self.settings.scenario.generations():
            messages = {}
            for derivation in generation:
                if derivation.id in models:
                    fit = Fit(
                        derivation.id,
                        now_us(),
                        without(derivation.id, self.settings.forget),
                        keep,
                        self.spaces.labels[derivation.id],
                        derivation.trains,
                    )
                    start = starting_weights(derivation, self.spaces, weights, self._fresh)
                    messages[derivation] = fit.message(
                        start, self._node(derivation.id), _TIMEOUT_SECONDS
                    )
            for derivation, reply in exchange(self.grid, messages, _TIMEOUT_SECONDS):
                fitted = Fitted.from_reply(derivation.id, reply)
                weights[derivation.id] = fitted.weights
                yield derivation, fitted

    def _fresh(self, classes: int) -> nn.Module:
        """Return the network that models with so many classes start from."""
        dataset = share_out(self.settings).dataset
        return self.settings.network_spec(dataset, classes).build(self.settings.seed)

    def _node(self, model: str) -> int:
        owner = owner_name(self.settings.scenario.owner_of(model, self.settings.clients))
        if owner not in self.transport.nodes:
            raise CampaignError(
                f"Expected {owner} to train model {model!r}, but it did not say that it is there."
            )
        return self.transport.nodes[owner]
