"""Sending the request of a finished run to its owners once more, which must change nothing."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

from disinherit.common.errors import CheckpointError
from disinherit.common.wire.requests import Request
from disinherit.direct import DirectTransport
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.store.store import CoordinatorStore
from disinherit.simulations.report.document import RunReport
from disinherit.simulations.run.asking import request_of
from disinherit.simulations.run.folder import copy_database, load_report
from disinherit.simulations.run.owners import SimulatedOwner
from disinherit.simulations.scenario.settings import Settings
from disinherit.simulations.scenario.shares import owner_name


def repeat(settings: Settings, folder: Path, say: Callable[[str], None]) -> RunReport:
    """Repeat the request of a finished run.

    The coordinator works on a copy of its database, and first asks the owners for every version
    and summary, so that a damaged run is found out before anything in it could be changed.

    Args:
        settings: of the run.
        folder: the run's folder.
        say: receives progress messages.

    Returns:
        The run's report, with the outcome of the repetition in it; it is not written.

    Raises:
        CheckpointError: if something the run made is missing, damaged or not what it was.
        StoreError: if a database is damaged.
    """
    say("the run is already there: sending its request again")
    report = load_report(folder)
    owners = {}
    for index in range(settings.clients):
        _check_owner(folder, owner_name(index))
        owners[owner_name(index)] = functools.partial(SimulatedOwner, settings, index, folder)
    with tempfile.TemporaryDirectory(prefix="disinherit-") as scratch:
        store = CoordinatorStore(copy_database(folder, Path(scratch)))
        try:
            coordinator = Coordinator(store, DirectTransport(owners), say=say)
            _check_versions(coordinator)
            request = request_of(settings, folder)
            _check_summaries(coordinator, request)
            result = coordinator.run(request.id, resend=True)
        finally:
            store.close()
    for task in result.tasks.values():
        if not task.state.settled:
            raise CheckpointError(f"{task.model_id}: {task.reason}")
    report["campaign"]["outcome"] = "complete" if result.changed else "unchanged"
    report["repeat"] = {
        "changed": len(result.changed),
        "already_applied": len(result.already_applied),
    }
    return report


def _check_owner(folder: Path, owner: str) -> None:
    index = folder / "owners" / owner / "index.db"
    if not index.is_file():
        raise CheckpointError(
            f"Expected the models of {owner}, but {index} is missing. Restore it, or remove "
            f"{folder} to start again."
        )


def _check_versions(coordinator: Coordinator) -> None:
    """Check that the owners hold every version that the coordinator knows."""
    records = coordinator.store.graph().models()
    found = coordinator.evaluate([record.id for record in records])
    for record in records:
        evaluation = found[record.id]
        if evaluation.error:
            raise CheckpointError(f"{record.id}: {evaluation.error}")
        if evaluation.digest != record.digest:
            raise CheckpointError(
                f"Expected {record.owner} to hold model {record.id!r} with digest "
                f"{record.digest}, but it holds {evaluation.digest}."
            )


def _check_summaries(coordinator: Coordinator, request: Request) -> None:
    """Check that the Fisher information of the roots can still be read."""
    prepared = coordinator.prepare(request, coordinator.submit(request).groups)
    for reason in (*prepared.failed.values(), *prepared.waiting.values()):
        raise CheckpointError(reason)
