"""What a fleet starts from and must come to: a simulated run, copied before it forgets."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from flwr.serverapp import Grid

from disinherit.client.store.store import ModelStore
from disinherit.common.errors import CampaignError
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.campaign.dry_pass import Say
from disinherit.server.flower.owners import NamedOwners
from disinherit.server.flower.transport import FlowerTransport
from disinherit.server.store.store import CoordinatorStore
from disinherit.simulations.run.engine import simulate
from disinherit.simulations.run.folder import DATABASE, prepare_folder
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
        affected: the models that forgot.
        digests: model -> SHA-256 of the weights that it has come to.
    """

    start: Path
    affected: tuple[str, ...]
    digests: dict[str, str]


def make_reference(settings: Settings, folder: Path, say: Say) -> Reference:
    """Train and register the models of a run, copy them, and let the simulation forget.

    Args:
        settings: of the run.
        folder: an empty one, for both copies.
        say: told what is happening.

    Raises:
        CampaignError: if a model could not be trained, registered or made to forget.
    """
    run, start = folder / _SIMULATION, folder / _START
    prepare_folder(run, settings)

    def main(grid: Grid) -> tuple[str, ...]:
        owners = NamedOwners(grid, settings.clients)
        transport = FlowerTransport(grid, owners)
        store = CoordinatorStore(run / DATABASE)
        try:
            spaces = label_spaces(settings.scenario, share_out(settings).dataset)
            fleet = SimulatedFleet(settings, grid, owners, Forgetting(settings, spaces))
            fleet.train(store.add_model, lambda model: say(f"trained {model}"))
            errors = Coordinator(store, transport).register(
                sorted(owners.nodes), settings.method.scope
            )
        finally:
            store.close()
        if errors:
            raise CampaignError(f"Expected all models to be registered, but: {errors}")
        shutil.copytree(run, start)  # no owner is open between two messages
        store = CoordinatorStore(run / DATABASE)
        try:
            coordinator = Coordinator(store, transport, say=say)
            planned = coordinator.submit(settings.request())
            result = coordinator.run(settings.request().id)
        finally:
            store.close()
        if result.outcome != "complete":
            raise CampaignError(f"Expected the simulation to forget, but it is {result.outcome}.")
        return tuple(planned.affected)

    affected = simulate(main, build_simulation_app(settings, run), settings.clients)
    return Reference(start, affected, held_digests(run, settings.clients))


def held_digests(folder: Path, clients: int) -> dict[str, str]:
    """Return what the owners of a run hold: of every model the version that it has come to.

    Args:
        folder: of the run.
        clients: number of owners.

    Returns:
        Model -> SHA-256 of the weights as they are on disk, of the successor if there is one.

    Raises:
        CampaignError: if a model has more than one successor: it was dampened twice.
    """
    digests: dict[str, str] = {}
    for name in map(owner_name, range(clients)):
        store = ModelStore(folder / "owners" / name, name)
        try:
            versions: dict[str, list[str]] = {}
            for record in store.records():
                versions.setdefault(record.id.partition("~")[0], []).append(record.id)
            for model, ids in versions.items():
                if len(ids) > 2:
                    raise CampaignError(f"Expected {model!r} to forget once, but got {ids}.")
                digests[model] = weights_digest(store.weights(max(ids)))
        finally:
            store.close()
    return digests
