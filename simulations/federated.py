"""The main job, end to end: train a network of inheriting models, forget in all of them, measure.

train         the topology on Flower's simulation engine; the graph is recorded as it comes
register      per-class Fisher summaries, so that no request needs the data again
campaign      plan, collect at the roots, merge, broadcast, dampen, verify
repeat        the same request once more: nothing may change
retrain       every affected model, exactly, without the data to forget: the reference
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from flwr.serverapp import Grid

from disinherit.common.checkpoints import write_atomic
from disinherit.common.errors import CampaignError, CheckpointError, InputError
from disinherit.server.coordinator import CampaignResult, Coordinator
from disinherit.server.flower_transport import FlowerTransport
from disinherit.server.planning import Plan
from disinherit.server.store import CoordinatorStore
from disinherit.server.transport import Ask
from disinherit.simulations.direct import DirectTransport
from disinherit.simulations.engine import simulate
from disinherit.simulations.fleet import Fleet
from disinherit.simulations.owners import (
    SharedData,
    SimulatedOwner,
    load_settings,
    owner_name,
    share_out,
)
from disinherit.simulations.report import Measured, build_report
from disinherit.simulations.report_html import render_html
from disinherit.simulations.report_schema import Report
from disinherit.simulations.settings import Settings
from disinherit.simulations.topology import FEDERATED, Topology
from disinherit.simulations.training import build_simulation_app
from disinherit.v1 import unlearning_pb2 as pb

Say = Callable[[str], None]


def run_federated(settings: Settings, folder: Path, say: Say = lambda _: None) -> Report:
    """Run the federated scenario and write its report.

    Args:
        settings: of the run.
        folder: where models, the coordinator's database and the reports go.  A finished run of the
            same settings that is already there is not trained again: its request is repeated, which
            changes nothing.
        say: told what is happening.

    Returns:
        What was written to `report.json`.

    Raises:
        InputError: if the folder holds something else, or the settings do not fit the data.
        CheckpointError: if the folder cannot be written to, or a stored model is damaged.
        CampaignError: if a model could not be trained.
    """
    data = share_out(settings)
    finished = _prepare(folder, settings)
    if finished:
        return _repeat(settings, folder, say)
    reports: list[Report] = []

    def main(grid: Grid) -> None:
        reports.append(_main(grid, settings, FEDERATED, data, folder, say))

    say("starting the simulation engine")
    simulate(main, build_simulation_app(settings, folder), settings.clients, settings.device)
    if not reports:
        raise CampaignError("Expected the simulation engine to run, but it ended early.")
    _write(folder, reports[0])
    return reports[0]


def _main(
    grid: Grid,
    settings: Settings,
    topology: Topology,
    data: SharedData,
    folder: Path,
    say: Say,
) -> Report:
    store = CoordinatorStore(folder / "coordinator.db")
    try:
        transport = FlowerTransport(grid, expected=settings.clients)
        coordinator = Coordinator(store, transport, say=say)
        fleet = Fleet(settings, topology, grid, transport)
        trained = fleet.train(store.add_model, lambda model: say(f"trained {model}"))
        say("registering Fisher summaries")
        owners = sorted({record.owner for record in store.graph().models()})
        errors = coordinator.register(owners, settings.method.scope)
        if errors:
            raise CampaignError("; ".join(errors.values()))
        graph = store.graph()
        before = _confusions(coordinator, list(topology.ids))
        request = settings.request()
        planned = coordinator.submit(request)
        published = _published(coordinator, transport, settings, planned, say)
        result = coordinator.run(request.id)
        after = _after(coordinator, result, topology)
        say("sending the same request again")
        repeat = coordinator.run(request.id, resend=True)
        retrained, seconds = fleet.replay(
            planned.affected, lambda model: say(f"retrained {model} for reference")
        )
        measured = Measured(
            before,
            after,
            {model: fitted.confusion for model, fitted in retrained.items()},
            published,
            trained,
            seconds,
        )
        return build_report(settings, topology, data, graph, planned, result, repeat, measured)
    finally:
        store.close()


def _published(
    coordinator: Coordinator,
    transport: FlowerTransport,
    settings: Settings,
    planned: Plan,
    say: Say,
) -> dict[str, list[list[int]]]:
    """Evaluate the plain published rule on the same models, changing none of them."""
    if not settings.compare_published:
        return {}
    say("evaluating the plain published rule beside it")
    request = settings.request()
    request.method.CopyFrom(settings.method.published().to_proto())
    prepared = coordinator.prepare(request, planned.groups)
    asks = [Ask(o, "evaluate.preview", message) for o, message in prepared.messages.items()]
    found: dict[str, list[list[int]]] = {}
    for answer in transport.ask(asks, timeout=600.0):
        if not isinstance(answer.reply, pb.EvaluateReply):
            raise CampaignError(answer.error)
        for evaluation in answer.reply.models:
            if evaluation.error:
                raise CampaignError(evaluation.error)
            found[evaluation.model_id] = _square(evaluation)
    return found


def _after(
    coordinator: Coordinator, result: CampaignResult, topology: Topology
) -> dict[str, list[list[int]]]:
    """Evaluate what every model has become; a model that was not changed stands for itself."""
    now = {model: model for model in topology.ids}
    for model, task in result.tasks.items():
        if task.result is not None:
            now[model] = task.result.successor.id
    found = _confusions(coordinator, list(now.values()))
    return {model: found[version] for model, version in now.items()}


def _confusions(coordinator: Coordinator, models: list[str]) -> dict[str, list[list[int]]]:
    found = coordinator.evaluate(models)
    for evaluation in found.values():
        if evaluation.error:
            raise CampaignError(
                f"Expected model {evaluation.model_id!r} to be evaluated, but: {evaluation.error}"
            )
    return {model: _square(evaluation) for model, evaluation in found.items()}


def _square(evaluation: pb.Evaluation) -> list[list[int]]:
    size = len(evaluation.labels)
    return [list(evaluation.confusion[i * size : (i + 1) * size]) for i in range(size)]


def _prepare(folder: Path, settings: Settings) -> bool:
    """Make the run's folder ready; return whether it holds the finished run of these settings."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        marker = folder / "run.json"
        if marker.exists():
            if load_settings(folder) != settings:
                raise InputError(
                    f"Expected an empty folder or a run of the same settings in {str(folder)!r}, "
                    "but it holds a run of other settings. Choose another --out, or remove it."
                )
            if (folder / "report.json").exists():
                return True
            for name in ("owners", "coordinator.db", "coordinator.db-wal", "coordinator.db-shm"):
                _remove(folder / name)
        elif any(folder.iterdir()):
            raise InputError(
                f"Expected an empty folder for the run, but {str(folder)!r} holds other files. "
                "Choose another --out."
            )
        write_atomic(marker, json.dumps(settings.to_dict(), indent=2).encode())
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise CheckpointError(
            f"Expected to be able to write to {str(folder)!r}, but: {error}. Choose another --out."
        ) from None
    return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _repeat(settings: Settings, folder: Path, say: Say) -> Report:
    """Send a finished run's request to its owners once more, and add that to the report."""
    say("the run is already there: sending its request again")
    report: Report = json.loads((folder / "report.json").read_text())
    store = CoordinatorStore(folder / "coordinator.db")
    try:
        owners = {
            owner_name(index): lambda index=index: SimulatedOwner(settings, index, folder)
            for index in range(settings.clients)
        }
        coordinator = Coordinator(store, DirectTransport(owners), say=say)
        result = coordinator.run(settings.request().id, resend=True)
    finally:
        store.close()
    failed = [task for task in result.tasks.values() if not task.state.settled]
    if failed:
        raise CheckpointError("; ".join(f"{t.model_id}: {t.reason}" for t in failed))
    report["campaign"]["outcome"] = "unchanged" if not result.changed else "complete"
    report["repeat"] = {
        "changed": len(result.changed),
        "already_applied": len(result.already_applied),
    }
    return report


def _write(folder: Path, report: Report) -> None:
    """Write the HTML first: `report.json` marks the run as finished."""
    write_atomic(folder / "report.html", render_html(report).encode())
    write_atomic(folder / "report.json", json.dumps(report, indent=2).encode())
