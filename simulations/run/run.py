"""The main job, end to end: train a network of inheriting models, forget in all of them, measure.

train         the topology on Flower's simulation engine; the graph is recorded as it comes
register      per-class Fisher summaries, so that no request needs the data again
campaign      plan, collect at the roots, merge, broadcast, dampen, verify
repeat        the same request once more: nothing may change
retrain       every affected model, exactly, without the data to forget: the reference

What cannot work is refused before anything is written.  Once the models are trained, nothing that
fails takes the report away: what could not be measured is missing from it, with the reason.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count
from pathlib import Path

from flwr.serverapp import Grid

from disinherit.common.errors import CampaignError, UntrainedError
from disinherit.common.models.devices import pick_device
from disinherit.common.models.scope import resolve_scope
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.campaign.result import CampaignResult
from disinherit.server.flower.owners import NamedOwners
from disinherit.server.flower.transport import FlowerTransport
from disinherit.server.planning.plan import Plan
from disinherit.server.store.store import CoordinatorStore
from disinherit.simulations.report.build import Confusions, RunMeasurements, build_report
from disinherit.simulations.report.document import RunReport
from disinherit.simulations.run.asking import request_of
from disinherit.simulations.run.engine import check_engine, simulate
from disinherit.simulations.run.folder import DATABASE, discard_run, prepare_folder, save_report
from disinherit.simulations.run.guessing import check_knowledge, guessing_models
from disinherit.simulations.run.repeating import repeat
from disinherit.simulations.run.trainer import SimulatedFleet
from disinherit.simulations.run.training import build_simulation_app, confusion
from disinherit.simulations.scenario.forgetting import Forgetting
from disinherit.simulations.scenario.inheriting import classes_of
from disinherit.simulations.scenario.label_spaces import label_spaces
from disinherit.simulations.scenario.settings import Settings, check_forget
from disinherit.simulations.scenario.shares import SharedData, check_shares, share_out
from disinherit.simulations.scenario.topology import Topology
from disinherit.v1 import unlearning_pb2 as pb

Say = Callable[[str], None]


def run_scenario(settings: Settings, folder: Path, say: Say = lambda _: None) -> RunReport:
    """Run a scenario and write its report.

    Args:
        settings: of the run.
        folder: where models, the coordinator's database and the reports go.  A finished run of the
            same settings that is already there is not trained again: its request is repeated, which
            changes nothing.  One that was cut short, or whose campaign did not reach every affected
            model, is started again.
        say: receives progress messages, from another thread, one at a time.

    Returns:
        What was written to `report.json`; after a repetition, that with the repetition's outcome.

    Raises:
        InputError: if the folder holds something else, or the settings do not fit the data.
        CheckpointError: if the folder cannot be written to, or a stored model is damaged.
        CampaignError: if a model could not be trained.
        UntrainedError: if a root has learned nothing; the folder is left empty.
    """
    data = share_out(settings)
    _check(settings, data)
    folder = folder.absolute()  # owners are other processes
    if prepare_folder(folder, settings):
        return repeat(settings, folder, say)
    say("starting the simulation engine, Ray: half a minute, and more on a busy machine")
    try:
        report = simulate(
            lambda grid: _main(grid, settings, data, folder, say),
            build_simulation_app(settings, folder),
            settings.clients,
            settings.device,
        )
    except UntrainedError:
        discard_run(folder)
        raise
    save_report(folder, report)
    return report


def _check(settings: Settings, data: SharedData) -> None:
    """Refuse settings that do not fit the data, the topology or this machine."""
    check_forget(settings.forget, data.dataset, settings.scenario)
    network = settings.network_spec(data.dataset).build(settings.seed)
    resolve_scope(network, settings.method.scope, network.known_head())
    check_shares(settings, data)
    pick_device(settings.device)
    check_engine()


def _main(
    grid: Grid,
    settings: Settings,
    data: SharedData,
    folder: Path,
    say: Say,
) -> RunReport:
    store = CoordinatorStore(folder / DATABASE)
    try:
        owners = NamedOwners(grid, expected=settings.clients)
        transport = FlowerTransport(grid, owners)
        coordinator = Coordinator(store, transport, say=say)
        forgetting = Forgetting(settings, label_spaces(settings.scenario, data.dataset))
        fleet = SimulatedFleet(settings, grid, owners, forgetting)
        measured = RunMeasurements()
        trained = _counted(say, "trained {}", len(settings.scenario.ids))
        measured.train_seconds = fleet.train(store.add_model, trained)
        say("registering Fisher summaries")
        graph = store.graph()
        names = sorted({record.owner for record in graph.models()})
        errors = coordinator.register(names, settings.method.scope)
        measured.notes += [f"No Fisher summaries registered: {e}" for e in errors.values()]
        graph = store.graph()
        _evaluate(coordinator, {m: m for m in settings.scenario.ids}, measured.before, measured)
        _check_before(settings, measured, say)
        request = request_of(settings, folder)
        planned = coordinator.submit(request)
        if settings.compare_published:
            say("evaluating the plain published rule beside it")
            _preview_published(coordinator, transport, settings, planned, measured)
        result = coordinator.run(request.id)
        _evaluate(coordinator, _versions(settings.scenario, result), measured.after, measured)
        say("sending the same request again")
        again = coordinator.run(request.id, resend=True)
        _retrain(fleet, planned, data, measured, say)
        return build_report(settings, data, graph, planned, result, again, measured)
    finally:
        store.close()


def _check_before(settings: Settings, measured: RunMeasurements, say: Say) -> None:
    """Refuse to unlearn where roots know nothing; say of which other models nothing will follow."""
    check_knowledge(list(settings.forget), measured.before)
    guessing = guessing_models(measured.before)
    if guessing:
        measured.notes.append(
            f"Before the request, {', '.join(guessing)} did no better than a guess, so that "
            "nothing follows from what is measured of them."
        )
        say(measured.notes[-1])


def _preview_published(
    coordinator: Coordinator,
    transport: FlowerTransport,
    settings: Settings,
    planned: Plan,
    measured: RunMeasurements,
) -> None:
    """Evaluate the plain published rule on the same models, changing none of them."""
    request = replace(settings.request(), method=settings.method.published())
    prepared = coordinator.prepare(request, planned.groups)
    for answer in transport.ask(prepared.asks("evaluate.preview"), timeout=600.0):
        if isinstance(answer.reply, pb.EvaluateReply):
            found = {e.model_id: e for e in answer.reply.models}
            _sort_out(found.items(), measured.published, measured)
        else:
            measured.notes.append(f"The published rule was not evaluated: {answer.error}")


def _versions(topology: Topology, result: CampaignResult) -> dict[str, str]:
    """Return what every model has become; an unchanged one is its own."""
    changed = {
        model: made.id
        for model, task in result.tasks.items()
        if (made := task.successor) is not None
    }
    return {model: changed.get(model, model) for model in topology.ids}


def _evaluate(
    coordinator: Coordinator, versions: dict[str, str], found: Confusions, measured: RunMeasurements
) -> None:
    """Evaluate the version that each model is now."""
    evaluations = coordinator.evaluate(list(versions.values()))
    _sort_out([(model, evaluations[v]) for model, v in versions.items()], found, measured)


def _sort_out(
    evaluations: Iterable[tuple[str, pb.Evaluation]], found: Confusions, measured: RunMeasurements
) -> None:
    for model, evaluation in evaluations:
        if evaluation.error:
            measured.errors.setdefault(model, evaluation.error)
        else:
            size = len(evaluation.labels)
            counts = list(evaluation.confusion)
            found[model] = [counts[i * size : (i + 1) * size] for i in range(size)]


def _counted(say: Say, words: str, total: int) -> Callable[[str], None]:
    """Return a callback that says which model is done, and how many of all."""
    numbers = count(1)
    return lambda model: say(f"{words.format(model)} [{next(numbers)}/{total}]")


def _retrain(
    fleet: SimulatedFleet, planned: Plan, data: SharedData, measured: RunMeasurements, say: Say
) -> None:
    """Retrain the affected models exactly; evaluating them is not part of the time it takes."""
    try:
        retrained, measured.retrain_seconds = fleet.replay(
            planned.affected, _counted(say, "retrained {} for reference", len(planned.affected))
        )
    except CampaignError as error:
        measured.notes.append(f"No exact retraining to compare with: {error}")
        return
    for model, weights in retrained.items():
        space = classes_of(fleet.forgetting.spaces, model)
        measured.retrained[model] = confusion(fleet.settings, data, weights, space)
