"""What a fleet starts from and must come to: a simulated run, copied before it forgets."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr.serverapp import Grid

from disinherit.client.store.store import ModelStore
from disinherit.common.errors import CampaignError
from disinherit.common.graph.records import ModelStatus
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.wire.requests import Request
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.campaign.dry_pass import Say
from disinherit.server.flower.owners import NamedOwners
from disinherit.server.flower.transport import FlowerTransport
from disinherit.simulations.run.engine import simulate
from disinherit.simulations.run.folder import open_store, prepare_folder
from disinherit.simulations.run.trainer import SimulatedFleet
from disinherit.simulations.run.training import build_simulation_app
from disinherit.simulations.scenario.forgetting import Forgetting
from disinherit.simulations.scenario.label_spaces import label_spaces
from disinherit.simulations.scenario.settings import Settings
from disinherit.simulations.scenario.shares import owner_name, share_out

_START = "start"
_SIMULATION = "simulation"


@dataclass(frozen=True, slots=True)
class Reference:
    """A simulated run.

    Attributes:
        start: folder with its models, registered, before anything was forgotten.
        before: model -> SHA-256 of its weights then.
        come_to: request -> model -> SHA-256 of the weights that it came to by that request alone.
    """

    start: Path
    before: dict[str, str]
    come_to: dict[str, dict[str, str]]


Asked = Callable[[Path], Sequence[Request]]
"""Returns requests for the models in a run's folder."""


def make_reference(settings: Settings, folder: Path, asked: Asked, say: Say) -> Reference:
    """Train and register the models of a run, copy them, and let the simulation forget.

    Each request but the last one is rolled back.

    Args:
        settings: of the run.
        folder: an empty one, for both copies.
        asked: what to forget.
        say: told what is happening.

    Raises:
        CampaignError: if a model could not be trained, registered or made to forget.
    """
    run, start = folder / _SIMULATION, folder / _START
    prepare_folder(run, settings)

    come_to: dict[str, dict[str, str]] = {}

    def main(grid: Grid) -> dict[str, str]:
        owners = NamedOwners(grid, settings.clients)
        transport = FlowerTransport(grid, owners)
        with open_store(run) as store:
            spaces = label_spaces(settings.scenario, share_out(settings).dataset)
            fleet = SimulatedFleet(settings, grid, owners, Forgetting(settings, spaces))
            fleet.train(store.add_model, lambda model: say(f"trained {model}"))
            errors = Coordinator(store, transport).register(
                sorted(owners.nodes), settings.method.scope
            )
        if errors:
            raise CampaignError(f"Expected all models to be registered, but: {errors}")
        requests = asked(run)
        shutil.copytree(run, start)  # no owner is open between two messages
        before = held_digests(run, settings.clients)
        with open_store(run) as store:
            coordinator = Coordinator(store, transport, say=say)
            for request in requests:
                coordinator.submit(request)
                _expect("complete", coordinator.run(request.id).outcome)
                come_to[request.id] = held_digests(run, settings.clients)
                if request is not requests[-1]:
                    store.roll_back(request.id, reason="demonstration")
                    _expect("rolled_back", coordinator.run(request.id).outcome)
        return before

    before = simulate(main, build_simulation_app(settings, run), settings.clients)
    return Reference(start, before, come_to)


def _expect(outcome: str, got: str) -> None:
    if got != outcome:
        raise CampaignError(f"Expected a campaign of the simulation to be {outcome}, but got {got}")


def held_digests(folder: Path, clients: int) -> dict[str, str]:
    """Return what the owners of a run hold: of every model the version that is in use.

    Args:
        folder: of the run.
        clients: number of owners.

    Returns:
        Model -> SHA-256 of the weights as they are on disk.

    Raises:
        CampaignError: if two versions of a model are in use: it was made to forget twice.
    """
    digests: dict[str, str] = {}
    for name in map(owner_name, range(clients)):
        with ModelStore(folder / "owners" / name, name) as store:
            for record in store.records():
                model = record.id.partition("~")[0]
                if record.status is not ModelStatus.ACTIVE:
                    continue
                if model in digests:
                    raise CampaignError(f"Expected one version of {model!r}, but got {record.id}.")
                digests[model] = weights_digest(store.weights(record.id))
    return digests
